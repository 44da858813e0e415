"""The command line as its users meet it: what it prints, with which status it ends, and what it leaves behind."""

from __future__ import annotations

import csv
import importlib
import json
import os
import pkgutil
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import pytest
from typer.core import TyperGroup
from typer.main import get_command

import attnshift
from attnshift import __version__
from attnshift.catalogue import catalogue
from attnshift.cli import app, main
from attnshift.cli.printing import with_flags
from attnshift.lab.weights import pipeline_folder as lab_weights
from attnshift.registry import Table
from attnshift.results.store import Store
from families import FAMILIES
from loras import kohya, layers_of, pairs_of, save
from pipelines import tiny_pipeline
from single_files import plain_clip, unet, vae, write
from small_runs import SHORT_PATH, SURROGATE, contents, pngs, write_labels, write_photos
from tables import records

JUDGE = "random:test_convnext"


@dataclass(frozen=True)
class Ended:
    status: int
    out: str
    err: str


Call = Callable[..., Ended]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Call]:
    """``attnshift ARGUMENTS`` in this process."""

    def run(*arguments: str | Path) -> Ended:
        monkeypatch.setattr(sys, "argv", ["attnshift", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main()
        captured = capsys.readouterr()
        return Ended(int(caught.value.code or 0), captured.out, captured.err)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield run
    for number, handler in before.items():
        signal.signal(number, handler)


def in_a_process(*arguments: str | Path) -> subprocess.Popen[str]:
    """The same in a process of its own, with everything that libraries say at their import."""
    program = "from attnshift.cli import main; main()"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "80"}
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def images_in(out: str) -> list[str]:
    """The lines of ``out`` that are about an image, without the notes about the run."""
    return [line for line in out.splitlines() if re.match(r"\d+/\d+ ", line)]


def assert_one_line(ended: Ended) -> None:
    assert ended.status == 2, ended.err
    lines = ended.err.splitlines()
    assert len(lines) == 1, ended.err
    assert lines[0].startswith("attnshift: ")
    assert ended.out == ""


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli-photos")
    write_photos(folder)
    return folder


@dataclass
class Command:
    """An attack that works, until a test spoils one part of it."""

    photos: Path
    pipeline: Path
    out: Path
    surrogates: tuple[str, ...] = (SURROGATE,)
    preset: str = "quick"
    more: tuple[str, ...] = ()

    def arguments(self) -> list[str]:
        images, labels = self.photos / "images", self.photos / "labels.csv"
        surrogates = [part for name in self.surrogates for part in ("--surrogate", name)]
        changes = ("optimiser.iterations=2", "finish.keep=last", SHORT_PATH)
        shorter = [*(part for change in changes for part in ("--set", change)), "--threads", "1"]
        options = ["--labels", labels, "--pipeline", self.pipeline, "--preset", self.preset, "--out", self.out]
        return ["attack", *map(str, [images, *options]), *surrogates, *shorter, *self.more]

    def validation(self) -> list[str]:
        """The same input, only looked at."""
        attack = self.arguments()
        for option in ("--out", "--threads"):
            at = attack.index(option)
            del attack[at : at + 2]
        return ["validate", *attack[1:]]

    def relabel(self, change: Callable[[list[str]], list[str]]) -> None:
        """Change the last row of the CSV."""
        with (self.photos / "labels.csv").open(newline="") as stream:
            rows = [(file, label, name) for file, label, name in list(csv.reader(stream))[1:]]
        file, label, name = change(list(rows[-1]))
        write_labels(self.photos, [*rows[:-1], (file, label, name)])


@pytest.fixture
def command(photos: Path, pipeline_folder: Path, tmp_path: Path) -> Command:
    shutil.copytree(photos, tmp_path / "photos")
    return Command(tmp_path / "photos", pipeline_folder, tmp_path / "run")


Spoil = Callable[[Command], None]
LONG = "an exceedingly long and winding name of a class that no tokenizer of this size can hold"


def change(**parts: object) -> Spoil:
    def spoil(command: Command) -> None:
        for name, value in parts.items():
            setattr(command, name, value)

    return spoil


def options(*more: str) -> Spoil:
    return change(more=more)


def missing_folder(command: Command) -> None:
    shutil.rmtree(command.photos / "images")


def missing_labels(command: Command) -> None:
    (command.photos / "labels.csv").unlink()


def corrupt_image(command: Command) -> None:
    path = command.photos / "images" / "photo-1.png"
    path.write_bytes(path.read_bytes()[:300])


def latin_labels(command: Command) -> None:
    (command.photos / "labels.csv").write_bytes("file,label,class_name\nphoto-1.png,1,café\n".encode("latin-1"))


def true_target(command: Command) -> None:
    command.relabel(lambda row: [row[0], "7", row[2]])
    command.more = ("--target", "7")


def targets(column: Sequence[str], *more: str) -> Spoil:
    """A column target."""

    def spoil(command: Command) -> None:
        lines = (command.photos / "labels.csv").read_text().splitlines()
        rows = zip(lines, ("target", *column), strict=True)
        (command.photos / "labels.csv").write_text("".join(f"{line},{target}\n" for line, target in rows))
        command.more = more

    return spoil


def recipe_with(text: str | bytes) -> Spoil:
    def spoil(command: Command) -> None:
        path = command.photos / "mine.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        command.preset = str(path)

    return spoil


def no_pipeline(command: Command) -> None:
    command.pipeline = command.photos / "images"


def missing_pipeline(command: Command) -> None:
    command.pipeline = command.photos / "no" / "such" / "pipeline"


def damaged_pipeline(file: str, keep: int | None) -> Spoil:
    """Cut ``file`` of the pipeline after ``keep`` bytes, or remove it."""

    def spoil(command: Command) -> None:
        copy = command.photos / "pipeline"
        shutil.copytree(command.pipeline, copy)
        path = copy / file
        content = path.read_bytes()
        path.unlink()
        if keep is not None:
            path.write_bytes(content[:keep])
        command.pipeline = copy

    return spoil


BAD_INPUT: dict[str, tuple[Spoil, str]] = {
    "missing image": (lambda command: (command.photos / "images" / "photo-1.png").unlink(), "photo-1.png does not"),
    "missing folder": (missing_folder, "no such folder"),
    "missing labels": (missing_labels, "no such label file"),
    "label out of range": (lambda command: command.relabel(lambda row: [row[0], "1000", row[2]]), "0 to 999"),
    "label that is text": (lambda command: command.relabel(lambda row: [row[0], "mug", row[2]]), "whole number"),
    "target out of range": (options("--target", "1000"), "--target: target 1000 is out of range"),
    "unknown target": (options("--target", "goldfihs"), "did you mean 'goldfish'"),
    "target that is a true class": (true_target, "line 4, photo-1.png: target 7 is the image's true class"),
    "target in the column too": (targets("111", "--target", "1"), "contradicts --target"),
    "target of some images": (targets(("1", "", "1")), "line 3: no target, unlike the images before"),
    "unknown target of an image": (targets(("1", "goldfihs", "1")), "line 3: target 'goldfihs' is neither"),
    "no target to steer towards": (
        options("--set", "terms.contrast.weight=1.0", "--set", "interference.choose=target"),
        "the attack has none",
    ),
    "file outside": (lambda command: command.relabel(lambda row: ["../labels.csv", *row[1:]]), "inside"),
    "file name with a line break": (lambda command: command.relabel(lambda row: ["no\npe.png", *row[1:]]), "pe.png"),
    "labels that are not UTF-8": (latin_labels, "UTF-8"),
    "name that would be cut": (lambda command: command.relabel(lambda row: [*row[:2], LONG]), "would be cut"),
    "unsupported size": (options("--size", "60"), "--size 56 or 64"),
    "negative size": (options("--size", "-64"), "--size"),
    "enormous size": (options("--size", "8192"), "size"),
    "negative batch": (options("--batch", "-1"), "batch"),
    "negative threads": (options("--threads", "-1"), "threads"),
    "unknown device": (options("--device", "abacus"), "abacus"),
    "absent device": (options("--device", "cuda:63"), "cuda:63"),
    "unknown key": (options("--set", "optimiser.iteration=3"), "optimiser.iteration"),
    "wrong type": (options("--set", "optimiser.iterations=many"), "'many'"),
    "no key": (options("--set", "optimiser"), "key=value"),
    "a date": (options("--set", "seed=2020-01-01"), "seed"),
    "too many steps": (options("--set", "diffusion.denoising_steps=21"), "denoising_steps"),
    "unknown term": (options("--set", "terms.varience.weight=1.0"), "did you mean 'variance'"),
    "unknown option of a term": (options("--set", "terms.variance.colour=1"), "colour"),
    "prompt without a class": (options("--set", "prompt.template=a photo"), "a photo"),
    "prompt with a stranger": (options("--set", "prompt.template=a {thing}"), "prompt.template"),
    "recipe with an unknown key": (recipe_with('name = "x"\ncolour = 1\n'), "colour"),
    "recipe without a name": (recipe_with("seed = 1\n"), "name"),
    "recipe that is not TOML": (recipe_with("name = \n"), "not valid TOML"),
    "recipe that is not UTF-8": (recipe_with(b'name = "\xff"\n'), "mine.toml"),
    "missing recipe": (change(preset="nowhere.toml"), "no such recipe file"),
    "unknown preset": (change(preset="fsat"), "did you mean 'fast'"),
    "unknown timm name": (change(surrogates=("timm:resnet5O",)), "did you mean 'resnet50"),
    "unknown source": (change(surrogates=("tim:resnet50",)), "did you mean 'timm'"),
    "classifier without a source": (change(surrogates=("resnet50",)), "source:name"),
    "unknown lab classifier": (change(surrogates=("lab:nope",)), "unknown lab classifier"),
    "no surrogate": (change(surrogates=()), "--surrogate"),
    "one surrogate twice": (change(surrogates=(SURROGATE, SURROGATE)), SURROGATE),
    "no pipeline": (no_pipeline, "model_index.json"),
    "missing pipeline": (missing_pipeline, "pipeline"),
    "pipeline with a cut index": (damaged_pipeline("model_index.json", 40), "pipeline"),
    "pipeline with cut weights": (damaged_pipeline("unet/diffusion_pytorch_model.safetensors", 1000), "pipeline"),
    "pipeline without weights": (damaged_pipeline("vae/diffusion_pytorch_model.safetensors", None), "pipeline"),
}


@pytest.mark.parametrize("name", BAD_INPUT)
def test_bad_input_is_one_line_and_leaves_nothing(command: Command, call: Call, name: str) -> None:
    spoil, expected = BAD_INPUT[name]
    spoil(command)
    ended = call(*command.arguments())
    assert_one_line(ended)
    assert expected in ended.err
    assert not command.out.exists()


# What only an attack is told.
RUNNING = ("negative batch", "negative threads")


SLOW = ("enormous size",)
"""What ``validate`` takes long to find, since it decodes every image at that size."""


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.heavy] if name in SLOW else [])
        for name in BAD_INPUT
        if name not in RUNNING
    ],
)
def test_validate_finds_all_bad_input(command: Command, call: Call, name: str) -> None:
    spoil, expected = BAD_INPUT[name]
    spoil(command)
    ended = call(*command.validation())
    assert ended.status == 2
    assert any(expected in line and line.startswith("attnshift: ") for line in ended.err.splitlines()), ended.err
    assert "Traceback" not in ended.err


