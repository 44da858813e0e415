"""A classifier that speaks for the label, and masks that say where the object is: asked apart, and never mixed up."""

from __future__ import annotations

import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from attnshift.classifiers import load_classifier
from attnshift.cli import main
from attnshift.data.images import read_image, read_mask, write_png
from attnshift.defences.defended import Defended
from attnshift.defences.jpeg import JpegCompression
from attnshift.errors import LabelError, ModelError, RunError
from attnshift.judging.verdicts import evaluate_run
from attnshift.judging.visibility import measure_visibility
from attnshift.metrics.visibility import contrast_kept, object_ssim
from attnshift.results.store import Store
from small_runs import SIDE, SURROGATE, contents
from tables import records, summarise, write_records

if TYPE_CHECKING:
    from attnshift.classifiers.classifier import Classifier

JUDGE, OTHER, REFERENCE = (
    "random:test_convnext",
    "random:test_efficientnet",
    "smoothing(sigma=0.1, copies=3)+random:test_vit",
)


@pytest.fixture
def store(finished: Store, tmp_path: Path) -> Store:
    """A copy of the finished run, to be judged."""
    shutil.copytree(finished.folder, tmp_path / "run")
    return Store.open(tmp_path / "run")


def judge(store: Store, *judges: str | Classifier, **options: Any) -> None:
    evaluate_run(store, judges, min_clean_accuracy=0, **options)


def roles(store: Store) -> dict[str, str]:
    return {row["classifier"]: row["role"] for row in records(store, "verdicts")}


def test_the_reference_is_asked_about_every_arm(store: Store) -> None:
    judge(store, JUDGE, reference=REFERENCE)
    assert roles(store) == {SURROGATE: "surrogate", REFERENCE: "reference", JUDGE: "judge"}
    rows = [row for row in records(store, "verdicts") if row["role"] == "reference"]
    assert {row["arm"] for row in rows} == set(store.spec().arms)
    assert len(rows) == 3 * len(store.spec().arms)
    summary = summarise(*(records(store, name) for name in ("results", "verdicts", "quality")))
    assert summary.label is not None
    assert summary.label.reference == REFERENCE
    assert summary.judges is not None
    assert summary.judges.name == "mean of 1 judge"


def test_a_classifier_from_python_can_be_the_reference(store: Store) -> None:
    own = Defended(load_classifier("random:test_vit"), JpegCompression(50), "mine")
    judge(store, JUDGE, reference=own)
    assert roles(store) == {SURROGATE: "surrogate", "mine": "reference", JUDGE: "judge"}


def test_it_stays_until_another_takes_its_place(store: Store) -> None:
    judge(store, reference=REFERENCE)
    judge(store, JUDGE)
    assert roles(store) == {SURROGATE: "surrogate", JUDGE: "judge", REFERENCE: "reference"}
    judge(store, reference=f"jpeg+{OTHER}")
    assert roles(store) == {SURROGATE: "surrogate", JUDGE: "judge", f"jpeg+{OTHER}": "reference"}
    judge(store, "random:test_vit")
    assert roles(store)["random:test_vit"] == "judge", "it no longer speaks for the label"


