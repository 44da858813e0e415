"""Models that are sent to a host: which files of them, and the names under which they are loaded."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from attnshift.errors import RunError
from attnshift.execution import shipping
from attnshift.execution.shipping import files_of, loaded_as, local_models, read_blocks, temporary_folder
from attnshift.execution.worker import load_networks
from attnshift.recipes.reading import load_recipe
from attnshift.results.spec import RunSpec


def spec(pipeline: str, *surrogates: str) -> RunSpec:
    return RunSpec(
        images="photos", labels=None, items="", pipeline=pipeline, surrogates=surrogates, size=64, batch=1,
        device="cpu", threads=1, recipe=load_recipe("quick"),
    )  # fmt: skip


def fill(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


def test_paths_in_the_names_of_models_are_those_of_this_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fill(tmp_path, "sd/model_index.json", "vit/config.json", "clip@2/config.json", "names.txt", "r.safetensors")
    # A file of that name is no folder of timm's.
    fill(tmp_path, "resnet50")
    names = [
        "timm:resnet50",
        "random:vit",
        "lab:resnet",
        f"jpeg(quality=60)+timm:{tmp_path / 'vit'}",
        "huggingface:vit",
        "zeroshot:clip@2@names.txt",
        "zeroshot:openai/clip@names.txt",
        "checkpoint:resnet50.a@r.safetensors",
    ]
    assert local_models(spec("sd", *names)) == {
        "sd": ("", Path("sd")),
        names[3]: ("jpeg(quality=60)+timm:", tmp_path / "vit"),
        names[4]: ("huggingface:", Path("vit")),
        names[5]: ("zeroshot:", Path("clip@2"), "@", Path("names.txt")),
        names[6]: ("zeroshot:", "openai/clip", "@", Path("names.txt")),
        names[7]: ("checkpoint:resnet50.a@", Path("r.safetensors")),
    }
    for name, parts in {
        "stable_diffusion:sd,variant=fp16": ("stable_diffusion:", Path("sd"), ",variant=", "fp16"),
        "lab,lora=r.safetensors,scale=2": ("", "lab", ",lora=", Path("r.safetensors"), ",scale=", "2"),
        "r.safetensors,config=sd": ("", Path("r.safetensors"), ",config=", Path("sd")),
    }.items():
        assert local_models(spec(name, "lab:resnet")) == {name: parts}
    assert local_models(spec("lab", "lab:resnet")) == {}


def test_names_hold_the_places_of_what_was_sent() -> None:
    models = {
        "zeroshot:clip@names.txt": ("zeroshot:", Path("clip"), "@", Path("names.txt")),
        "timm:vit": ("timm:", Path("vit")),
    }
    assert loaded_as(models, {Path("names.txt"): Path("/tmp/1/names.txt")}) == {
        "zeroshot:clip@names.txt": f"zeroshot:clip@{Path('/tmp/1/names.txt')}"
    }


def test_data_is_sent_and_neither_code_nor_pickles_nor_what_a_pipeline_never_reads(tmp_path: Path) -> None:
    needed = ["model_index.json", "tokenizer/merges.txt", "unet/config.json", "unet/model.safetensors"]
    pipeline = fill(
        tmp_path / "sd", *needed, "unet/model.bin", "unet/code.py", "whole.safetensors", "whole.ckpt",
        "safety_checker/model.safetensors", "README.md",
    )  # fmt: skip
    assert files_of(pipeline) == {name: pipeline / name for name in needed}
    model = fill(tmp_path / "vit", "config.json", "model.safetensors", "pytorch_model.bin")
    assert sorted(files_of(model)) == ["config.json", "model.safetensors"]
    alone = fill(tmp_path, "r.safetensors", "r.classes.json", "class_names.txt", "s.safetensors") / "r.safetensors"
    assert sorted(files_of(alone)) == ["class_names.txt", "r.classes.json", "r.safetensors"]


def test_a_linked_folder_is_followed(tmp_path: Path) -> None:
    fill(tmp_path / "blobs", "config.json")
    (tmp_path / "sd").mkdir()
    (tmp_path / "sd" / "unet").symlink_to(tmp_path / "blobs")
    (tmp_path / "sd" / "loop").symlink_to(tmp_path / "sd")
    assert "unet/config.json" in files_of(tmp_path / "sd")


def test_blocks_are_the_whole_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipping, "_BLOCK", 3)
    file = fill(tmp_path, "abcdefgh") / "abcdefgh"
    assert [*read_blocks(file)] == [b"abc", b"def", b"gh"]


def test_a_model_that_is_too_large_to_send_is_refused_in_a_line(tmp_path: Path) -> None:
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.truncate(33 * 10**9)
    with pytest.raises(RunError) as caught:
        files_of(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path} holds 33.0 GB, and at most 32 GB of a model are sent to a host that lacks it; "
        "put it on every host under this name"
    )


def test_a_model_that_is_loaded_from_elsewhere_keeps_its_name_and_weights(pipeline_folder: Path) -> None:
    name = "jpeg+random:test_resnet"
    sent = {name: "jpeg+random:test_convnext", "sd": str(pipeline_folder)}
    backbone, (classifier,) = load_networks("sd", [name], "float32", "cpu", sent)
    _, (other,) = load_networks("lab", [sent[name]], "float32", "cpu")
    assert classifier.name == name
    assert classifier.fingerprint() == other.fingerprint()
    assert backbone.suggested_size == 64


LOADING = """
import sys, tempfile
tempfile.tempdir = sys.argv[1]
from attnshift.execution.shipping import temporary_folder
with temporary_folder() as folder:
    (folder / "weights").touch()
    print(folder, flush=True)
    sys.stdin.read()
"""


def test_the_folder_of_a_killed_worker_is_removed_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    process = subprocess.Popen(
        [sys.executable, "-c", LOADING, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        abandoned = Path(process.stdout.readline().strip())
        with temporary_folder() as folder:
            assert (abandoned / "weights").exists(), "it is at work"
        assert not folder.exists()
        process.send_signal(signal.SIGKILL)
    assert (abandoned / "weights").exists()
    with temporary_folder() as folder:
        assert list(tmp_path.iterdir()) == [folder]