def test_validate_lists_all_complaints_and_writes_nothing(command: Command, call: Call) -> None:
    good = call(*command.validation())
    assert (good.status, good.err) == (0, "")
    *table, last = good.out.splitlines()
    assert last == "3 images can be attacked, 0 complaints"
    assert [line.partition(":")[0] for line in table[:1]] == ["names of random"]
    assert any("random weights, which say nothing about the labels" in line for line in table)
    assert any(line.startswith(f"pipeline {command.pipeline} predicts no noise at all, as networks") for line in table)
    assert any(line.startswith("cost: about ") and line.endswith(" for 3 images") for line in table)
    corrupt_image(command)
    (command.photos / "images" / "photo-2.png").unlink()
    command.surrogates = (*command.surrogates, "tim:nope")
    command.more = ("--size", "60")
    before = contents(command.photos)
    ended = call(*command.validation())
    assert ended.status == 2
    lines = ended.err.splitlines()
    assert len(lines) == 3, "the size can only be checked with all surrogates"
    assert [word for word in ("tim", "photo-2.png does not exist", "photo-1.png") if word in ended.err] == [
        "tim",
        "photo-2.png does not exist",
        "photo-1.png",
    ]
    assert ended.out.splitlines()[-1] == "an attack would be refused, 3 complaints"
    as_json = call(*command.validation(), "--json")
    assert (as_json.status, as_json.err) == (2, ended.err)
    found = json.loads(as_json.out)
    assert (found["usable"], [f"attnshift: {each}" for each in found["complaints"]]) == (1, lines)
    assert contents(command.photos) == before
    assert found["pipeline"] is None


