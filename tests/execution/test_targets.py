"""Targeted runs: what they write, what counts as their success, and when they are refused."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from attnshift.classifiers import load_classifier
from attnshift.data.images import Framing, read_image
from attnshift.defences.defended import Defended
from attnshift.defences.jpeg import JpegCompression
from attnshift.errors import LabelError, RecipeError, RunError, UserError
from attnshift.execution.checks import items_of
from attnshift.execution.settings import AttackSettings
from attnshift.execution.targets import random_target
from attnshift.judging.verdicts import evaluate_run
from attnshift.results.arms import ARMS
from attnshift.results.store import Store
from attnshift.sizes import Size
from small_runs import SIDE, SURROGATE, contents, run_small, small_settings, write_labels
from tables import records, write_records

JUDGE = "random:test_convnext"
TARGET = 1
"""Goldfish; no photo is labelled so."""


@pytest.fixture(scope="session")
def targeted(photos: Path, pipeline_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """An undisturbed run with one target for all. Not to be written to."""
    out = tmp_path_factory.mktemp("targeted") / "run"
    return run_small(small_settings(photos, pipeline_folder, out, target="goldfish"))


def with_targets(photos: Path, folder: Path, targets: Sequence[str]) -> Path:
    """A copy of ``photos`` whose label file has the column target."""
    shutil.copytree(photos, folder)
    with (folder / "labels.csv").open(newline="") as stream:
        header, *rows = csv.reader(stream)
    with (folder / "labels.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(
            [[*header, "target"], *([*row, target] for row, target in zip(rows, targets, strict=True))]
        )
    return folder


def refused(settings: AttackSettings, error: type[UserError]) -> str:
    with pytest.raises(error) as caught:
        run_small(settings)
    assert len(str(caught.value).splitlines()) == 1
    assert not settings.out.exists()
    return str(caught.value)


def test_rows_and_pngs_name_the_target(targeted: Store, finished: Store) -> None:
    rows = records(targeted, "results")
    assert [(row["target"], row["target_name"]) for row in rows] == [(TARGET, "goldfish")] * 3
    assert {row["id"] for row in rows}.isdisjoint(row["id"] for row in records(finished, "results"))
    for row in rows:
        for arm in ARMS:
            with Image.open(targeted.image_path(row["id"], arm)) as image:
                image.load()
                assert image.info.get("attnshift:target") == ("1 goldfish" if arm == "attack" else None)
                assert image.info["attnshift:label"] == f"{row['label']} {row['class_name']}"


def test_margins_are_those_to_the_target(targeted: Store) -> None:
    surrogate = load_classifier(SURROGATE)
    for row in records(targeted, "results"):
        with torch.no_grad():
            logits = surrogate(read_image(targeted.image_path(row["id"], "attack"), SIDE)[None])[0]
        others = torch.cat([logits[:TARGET], logits[TARGET + 1 :]])
        assert row["attack_margins"] == pytest.approx([float(others.max() - logits[TARGET])], abs=1e-5)


def test_the_column_and_one_target_for_all_are_the_same_run(
    targeted: Store, photos: Path, pipeline_folder: Path, tmp_path: Path
) -> None:
    copy = with_targets(photos, tmp_path / "photos", ["1", "goldfish", "1"])
    before = contents(targeted.folder)
    run_small(small_settings(copy, pipeline_folder, targeted.folder))
    assert contents(targeted.folder) == before, "nothing was left to do"


def test_another_target_is_another_run(targeted: Store, photos: Path, pipeline_folder: Path) -> None:
    before = contents(targeted.folder)
    for settings in (
        small_settings(photos, pipeline_folder, targeted.folder, target="2"),
        small_settings(photos, pipeline_folder, targeted.folder),
    ):
        with pytest.raises(RunError, match="holds another run: none of these images belongs to it"):
            run_small(settings)
    assert contents(targeted.folder) == before


def test_a_target_that_is_corrected_is_taken_in(
    targeted: Store, photos: Path, pipeline_folder: Path, tmp_path: Path
) -> None:
    """Its image alone is attacked again."""
    corrected = with_targets(photos, tmp_path / "photos", ["1", "2", "1"])
    out = shutil.copytree(targeted.folder, tmp_path / "run")
    store = run_small(small_settings(corrected, pipeline_folder, out))
    old, new = records(targeted, "results"), records(store, "results")
    assert [row["target"] for row in new] == [TARGET, TARGET, 2]
    assert new[:2] == [row for row in old if row["file"] != new[2]["file"]]


@pytest.mark.parametrize("choice", ["nearest", "random"])
def test_targets_can_be_chosen_image_by_image(photos: Path, pipeline_folder: Path, tmp_path: Path, choice: str) -> None:
    surrogate = load_classifier(SURROGATE)
    settings = small_settings(photos, pipeline_folder, tmp_path / "run", target=choice)
    # Behind a defence they are the same.
    behind = Defended(surrogate, JpegCompression(10))
    first, again = (list(items_of(settings, [each], Framing(Size.of(SIDE)))) for each in (surrogate, behind))
    assert first == again
    for item in first:
        assert item.target is not None
        assert item.target != item.label
        assert item.target_name == surrogate.class_names[item.target]
        shares = surrogate(read_image(photos / "images" / item.file, SIDE)[None])[0]
        shares[item.label] = -torch.inf
        assert (item.target == int(shares.argmax())) == (choice == "nearest")
    copy = with_targets(photos, tmp_path / "photos", ["goldfish"] * 3)
    twice = replace(settings, images=copy / "images", labels=copy / "labels.csv")
    with pytest.raises(LabelError, match="contradicts `target`"):
        list(items_of(twice, [surrogate], Framing(Size.of(SIDE))))


def test_random_targets_are_all_other_classes_alike() -> None:
    drawn = [random_target(4, b"", 1, str(id), "") for id in range(400)]
    assert all(drawn.count(each) > 80 for each in (0, 2, 3))
    assert 1 not in drawn


class Seeing(nn.Module):
    """Sees in every image the next of ``classes``, again and again."""

    def __init__(self, *classes: int):
        super().__init__()
        self.classes, self.seen = classes, 0

    def forward(self, images: Tensor) -> Tensor:
        places = [self.classes[(self.seen + at) % len(self.classes)] for at in range(len(images))]
        self.seen += len(images)
        return torch.eye(1000)[places] * 9


@pytest.mark.parametrize("kind", ["targeted", "untargeted"])
def test_a_third_class_is_success_of_an_untargeted_attack_alone(
    targeted: Store, finished: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The judge sees the clean images right. In each other arm it sees the first image right, the second as the
    target and the third as something else."""
    shutil.copytree((targeted if kind == "targeted" else finished).folder, tmp_path / "run")
    store = Store.open(tmp_path / "run")
    labels = [row["label"] for row in records(store, "results")]
    assert TARGET not in labels
    other = next(number for number in range(2, 1000) if number not in labels)
    shown = [labels[0], TARGET, other]
    edited = [arm for arm in ARMS if arm != "clean"]

    def loaded(name: str) -> Any:
        classifier = load_classifier(name)
        return replace(classifier, network=Seeing(*labels, *shown * len(edited))) if name == JUDGE else classifier

    monkeypatch.setattr("attnshift.defences.names.load_classifier", loaded)
    evaluate_run(store, [JUDGE])
    verdicts = {(row["id"], row["arm"]): row for row in records(store, "verdicts") if row["classifier"] == JUDGE}
    ids = [row["id"] for row in records(store, "results")]
    assert [verdicts[id, "clean"]["correct"] for id in ids] == [True] * 3
    assert [verdicts[id, "clean"]["success"] for id in ids] == [False] * 3
    for arm in edited:
        rows = [verdicts[id, arm] for id in ids]
        assert [row["predicted"] for row in rows] == shown
        assert [row["correct"] for row in rows] == [True, False, False]
        assert [row["success"] for row in rows] == [False, True, kind == "untargeted"]