REFUSED: dict[str, tuple[Callable[[Store], None], str]] = {
    "a surrogate": (
        lambda store: judge(store, JUDGE, reference=f"jpeg+{SURROGATE}"),
        f"jpeg+{SURROGATE} cannot be the reference: it is a surrogate",
    ),
    "one for tuning": (
        lambda store: judge(store, JUDGE, tuning=[OTHER], reference=OTHER),
        f"{OTHER} cannot be the reference: it is a surrogate or was used for tuning",
    ),
    "one of the judges": (
        lambda store: judge(store, JUDGE, reference=JUDGE),
        f"{JUDGE} cannot be the reference: {JUDGE} judges this run",
    ),
    "a judge behind a defence": (
        lambda store: judge(store, f"jpeg+{JUDGE}", OTHER, reference=f"smoothing+{JUDGE}"),
        f"smoothing+{JUDGE} cannot be the reference: jpeg+{JUDGE} judges this run",
    ),
    "one that does not exist": (
        lambda store: judge(store, JUDGE, reference="random:test_nothing"),
        "timm has no model 'test_nothing'",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_reference_has_no_other_part(store: Store, name: str) -> None:
    call, message = REFUSED[name]
    before = contents(store.folder)
    with pytest.raises((RunError, ModelError)) as caught:
        call(store)
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert contents(store.folder) == before


def test_nor_does_it_take_one_later(store: Store) -> None:
    judge(store, f"jpeg+{JUDGE}", reference=REFERENCE)
    before = contents(store.folder)
    with pytest.raises(RunError, match="cannot be a judge: it is the run's reference"):
        judge(store, "random:test_vit")
    with pytest.raises(RunError, match="cannot be a tuning classifier: it is the run's reference"):
        judge(store, tuning=["jpeg+random:test_vit"])
    with pytest.raises(RunError, match=r"judges this run; take another, or remove .*verdicts\.parquet"):
        judge(store, reference=JUDGE)
    assert contents(store.folder) == before


def test_a_reference_that_is_plainly_wrong_is_refused(store: Store) -> None:
    """The labels are what the surrogate sees. Three images are too few to doubt anybody, and so they are copied."""
    rows = records(store, "results")
    many = [row | {"id": f"{row['id']}-{copy}"} for row in rows for copy in range(6)]
    for row, old in zip(many, [row for row in rows for _ in range(6)], strict=True):
        for arm in store.spec().arms:
            shutil.copy(store.image_path(old["id"], arm), store.image_path(row["id"], arm))
    write_records(store, "results", many)
    with pytest.raises(
        RunError, match=r"smoothing.*is right about 0 of 18 clean images.*set `min_clean_accuracy` to 0"
    ):
        evaluate_run(store, [], reference=REFERENCE)


def test_judges_behind_a_defence_have_a_role_of_their_own(store: Store) -> None:
    judge(store, JUDGE, f"jpeg+{JUDGE}", f"jpeg+{OTHER}", Defended(load_classifier(OTHER), JpegCompression(50), "mine"))
    assert roles(store) == {
        SURROGATE: "surrogate",
        JUDGE: "judge",
        f"jpeg+{JUDGE}": "defended",
        f"jpeg+{OTHER}": "defended",
        "mine": "defended",
    }
    summary = summarise(*(records(store, name) for name in ("results", "verdicts", "quality")))
    assert [row.name for row in summary.defended] == ["mean of 2 judges behind jpeg"]


@pytest.fixture(scope="module")
def masks(finished: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A square of its own for each photo, under its name."""
    folder = tmp_path_factory.mktemp("masks")
    for number, row in enumerate(records(finished, "results")):
        mask = torch.zeros(1, SIDE, SIDE)
        mask[:, 12 + 8 * number : 36 + 8 * number, 16:48] = 1
        write_png(folder / row["file"], mask.expand(3, -1, -1), {})
    return folder


def test_visibility_is_measured_on_the_saved_files(store: Store, masks: Path) -> None:
    rows = [row.to_record() for row in measure_visibility(store, masks, batch=2)]
    results = {row["id"]: row for row in records(store, "results")}
    expected = {(id, arm) for id in results for arm in store.spec().arms if arm != "clean"}
    assert {(row["id"], row["arm"]) for row in rows} == expected
    assert len(rows) == len(expected)
    for row in rows:
        clean, edit = (read_image(store.image_path(row["id"], arm), SIDE)[None] for arm in ("clean", row["arm"]))
        mask = read_mask(masks / results[row["id"]]["file"], SIDE)[None]
        assert row["object_ssim"] == pytest.approx(float(object_ssim(clean, edit, mask)), abs=1e-5)
        assert row["contrast_kept"] == pytest.approx(float(contrast_kept(clean, edit, mask)), abs=1e-5)
    assert len({round(row["object_ssim"], 4) for row in rows if row["arm"] == "attack"}) == 3


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder, file: shutil.rmtree(folder), "which is no folder"),
        (lambda folder, file: (folder / file).unlink(), "does not exist"),
    ],
    ids=["no folder", "no mask"],
)
def test_missing_masks_are_one_line(
    store: Store, masks: Path, tmp_path: Path, spoil: Callable[[Path, str], None], message: str
) -> None:
    folder = shutil.copytree(masks, tmp_path / "masks")
    spoil(folder, records(store, "results")[2]["file"])
    with pytest.raises(LabelError) as caught:
        measure_visibility(store, folder)
    assert message in str(caught.value)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("file", ["../outside.png", "/etc/hostname"])
def test_a_mask_outside_of_its_folder_is_not_read(store: Store, masks: Path, file: str) -> None:
    write_records(store, "results", [row | {"file": file} for row in records(store, "results")])
    with pytest.raises(LabelError, match="does not lie inside"):
        measure_visibility(store, masks)


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., Any]]:
    """``attnshift evaluate RUN ARGUMENTS``: status, output, errors."""

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        words = ["attnshift", "evaluate", *map(str, arguments), "--min-clean-accuracy", "0"]
        monkeypatch.setattr(sys, "argv", words)
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main()
        printed = capsys.readouterr()
        return int(caught.value.code or 0), printed.out, printed.err

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield run
    for number, handler in before.items():
        signal.signal(number, handler)


def test_both_on_the_command_line(store: Store, masks: Path, call: Callable[..., Any]) -> None:
    status, out, _ = call(store.folder, "--judge", JUDGE, "--reference", REFERENCE, "--masks", masks)
    assert status == 0
    assert f"label kept, says {REFERENCE}: " in out
    assert "object in attack: object_ssim " in out
    assert len(records(store, "visibility")) == 3 * (len(store.spec().arms) - 1)
    visibility = (store.folder / "visibility.parquet").read_bytes()
    status, again, _ = call(store.folder, "--judge", OTHER)
    assert status == 0
    assert "label kept" in again, "what an earlier evaluation found stays"
    assert (store.folder / "visibility.parquet").read_bytes() == visibility


def test_bad_masks_stop_an_evaluation_before_anything_is_written(
    store: Store, tmp_path: Path, call: Callable[..., Any]
) -> None:
    before = contents(store.folder)
    status, out, err = call(store.folder, "--judge", JUDGE, "--masks", tmp_path / "none")
    assert (status, out, len(err.splitlines())) == (2, "", 1)
    assert "which is no folder" in err
    assert contents(store.folder) == before