def test_validate_prints_what_was_measured_of_the_pipeline(command: Command, call: Call) -> None:
    command.pipeline = lab_weights()
    found = json.loads(call(*command.validation(), "--json").out)
    assert found["pipeline"]["verdict"] == "fine"
    assert found["pipeline"]["predicted"]["epsilon"] > 0.5
    command.pipeline = command.photos / "nope"
    ended = call(*command.validation())
    assert (ended.status, len(ended.err.splitlines())) == (2, 1)
    assert f"cannot load the pipeline {command.pipeline}: there is no such folder" in ended.err


@pytest.mark.heavy
def test_a_corrupt_image_fails_alone_and_status_says_why(command: Command, call: Call) -> None:
    corrupt_image(command)
    ended = call(*command.arguments())
    assert ended.status == 1
    assert ended.err.splitlines()[-1].startswith("attnshift: 1 image failed; attnshift status")
    assert "photo-1.png failed: photo-1.png: not a readable image" in ended.out
    assert [row["file"] for row in records(Store.open(command.out), "results")] == ["photo-3.png", "photo-2.png"]

    told = call("status", command.out)
    assert told.status == 0
    assert told.out.splitlines()[0] == "quick, 3 images: 2 done, 1 failed, 0 left"
    assert "failed: photo-1.png: photo-1.png: not a readable image" in told.out
    found = json.loads(call("status", command.out, "--json").out)
    assert (found["images"], found["done"], found["left"], len(found["failed"])) == (3, 2, 0, 1)

    again = call(*command.arguments())
    assert (again.status, again.out) == (1, ""), "it stays failed"
    assert "photo-1.png failed" in call(*command.arguments(), "--retry-failed").out


@pytest.mark.heavy
def test_shards_and_processes_share_a_run(command: Command, call: Call, tmp_path: Path) -> None:
    command.more = ("--batch", "1", "--shard", "2/2")
    part = call(*command.arguments())
    assert [line.split()[1] for line in images_in(part.out)] == ["photo-2.png"]
    assert "2 left" in call("status", command.out).out
    command.more = ("--batch", "1")
    assert len(images_in(call(*command.arguments()).out)) == 2
    assert len(records(Store.open(command.out), "results")) == 3


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--shard", "3/2"), "--shard is 3/2; expected I/N"),
        (("--shard", "first"), "--shard is first; expected I/N"),
        (("--engine", "rai"), "--engine is rai; known are local and ray"),
        (("--workers", "2"), "set --engine to ray"),
        (("--precision", "float8"), "--precision is float8; known are float32, bfloat16"),
        (("--memory-limit", "0.1"), "--memory-limit is 0.1; it is in gigabytes"),
        (("--engine", "ray", "--profile"), "leave --engine out"),
    ],
)
def test_ways_to_run_that_cannot_be_meant(command: Command, call: Call, more: tuple[str, ...], said: str) -> None:
    command.more = more
    ended = call(*command.arguments())
    assert_one_line(ended)
    assert said in ended.err
    assert not command.out.exists()


