"""Verdicts: on the saved files, by everyone who was asked, and never by a judge that the attack has seen."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.compute
import pyarrow.parquet
import pytest
import torch

from attnshift.classifiers import load_classifier
from attnshift.classifiers.gradcam import grad_cam
from attnshift.data.images import read_image, write_png
from attnshift.errors import ImageError, RunError
from attnshift.judging.grad_cam import measure_grad_cam
from attnshift.judging.verdicts import evaluate_run
from attnshift.metrics import METRICS
from attnshift.metrics.metrics import l2, linf
from attnshift.recipes.reading import load_recipe
from attnshift.results.arms import ARMS
from attnshift.results.rows import VerdictRow
from attnshift.results.store import Store
from small_runs import SIDE, SURROGATE, contents, planned
from tables import records, summarise, write_records

JUDGE, OTHER = "random:test_convnext", "random:test_efficientnet"


@pytest.fixture
def store(finished: Store, tmp_path: Path) -> Store:
    """A copy of the finished run, to be judged."""
    shutil.copytree(finished.folder, tmp_path / "run")
    return Store.open(tmp_path / "run")


def test_one_verdict_per_image_arm_and_classifier(store: Store) -> None:
    evaluate_run(store, [JUDGE], [OTHER])
    verdicts = records(store, "verdicts")
    ids = [row["id"] for row in records(store, "results")]
    roles = {SURROGATE: "surrogate", JUDGE: "judge", OTHER: "tuning"}
    expected = {(id, arm, name, role) for id in ids for arm in ARMS for name, role in roles.items()}
    assert {(row["id"], row["arm"], row["classifier"], row["role"]) for row in verdicts} == expected
    assert len(verdicts) == len(ids) * len(ARMS) * 3


def test_grad_cam_is_of_the_saved_files_and_the_true_class(finished: Store) -> None:
    rows = measure_grad_cam(finished, JUDGE, batch=2)
    images = [(row["id"], row["label"]) for row in records(finished, "results")]
    assert {(row.id, row.arm) for row in rows} == {(id, arm) for id, _ in images for arm in ("clean", "attack")}
    id, label = images[-1]
    (kept,) = [row for row in rows if (row.id, row.arm) == (id, "attack")]
    saved = read_image(finished.image_path(id, "attack"), SIDE)[None]
    expected = grad_cam(load_classifier(JUDGE), saved, torch.tensor([label]))
    assert (kept.classifier, kept.side) == (JUDGE, 32)
    pooled = expected.unflatten(2, (32, -1)).unflatten(4, (32, -1)).mean((3, 5))
    assert torch.tensor(kept.values) == pytest.approx(pooled.flatten(), abs=1e-6)


@pytest.mark.parametrize("name", [SURROGATE, JUDGE])
def test_verdicts_are_about_the_saved_files(store: Store, name: str) -> None:
    evaluate_run(store, [JUDGE])
    classifier = load_classifier(name)
    labels = {row["id"]: row["label"] for row in records(store, "results")}
    verdicts = records(store, "verdicts")
    known = {row["id"] for row in verdicts if (row["classifier"], row["arm"], row["correct"]) == (name, "clean", True)}
    checked = 0
    for row in verdicts:
        if row["classifier"] != name:
            continue
        with torch.no_grad():
            shares = classifier(read_image(store.image_path(row["id"], row["arm"]), SIDE)[None]).softmax(1)[0]
        assert row["predicted"] == int(shares.argmax())
        assert row["predicted_name"] == classifier.class_names[row["predicted"]]
        assert row["correct"] == (row["predicted"] == labels[row["id"]])
        assert row["success"] == (not row["correct"] if row["id"] in known else None)
        assert row["true_probability"] == pytest.approx(float(shares[labels[row["id"]]]), rel=1e-4)
        assert row["predicted_probability"] == pytest.approx(float(shares.max()), rel=1e-4)
        checked += 1
    assert checked == 3 * len(ARMS)


def test_a_judge_that_is_always_wrong_has_no_success(store: Store) -> None:
    """The mean of the column is then no figure, and not 100 %."""
    items = [{**row, "label": 5} for row in records(store, "results")]
    write_records(store, "results", items)
    evaluate_run(store, [JUDGE], min_clean_accuracy=0)
    table = pyarrow.parquet.read_table(store.table_path(VerdictRow))
    assert not any(table["correct"].to_pylist())
    assert table["success"].null_count == len(table)
    assert pyarrow.compute.mean(table["success"]).as_py() is None


def test_success_of_an_earlier_version_on_unknown_images_goes(store: Store) -> None:
    evaluate_run(store, [JUDGE])
    verdicts = records(store, "verdicts")
    wrong = [{**row, "correct": row["arm"] != "clean", "success": True} for row in verdicts]
    write_records(store, "verdicts", [each for each in wrong if each["classifier"] == JUDGE])
    evaluate_run(store, [OTHER])
    assert {row["success"] for row in records(store, "verdicts") if row["classifier"] == JUDGE} == {None}


def test_an_edited_file_is_judged_as_it_is_now(store: Store) -> None:
    """The margins of the attack are not believed: who swaps the files swaps the verdicts."""
    for row in records(store, "results"):
        clean = read_image(store.image_path(row["id"], "clean"), SIDE)
        write_png(store.image_path(row["id"], "attack"), clean, {})
    evaluate_run(store, [])
    verdicts = {(row["id"], row["arm"]): row["correct"] for row in records(store, "verdicts")}
    assert all(correct for (_, arm), correct in verdicts.items() if arm == "attack")


def test_a_second_evaluation_adds_its_judges(store: Store) -> None:
    evaluate_run(store, [JUDGE])
    first = {(row["id"], row["arm"]): row for row in records(store, "verdicts") if row["classifier"] == JUDGE}
    evaluate_run(store, [OTHER])
    verdicts = records(store, "verdicts")
    assert {row["classifier"] for row in verdicts} == {SURROGATE, JUDGE, OTHER}
    assert len(verdicts) == 3 * len(ARMS) * 3
    assert {(row["id"], row["arm"]): row for row in verdicts if row["classifier"] == JUDGE} == first
    assert len(records(store, "quality")) == 3 * (len(ARMS) - 1)


def test_who_judged_a_part_of_the_run_is_asked_for_again(store: Store) -> None:
    """A run that was judged before it was whole."""
    rows = records(store, "results")
    write_records(store, "results", rows[:2])
    assert not evaluate_run(store, [JUDGE])
    write_records(store, "results", rows)
    (remark,) = evaluate_run(store, [OTHER])
    assert f"{JUDGE} has not seen 1 of the 3 images" in remark
    assert {row["classifier"] for row in records(store, "verdicts")} == {SURROGATE, OTHER}
    assert summarise(rows, records(store, "verdicts"), records(store, "quality")).images == 3


def test_the_same_evaluation_twice_changes_no_byte(store: Store) -> None:
    evaluate_run(store, [JUDGE])
    before = contents(store.folder)
    evaluate_run(store, [JUDGE])
    assert contents(store.folder) == before


def test_the_size_of_the_batches_changes_nothing(store: Store) -> None:
    evaluate_run(store, [JUDGE], batch=1)
    singly = records(store, "verdicts")
    evaluate_run(store, [JUDGE], batch=32)
    together = records(store, "verdicts")

    def verdicts(rows: list[dict[str, Any]]) -> dict[tuple[str, str, str], tuple[int, float]]:
        return {
            (row["id"], row["arm"], row["classifier"]): (row["predicted"], round(row["true_probability"], 6))
            for row in rows
        }

    assert verdicts(singly) == verdicts(together)


@pytest.mark.parametrize(
    ("judges", "tuning", "named"), [([JUDGE, SURROGATE], [], SURROGATE), ([JUDGE], [JUDGE], JUDGE)]
)
def test_a_judge_that_was_seen_is_refused(store: Store, judges: list[str], tuning: list[str], named: str) -> None:
    before = contents(store.folder)
    with pytest.raises(RunError) as caught:
        evaluate_run(store, judges, tuning)
    assert str(caught.value).startswith(f"{named} cannot be a judge")
    assert contents(store.folder) == before


def test_a_classifier_that_was_used_for_tuning_does_not_become_a_judge_later(store: Store) -> None:
    evaluate_run(store, [], [OTHER])
    with pytest.raises(RunError, match="cannot be a judge"):
        evaluate_run(store, [OTHER])


def test_a_surrogate_stays_a_surrogate(store: Store) -> None:
    """Naming it as used for tuning would take it out of the surrogates' figures."""
    with pytest.raises(RunError, match=SURROGATE):
        evaluate_run(store, [], [SURROGATE])