def test_a_judge_that_does_not_know_the_target(
    targeted: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It knows every label."""
    shutil.copytree(targeted.folder, tmp_path / "run")
    store = Store.open(tmp_path / "run")
    highest = max(row["label"] for row in records(store, "results"))
    rows = [row | {"target": highest + 1} for row in records(store, "results")]
    write_records(store, "results", rows)
    monkeypatch.setattr(
        "attnshift.defences.names.load_classifier", lambda name: replace(load_classifier(name), classes=highest + 1)
    )
    with pytest.raises(RunError, match=f"cannot judge class {highest + 1}"):
        evaluate_run(store, [JUDGE])


def test_targets_that_cannot_be_are_refused_before_anything_is_written(
    photos: Path, pipeline_folder: Path, tmp_path: Path
) -> None:
    for number, (targets, message) in enumerate(
        [(("1", "1", ""), "line 4: no target"), (("1", "goldfihs", "1"), "line 3: target 'goldfihs' is neither")]
    ):
        copy = with_targets(photos, tmp_path / str(number), targets)
        assert message in refused(small_settings(copy, pipeline_folder, tmp_path / "run"), LabelError)
    settings = small_settings(photos, pipeline_folder, tmp_path / "run", target="1000")
    assert refused(settings, LabelError).startswith("`target`: target 1000 is out of range")


class First(nn.Module):
    """The logits of the first classes alone."""

    def __init__(self, network: nn.Module, classes: int):
        super().__init__()
        self.network, self.classes = network, classes

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)[:, : self.classes]


Among = Callable[..., AttackSettings]


@pytest.fixture
def among(photos: Path, pipeline_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Among:
    """(classes, target, changes) -> settings of a run on one photo of class 0 of so many classes without names."""

    def settings(classes: int, target: str | None, *changes: str) -> AttackSettings:
        def few(name: str) -> Any:
            classifier = load_classifier(name)
            return replace(classifier, network=First(classifier.network, classes), classes=classes, class_names=())

        monkeypatch.setattr("attnshift.defences.names.load_classifier", few)
        shutil.copytree(photos, tmp_path / "photos")
        write_labels(tmp_path / "photos", [("photo-3.png", 0, "mug")])
        return small_settings(tmp_path / "photos", pipeline_folder, tmp_path / "run", *changes, target=target)

    return settings


MARGIN, DLR = "classification.loss=margin", "classification.scale=dlr"


@pytest.mark.parametrize(
    ("classes", "target", "changes", "error", "message"),
    [
        (2, None, (MARGIN, DLR), RecipeError, "needs 3 classes in an untargeted attack, and there are 2"),
        (3, "1", (MARGIN, DLR), RecipeError, "needs 4 classes in a targeted attack, and there are 3"),
        (3, "1", ("classification.loss=distribution",), RecipeError, "aims at no class"),
    ],
)
def test_a_criterion_that_cannot_work_is_refused_before_anything_is_written(
    among: Among, classes: int, target: str | None, changes: Sequence[str], error: type[UserError], message: str
) -> None:
    assert message in refused(among(classes, target, *changes), error)


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("classes", "target", "changes"),
    [(2, None, [MARGIN]), (2, "1", [MARGIN]), (3, None, [MARGIN, DLR]), (4, "3", [MARGIN, DLR])],
)
def test_few_classes_are_enough_for_what_needs_no_more(
    among: Among, classes: int, target: str | None, changes: Sequence[str]
) -> None:
    (row,) = records(run_small(among(classes, target, *changes)), "results")
    assert (row["target"], row["target_name"]) == ((None, "") if target is None else (int(target), target))