@pytest.mark.heavy
def test_a_run_in_bfloat16_is_another_run(command: Command, call: Call, tmp_path: Path) -> None:
    assert call(*command.arguments()).status == 0
    command.more = ("--precision", "bfloat16")
    refused = call(*command.arguments())
    assert_one_line(refused)
    assert "precision: 'bfloat16', not 'float32'" in refused.err
    first, command.out = command.out, tmp_path / "narrow"
    assert call(*command.arguments()).status == 0
    assert pngs(first) != pngs(command.out)


def test_a_negative_limit_is_refused(command: Command, call: Call) -> None:
    command.more = ("--limit", "-1")
    assert call(*command.arguments()).status == 2
    assert not command.out.exists()


@pytest.mark.parametrize("kind", ["file", "foreign folder", "below a file"])
def test_an_out_folder_that_cannot_be_used(command: Command, call: Call, kind: str) -> None:
    taken = command.photos / "taken"
    if kind == "foreign folder":
        taken.mkdir()
        (taken / "thesis.tex").write_text("precious")
    else:
        taken.write_text("precious")
    command.out = taken / "run" if kind == "below a file" else taken
    before = contents(command.photos)
    ended = call(*command.arguments())
    assert_one_line(ended)
    assert "--out" in ended.err
    assert contents(command.photos) == before


@pytest.mark.parametrize(
    "arguments", [("evaluate", "--judge", JUDGE), ("report",), ("status",)], ids=["evaluate", "report", "status"]
)
def test_what_is_not_a_run(call: Call, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        ended = call(arguments[0], folder, *arguments[1:])
        assert_one_line(ended)
        assert "is not a run" in ended.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [("attack",), ("nonsense",), ("attack", "x", "--colour", "red")])
def test_misuse_has_status_2_too(call: Call, arguments: tuple[str, ...]) -> None:
    ended = call(*arguments)
    assert ended.status == 2
    assert "Traceback" not in ended.err


def test_one_image_from_the_attack_on_latents_to_the_report(command: Command, call: Call) -> None:
    command.more = ("--limit", "1", "--set", "optimiser.iterations=1")
    attacked = call(*command.arguments())
    assert attacked.status == 0, attacked.err
    (line,) = images_in(attacked.out)
    assert line.startswith("1/1 photo-3.png (mug): ")
    judged = call("evaluate", command.out, "--judge", JUDGE)
    assert judged.status == 0, judged.err
    assert all(word in judged.out for word in (SURROGATE, JUDGE, "ssim", "seconds per image"))
    store = Store.open(command.out)
    assert {row["classifier"] for row in records(store, "verdicts")} == {SURROGATE, JUDGE}
    assert {row["arm"] for row in records(store, "verdicts")} == set(store.spec().arms)
    assert call("report", command.out).status == 0
    assert JUDGE in (command.out / "report.html").read_text(encoding="utf-8")


@pytest.fixture
def family_folder(tmp_path: Path) -> Callable[[str], Path]:
    def saved(family: str) -> Path:
        FAMILIES[family]().save_pretrained(tmp_path / "family", safe_serialization=True)
        return tmp_path / "family"

    return saved


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("family", "preset"),
    [*product(FAMILIES, ("p2p", "advdiff")), *product(("sd3 medium without t5", "flux dev"), ("advfm",))],
)
def test_every_family_from_the_attack_to_the_report(
    command: Command, call: Call, family_folder: Callable[[str], Path], family: str, preset: str
) -> None:
    """With terms that read the joint maps, and through a published attack."""
    command.pipeline, command.preset, command.more = family_folder(family), preset, ("--limit", "1", "--threads", "1")
    images, labels = command.photos / "images", command.photos / "labels.csv"
    steps = {
        "p2p": ("optimiser.iterations=2", "finish.keep=last", "mask.source=attention", "diffusion.denoising_steps=2"),
        "advdiff": (
            "baseline.schedule_steps=50",
            "baseline.inverted_steps=3",
            "baseline.rounds=1",
            "baseline.guidance=1",
        ),
        "advfm": ("baseline.schedule_steps=2", "baseline.steps=2"),
    }[preset]
    attacked = call(
        "attack", images, "--labels", labels, "--pipeline", command.pipeline, "--preset", preset, "--out", command.out,
        "--surrogate", SURROGATE, *command.more, *(part for each in steps for part in ("--set", each)),
    )  # fmt: skip
    assert attacked.status == 0, attacked.err
    (line,) = images_in(attacked.out)
    assert line.startswith("1/1 photo-3.png (mug): ")
    assert call("evaluate", command.out, "--judge", JUDGE).status == 0
    assert call("report", command.out).status == 0
    assert JUDGE in (command.out / "report.html").read_text(encoding="utf-8")