def test_quality_is_measured_against_the_clean_file(store: Store) -> None:
    evaluate_run(store, [])
    rows, unavailable = records(store, "quality"), {row["metric"] for row in records(store, "unavailable")}
    assert {row["arm"] for row in rows} == set(ARMS) - {"clean"}
    assert unavailable < set(METRICS)
    assert len(rows) == 3 * (len(ARMS) - 1)
    for row in rows:
        clean, edit = (read_image(store.image_path(row["id"], arm), SIDE)[None] for arm in ("clean", row["arm"]))
        assert set(row) == {"id", "arm", *METRICS} - unavailable
        assert row["l2"] == pytest.approx(float(l2(clean, edit)), rel=1e-5)
        assert row["linf"] == pytest.approx(float(linf(clean, edit)), rel=1e-5)


def test_a_judge_with_too_few_classes(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(store.folder)
    monkeypatch.setattr(
        "attnshift.defences.names.load_classifier", lambda name: replace(load_classifier(name), classes=2)
    )
    with pytest.raises(RunError, match="has 2 classes and cannot judge class"):
        evaluate_run(store, [JUDGE])
    assert contents(store.folder) == before


def test_a_file_that_is_gone_leaves_the_verdicts_as_they_were(store: Store) -> None:
    evaluate_run(store, [JUDGE])
    store.image_path(records(store, "results")[2]["id"], "attack").unlink()
    before = contents(store.folder)
    with pytest.raises(ImageError):
        evaluate_run(store, [OTHER])
    assert contents(store.folder) == before


def test_a_run_without_images_says_how_to_continue(tmp_path: Path, finished: Store) -> None:
    empty = Store.start(tmp_path / "run", finished.spec(), planned("a"))
    with pytest.raises(RunError, match="0 finished images"):
        evaluate_run(empty, [JUDGE])


def test_progress_reaches_the_end(store: Store) -> None:
    calls: list[tuple[int, int]] = []
    evaluate_run(store, [], batch=2, report=lambda done, count: calls.append((done, count)))
    assert calls == [(2, 3), (3, 3)]
    assert load_recipe("quick").name == store.spec().recipe.name
