"""``source:name``: what is found, and what is said where nothing is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save_file

from attnshift.classifiers import SOURCES, load_classifier
from attnshift.errors import ModelError, UserError
from attnshift.lab.weights import classifier_names
from later import later
from planted import declare_giant, edit_json, plant_pickle

timm = later("timm")
models = later("timm.models")


@pytest.fixture(scope="module")
def timm_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of four classes, saved in timm's own format."""
    folder = tmp_path_factory.mktemp("classifier")
    network = timm.create_model("test_resnet", num_classes=4)
    config = {
        "label_names": ["ball", "mug", "donut", "tree"],
        "pretrained_cfg": {"mean": (0.1, 0.2, 0.3), "input_size": (3, 80, 80)},
    }
    models.save_for_hf(network, folder, model_config=config, safe_serialization=True)
    return folder


def complaint(name: str) -> str:
    with pytest.raises(UserError) as caught:
        load_classifier(name)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


@pytest.mark.parametrize("name", ["resnet50", "", "random:", ":", "timm"])
def test_names_without_a_source(name: str) -> None:
    message = complaint(name)
    assert "source:name" in message
    assert all(source in message for source in SOURCES)


def test_an_unknown_source_is_corrected() -> None:
    message = complaint("tim:resnet50")
    assert "unknown classifier source 'tim'" in message
    assert "did you mean 'timm'" in message


@pytest.mark.parametrize("source", ["timm", "random"])
def test_an_unknown_timm_name_is_corrected(source: str) -> None:
    message = complaint(f"{source}:resnet5O")
    assert "'resnet5O'" in message
    assert "did you mean 'resnet50" in message


def test_an_unknown_timm_tag() -> None:
    assert "resnet50.nothing_of_the_kind" in complaint("timm:resnet50.nothing_of_the_kind")


def test_an_unknown_lab_classifier_lists_the_known_ones() -> None:
    message = complaint("lab:nope")
    assert "unknown lab classifier 'nope'" in message
    assert all(name in message for name in classifier_names())


def test_a_folder_in_timms_format(timm_folder: Path) -> None:
    classifier = load_classifier(f"timm:{timm_folder}")
    assert classifier.name == f"timm:{timm_folder}"
    assert (classifier.classes, classifier.class_names) == (4, ("ball", "mug", "donut", "tree"))
    assert classifier.preprocessing.mean == pytest.approx((0.1, 0.2, 0.3))
    assert classifier.preprocessing.size == (80, 80)
    assert classifier(torch.rand(2, 3, 64, 64)).shape == (2, 4)


@pytest.mark.parametrize("damage", ["no config", "cut config", "cut weights", "no weights"])
def test_a_broken_folder(timm_folder: Path, tmp_path: Path, damage: str) -> None:
    config, weights = ((timm_folder / name).read_bytes() for name in ("config.json", "model.safetensors"))
    if damage != "no config":
        (tmp_path / "config.json").write_bytes(config[:40] if damage == "cut config" else config)
    if damage != "no weights":
        (tmp_path / "model.safetensors").write_bytes(weights[:5000] if damage == "cut weights" else weights)
    assert str(tmp_path) in complaint(f"timm:{tmp_path}")


def test_weights_of_another_architecture(timm_folder: Path, tmp_path: Path) -> None:
    config = json.loads((timm_folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"architecture": "test_convnext"}))
    (tmp_path / "model.safetensors").write_bytes((timm_folder / "model.safetensors").read_bytes())
    with pytest.raises(ModelError):
        load_classifier(f"timm:{tmp_path}")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model.pth", "other.bin", "model.safetensors"])
@pytest.mark.parametrize("archive", [False, True], ids=["pickle", "archive"])
def test_a_pickle_in_a_folder_is_never_opened(timm_folder: Path, tmp_path: Path, name: str, archive: bool) -> None:
    folder, marker = shutil.copytree(timm_folder, tmp_path / "model"), tmp_path / "marker"
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").unlink(missing_ok=True)
    plant_pickle(folder / name, marker, archive)
    assert "model.safetensors" in complaint(f"timm:{folder}")
    assert not marker.exists()


def test_a_pickle_is_not_opened_for_its_weights_alone_either(timm_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(timm_folder, tmp_path / "model")
    torch.save(load((folder / "model.safetensors").read_bytes()), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert "there is no file" in complaint(f"timm:{folder}")


def test_weights_of_a_folder_that_are_not_finite(timm_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(timm_folder, tmp_path / "model")
    weights = load((folder / "model.safetensors").read_bytes())
    weights["fc.bias"][0] = torch.nan
    save_file(weights, folder / "model.safetensors")
    assert "fc.bias has values that are not finite" in complaint(f"timm:{folder}")


def test_what_a_file_declares_is_held_against_its_length(timm_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(timm_folder, tmp_path / "model")
    declare_giant(folder / "model.safetensors")
    assert "is not a safetensors file, or is cut off" in complaint(f"timm:{folder}")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_classes": 10**10}, "num_classes is 10000000000; expected a whole number from 1 to 1000000"),
        ({"num_classes": True}, "num_classes is True"),
        ({"num_classes": 5}, "states 5 classes, and its model_args 4"),
        ({"num_classes": 5, "model_args": {"num_classes": 5}}, "size mismatch for fc."),
        ({"architecture": "nothing_of_the_kind"}, "nothing_of_the_kind"),
        ({"architecture": ["os", "system"]}, "cannot load"),
        ({"model_args": {"nonsense": 1}}, "nonsense"),
        ({"pretrained_cfg": 3}, "cannot load"),
    ],
    ids=str,
)
def test_a_configuration_that_cannot_be_meant(
    timm_folder: Path, tmp_path: Path, values: dict[str, Any], message: str
) -> None:
    folder = shutil.copytree(timm_folder, tmp_path / "model")
    edit_json(folder / "config.json", **values)
    assert message in complaint(f"timm:{folder}")


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(
    "name", ["x" * 500, "a\0b", "[bold]x[/bold]", "\x1b[31m", "../..", "/dev/zero", "\udcff"], ids=ascii
)
def test_a_name_that_nothing_can_have(monkeypatch: pytest.MonkeyPatch, source: str, name: str) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    form = {"checkpoint": "test_resnet@{}.safetensors", "zeroshot": "model@{}"}.get(source, "{}")
    complaint(f"{source}:{form.format(name)}")


def test_imagenet_names_where_the_network_has_1000_classes() -> None:
    names = load_classifier("random:test_resnet").class_names
    assert len(names) == 1000
    assert (names[0], names[207], names[999]) == ("tench", "golden retriever", "toilet tissue")