@pytest.mark.heavy
def test_a_single_file_with_a_lora_from_the_attack_to_the_report(command: Command, call: Call, tmp_path: Path) -> None:
    made = tiny_pipeline(size=64)
    parts = unet(made.unet), vae(made.vae), plain_clip(made.text_encoder, "cond_stage_model.transformer.")
    config = shutil.copytree(command.pipeline, tmp_path / "config")
    name = f"{write(tmp_path / 'all.safetensors', *parts)},config={config}"
    path = save(tmp_path / "style.safetensors", kohya(pairs_of({"unet": made.unet}, layers_of("unet", made.unet))))
    for weights in config.glob("*/*.safetensors"):
        weights.unlink()
    command.more = ("--limit", "1")

    def attack(pipeline: str) -> Ended:
        command.pipeline = Path(pipeline)
        return call(*command.arguments())

    attacked = attack(f"{name},lora={path},scale=0.01")
    assert attacked.status == 0, attacked.err
    refused = attack(f"{name},lora={path},scale=0.02")
    assert refused.status == 2
    assert "this one differs in pipeline: " in refused.err
    assert "weights.pipeline: " in refused.err
    again = attack(f"{name},lora={path},scale=0.01")
    assert (again.status, again.out) == (0, "")
    assert call("evaluate", command.out, "--judge", JUDGE).status == 0
    assert call("report", command.out).status == 0
    assert f"{path},scale=0.01" in (command.out / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (("diffusion.guidance=2.5",), "diffusion.guidance is 2.5, and "),
        (("reconstruction.method=null_text",), "reconstruction.method 'null_text' needs a negative prompt, and "),
    ],
)
def test_guidance_that_a_pipeline_does_not_take_is_refused_before_it_is_loaded(
    command: Command, call: Call, settings: tuple[str, ...], line: str
) -> None:
    """Nothing but the index is there."""
    folder = command.photos / "flux"
    folder.mkdir()
    (folder / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    command.pipeline, command.more = folder, tuple(part for each in settings for part in ("--set", each))
    refused = call(*command.arguments())
    assert_one_line(refused)
    assert f"{line}{folder} takes n" in refused.err


@pytest.mark.parametrize("words", [("demo", "--out", "{}/run"), ("lab", "check")])
def test_a_pipeline_that_is_not_there_is_refused_before_the_lab_is_rendered(
    call: Call, tmp_path: Path, words: tuple[str, ...]
) -> None:
    refused = call(*(word.format(tmp_path) for word in words), "--pipeline", tmp_path / "nowhere")
    assert_one_line(refused)
    assert "nowhere" in refused.err
    assert not list(tmp_path.iterdir())


def test_an_attack_on_a_flow_is_refused_elsewhere_before_anything_is_loaded(command: Command, call: Call) -> None:
    """Nothing but the index is there."""
    folder = command.photos / "unet"
    folder.mkdir()
    (folder / "model_index.json").write_text('{"_class_name": "StableDiffusionXLPipeline"}')
    command.pipeline, command.preset = folder, "advfm"
    refused = call(*(each for each in command.arguments() if "=" not in each and each != "--set"))
    assert_one_line(refused)
    assert f"AdvFM perturbs the velocity of a rectified flow, and {folder} predicts none; take a pip" in refused.err


@pytest.mark.heavy
def test_from_the_attack_to_the_report(command: Command, call: Call) -> None:
    command.more = ("--batch", "2")
    attacked = call(*command.arguments())
    assert attacked.status == 0, attacked.err
    random, pipeline, *lines = attacked.out.splitlines()
    assert random.startswith(f"{SURROGATE} has random weights")
    assert pipeline.startswith(f"the pipeline {command.pipeline} predicts no noise at all")
    assert [line.partition(":")[0] for line in lines] == [
        "1/3 photo-3.png (mug)",
        "2/3 photo-2.png (snowman)",
        "3/3 photo-1.png (red ball)",
    ]
    assert all("of 1 surrogates" in line for line in lines)
    assert str(command.out) in attacked.err.replace("\n", "")

    again = call(*command.arguments())
    assert (again.status, again.out) == (0, ""), "nothing was left to do"

    refused = call("evaluate", command.out, "--judge", SURROGATE)
    assert_one_line(refused)
    assert "cannot be a judge" in refused.err

    judged = call("evaluate", command.out, "--judge", JUDGE)
    assert judged.status == 0, judged.err
    assert all(word in judged.out for word in (SURROGATE, JUDGE, "mean of 1 judge", "ssim", "seconds per image"))
    assert len(records(Store.open(command.out), "verdicts")) == 3 * 5 * 2
    again = call("evaluate", command.out, "--judge", JUDGE, "--json")
    assert [each["name"] for each in json.loads(again.out)["classifiers"]] == [SURROGATE, JUDGE]

    reported = call("report", command.out)
    assert reported.status == 0
    path = Path(reported.out.replace("\n", ""))
    assert path == command.out / "report.html"
    assert JUDGE in path.read_text(encoding="utf-8")


@pytest.mark.heavy
def test_a_target_from_the_attack_to_the_report(call: Call, tmp_path: Path) -> None:
    """Two lab images that shall both be seen as a tree; the folder holds no other attack."""
    images, out = tmp_path / "images", tmp_path / "run"
    assert call("lab", "render", images, "--count", "2").status == 0
    arguments = ["attack", images, "--labels", images / "labels.csv", "--surrogate", "lab:resnet", "--out", out]
    attacked = call(*arguments, "--preset", "quick", "--target", "tree", "--threads", "1")
    assert attacked.status == 0, attacked.err
    lines = attacked.out.splitlines()
    assert [line.partition(", ")[0] for line in lines] == [
        "1/2 test-0-00000-ball.png (ball → tree): succeeds on 1 of 1 surrogates",
        "2/2 test-0-00001-die.png (die → tree): succeeds on 1 of 1 surrogates",
    ]
    judged = call("evaluate", out, "--judge", "lab:coatnet")
    assert "2 images, targeted at tree, 95 % intervals" in judged.out
    attack = [row for row in records(Store.open(out), "verdicts") if row["arm"] == "attack"]
    assert [row["predicted_name"] for row in attack if row["classifier"] == "lab:resnet"] == ["tree"] * 2
    assert all(row["success"] == (row["predicted_name"] == "tree") for row in attack)
    assert call("report", out).status == 0
    html = (out / "report.html").read_text(encoding="utf-8")
    assert "targeted at tree</h1>" in html
    other = call(*arguments, "--preset", "quick", "--target", "snowman", "--threads", "1")
    assert_one_line(other)
    assert "holds another run" in other.err


@pytest.mark.heavy
def test_a_study_takes_a_target_too(command: Command, call: Call) -> None:
    pytest.importorskip("optuna")
    (command.photos / "search.toml").write_text('["optimiser.learning_rate"]\nlow = 0.01\nhigh = 0.5\n')
    arguments = [
        "tune", command.photos / "images", "--labels", command.photos / "labels.csv", "--pipeline", command.pipeline,
        "--search", command.photos / "search.toml", "--surrogate", JUDGE, "--tuning", SURROGATE, "--out", command.out,
        "--set", "optimiser.iterations=1", "--set", SHORT_PATH, "--trials", "1", "--limit", "1",
    ]  # fmt: skip
    refused = call(*arguments, "--target", "goldfihs")
    assert_one_line(refused)
    assert "--target: target 'goldfihs' is neither a number nor a class" in refused.err
    assert not command.out.exists()
    tuned = call(*arguments, "--target", "goldfish")
    assert tuned.status == 0, tuned.err
    assert "succeeds on 0.0% of all images" in tuned.out
    again = call(*arguments, "--target", "goldfish", "--json")
    found = json.loads(again.out)
    assert (len(found["trials"]), found["best"]["grade"]["success"]) == (1, 0.0)
    assert found["recipe"] == str(command.out / "best.toml")


def comparison(command: Command, *more: str | Path) -> list[str | Path]:
    """`compare` without its recipes: two images, two strengths."""
    return [
        command.photos / "images", "--labels", command.photos / "labels.csv", "--pipeline", command.pipeline,
        "--surrogate", SURROGATE, "--judge", JUDGE, "--out", command.out, "--strength", "0.5", "--strength", "1",
        "--at", "0.9", "--limit", "2", "--batch", "1", "--threads", "1", *more,
    ]  # fmt: skip


def test_a_peer_from_the_attack_to_the_report(command: Command, call: Call) -> None:
    own = [each for each in command.arguments() if "=" not in each and each != "--set"]
    chain = (*own, "--preset", "pgd", "--set", "baseline.steps=2", "--judge", JUDGE, "--report")
    done = call(*chain)
    assert done.status == 0, done.err
    assert len(images_in(done.out)) == 3
    assert "iterate" not in done.out, "pgd keeps the last one"
    header = next(line for line in done.out.splitlines() if "attributable" in line)
    assert "noise" in header
    assert "round" not in header
    assert done.out.splitlines()[-1] == str(command.out / "report.html")
    assert "next:" not in done.err
    page = (command.out / "report.html").read_text(encoding="utf-8")
    assert "Baseline pgd on 3 images" in page
    assert "By layer, attention" not in page
    assert "step_size = 0.00784" in (command.out / "recipe.toml").read_text(), "complete, to be used again"
    (command.out / "report.html").unlink()
    again = call(*chain, "--quiet", "--log", "-")
    assert again.status == 0, again.err
    assert [json.loads(line)["event"] for line in again.out.splitlines()] == ["run_begun", "run_ended"]
    assert again.err.splitlines() == done.out.splitlines()[-len(again.err.splitlines()) :], "the final result alone"
    assert again.err.splitlines()[-1] == str(command.out / "report.html")


def test_a_published_attack_through_the_pipeline_from_the_attack_to_the_report(command: Command, call: Call) -> None:
    own = [each for each in replace(command, pipeline=Path("lab")).arguments() if "=" not in each and each != "--set"]
    shorter = ("--set", "baseline.steps=1", "--set", "baseline.schedule_steps=3", "--limit", "1")
    attacked = call(*own, "--preset", "aca", *shorter)
    assert attacked.status == 0, attacked.err
    judged = call("evaluate", command.out, "--judge", JUDGE)
    assert judged.status == 0, judged.err
    header = next(line for line in judged.out.splitlines() if "attributable" in line)
    assert all(arm in header for arm in ("noise", "round", "reconstruction")), header
    assert call("report", command.out).status == 0
    page = (command.out / "report.html").read_text(encoding="utf-8")
    assert "Baseline aca" in page
    spec = json.loads((command.out / "run.json").read_text(encoding="utf-8"))
    assert spec["pipeline"] == "lab"
    refused = call(*own, "--preset", "diffpgd", "--set", "baseline.depth=50", "--out", command.out.with_name("other"))
    assert_one_line(refused)
    assert "baseline 'diffpgd': depth: Input should be less than or equal to 49" in refused.err


@pytest.mark.heavy
def test_recipes_are_compared_where_ssim_is_fixed(command: Command, call: Call) -> None:
    """A sweep of one recipe grows into a comparison of two; what is there is not attacked again."""
    short, long = (command.photos / f"{name}.toml" for name in ("short", "long"))
    for path, iterations in ((short, 1), (long, 2)):
        path.write_text(
            'name = "x"\n[diffusion]\ndenoising_steps = 2\n[finish]\nkeep = "last"\n'
            f"[optimiser]\niterations = {iterations}\n"
        )
    swept = call("sweep", *comparison(command, "--recipe", short))
    assert swept.status == 0, swept.err
    assert swept.out.splitlines()[0] == "| recipe | success at SSIM 0.90 |"
    compared = call("compare", *comparison(command, "--recipe", short, "--recipe", long))
    assert compared.status == 0, compared.err
    assert [line.partition(" ")[0] for line in compared.err.splitlines() if "photo" in line] == [
        "long@0.5", "long@0.5", "long@1", "long@1",
    ]  # fmt: skip
    fixed, runs, paired = compared.out.split("\n\n")
    assert fixed.splitlines()[0] == "| recipe | success at SSIM 0.90 | difference to short |"
    assert [line.split(" | ")[:2] for line in runs.splitlines()[2:]] == [
        ["| short", "0.5"], ["| short", "1"], ["| long", "0.5"], ["| long", "1"],
    ]  # fmt: skip
    assert [line.split(" | ")[:2] for line in paired.splitlines()[2:]] == [["| long", "0.5"], ["| long", "1"]]
    assert {path.name for path in command.out.iterdir()} == {"runs", "inversions", "compare.json", "compare.html"}
    data = json.loads((command.out / "compare.json").read_text(encoding="utf-8"))
    assert [recipe["name"] for recipe in data["recipes"]] == ["short", "long"]
    before = contents(command.out)
    again = call("compare", *comparison(command, "--recipe", short, "--recipe", long))
    assert (again.status, again.out) == (0, compared.out)
    assert "photo" not in again.err
    as_json = call("compare", *comparison(command, "--recipe", short, "--recipe", long, "--json"))
    assert json.loads(as_json.out) == data
    latex = call("compare", *comparison(command, "--recipe", short, "--recipe", long, "--table", "latex"))
    assert latex.out.count("\\toprule") == 3
    assert contents(command.out) == before
    refused = call("sweep", *comparison(command, "--recipe", long))
    assert_one_line(refused)
    assert "also holds short@0.5" in refused.err
    assert contents(command.out) == before


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ((), "--recipe"),
        (("--recipe", "fsat"), "did you mean 'fast'"),
        (("--recipe", "quick", "--at", "1.5"), "--at is 1.5"),
        (("--recipe", "quick", "--strength", "-1"), "--strength of quick: -1"),
        (("--recipe", "quick", "--min-clean-accuracy", "2"), "--min-clean-accuracy is 2"),
    ],
)
def test_a_comparison_that_cannot_be_meant(command: Command, call: Call, more: tuple[str, ...], expected: str) -> None:
    ended = call("compare", *comparison(command, *more))
    assert_one_line(ended)
    assert expected in ended.err
    assert not command.out.exists()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ((), "give at least one in --tuning"),
        (("--tuning", SURROGATE), f"{SURROGATE} cannot be a tuning classifier: it is a surrogate"),
        (("--tuning", "lab:coatnet"), "it is one of the lab's judges"),
        (("--tuning", "lab:mobilenet", "--at", "2"), "--at is 2"),
        (("--tuning", "lab:mobilenet", "--top", "-1"), "--top is -1"),
        (("--tuning", "lab:mobilenet", "--preset", "pgd"), "recipe pgd attacks pixels"),
        (("--tuning", "lab:mobilenet", "--term", "entropie"), "did you mean 'entropy'"),
        (("--tuning", "lab:mobilenet", "--term", "contrast,form"), "--term is contrast,form"),
    ],
)
def test_an_inspection_that_cannot_be_meant(command: Command, call: Call, more: tuple[str, ...], said: str) -> None:
    images, labels = command.photos / "images", command.photos / "labels.csv"
    known = ("--labels", labels, "--surrogate", SURROGATE, "--out", command.out)
    ended = call("inspect", command.pipeline, images, *known, *more)
    assert_one_line(ended)
    assert said in ended.err
    assert not command.out.exists()


@pytest.mark.heavy
@pytest.mark.parametrize(("most", "status"), [("0", 1), ("1", 0), ("49%", 1), ("50%", 0)])
def test_some_images_of_a_comparison_may_fail(command: Command, call: Call, most: str, status: int) -> None:
    (command.photos / "images" / "photo-3.png").write_bytes(b"nothing")
    ended = call("sweep", *comparison(command, "--recipe", "pgd", "--max-failed", most))
    assert ended.status == status, ended.err
    shown = "" if most == "0" else f", {'more than' if status else 'within'} --max-failed, {most}"
    assert f"1 of 2 images failed in at least one run and is in no figure{shown}; " in ended.err


@pytest.mark.heavy
def test_a_mistake_is_one_line_in_a_real_process(command: Command) -> None:
    """Late enough that all libraries were imported and the pipeline was loaded: none of them may add a line."""
    command.more = ("--size", "60")
    process = in_a_process(*command.arguments())
    out, err = process.communicate(timeout=180)
    assert_one_line(Ended(process.returncode, out, err))
    assert not command.out.exists()


@pytest.mark.heavy
def test_an_attack_stopped_by_ctrl_c_is_continued_by_the_same_command(
    command: Command, call: Call, tmp_path: Path, elsewhere: Path
) -> None:
    command.photos = elsewhere
    command.more = ("--batch", "1", "--set", "optimiser.iterations=20", "--set", "finish.early=false")
    process = in_a_process(*command.arguments())
    assert process.stdout is not None
    assert any(line.startswith("1/3 ") for line in process.stdout), process.communicate()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "the same command continues" in err.splitlines()[-1]
    assert "Traceback" not in err
    done = Store.open(command.out).count()
    assert 1 <= done < 3

    continued = call(*command.arguments())
    assert continued.status == 0, continued.err
    assert len(images_in(continued.out)) == 3 - done
    assert len(records(Store.open(command.out), "results")) == 3
    whole, command.out = command.out, tmp_path / "undisturbed"
    assert call(*command.arguments()).status == 0
    assert pngs(whole) == pngs(command.out)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_with_its_status_and_one_line(
    command: Command, call: Call, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, status: int
) -> None:

    from attnshift.execution import coordinate

    monkeypatch.setattr(coordinate, "attack_folder", lambda *_: signal.raise_signal(number))
    ended = call(*command.arguments())
    assert ended.status == status
    (line,) = ended.err.splitlines()
    assert line.startswith("attnshift: ")
    assert "the same command continues" in line


def test_help_names_every_command(call: Call) -> None:
    ended = call("--help")
    assert ended.status == 0
    for name in (
        "attack",
        "validate",
        "status",
        "evaluate",
        "inspect",
        "tune",
        "compare",
        "sweep",
        "report",
        "export",
        "rate",
        "ratings",
        "demo",
        "doctor",
        "list",
        "show",
        "lab",
    ):
        assert f" {name} " in ended.out
    for name in ("render", "train", "check"):
        assert f" {name} " in call("lab", "--help").out


def test_an_option_has_one_name_and_one_flag_in_all_commands() -> None:
    """Messages name options as Python does; the command line has to know which flag that is."""
    root = get_command(app)
    assert isinstance(root, TyperGroup)
    options = [option for command in root.commands.values() for option in command.params]
    flags = {(option.name, option.opts[0]) for option in options if option.opts[0].startswith("--")}
    names = [name for name, _ in flags]
    assert sorted(names) == sorted(set(names))
    assert {("surrogates", "--surrogate"), ("min_clean_accuracy", "--min-clean-accuracy")} <= flags
    assert all(with_flags(f"use `{name}`") == f"use {flag}" for name, flag in flags)


def test_version(call: Call) -> None:
    ended = call("--version")
    assert (ended.status, ended.out) == (0, f"attnshift {__version__}\n")


def test_list_as_json_is_the_catalogue(call: Call) -> None:
    ended = call("list", "--json")
    assert ended.status == 0
    assert json.loads(ended.out) == catalogue()


def test_list_shows_every_entry_with_its_source_on_one_line(call: Call) -> None:
    lines = {" ".join(line.split()) for line in call("list").out.splitlines()}
    for family, entries in catalogue().items():
        assert family in lines
        for entry in entries:
            source = f" ({entry['reference']})" if entry["reference"] else ""
            assert " ".join(f"{entry['name']} {entry['summary']}{source}".split()) in lines


def tables() -> dict[str, Table]:
    """Every table that a package of attnshift declares, wherever it stands."""
    found = {}
    for module in pkgutil.iter_modules(attnshift.__path__, "attnshift."):
        if not module.ispkg:
            continue
        for name, value in vars(importlib.import_module(module.name)).items():
            if isinstance(value, Table):
                found[f"{module.name}.{name}"] = value
    return found


def test_no_table_is_left_out_of_the_list() -> None:
    listed = {(entry["name"], entry["summary"]) for entries in catalogue().values() for entry in entries}
    assert len(tables()) >= 6
    for table in tables().values():
        assert {(name, entry.summary) for name, entry in table.items()} <= listed


def test_every_entry_can_be_loaded() -> None:
    """A table names its implementation as text, which no type checker reads."""
    for table in tables().values():
        for entry in table.values():
            assert callable(entry.load())
            assert entry.summary
            assert entry.reference


def test_presets_are_listed(call: Call) -> None:
    names = [entry["name"] for entry in catalogue()["presets"]]
    assert names == sorted(names)
    assert {"diffattack", "fast", "strong"} <= {*names}
