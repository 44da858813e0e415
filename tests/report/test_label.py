"""Whether the true class is still there: figures of the made-up run, counted by hand, and where they are shown."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as draws

from attnshift.cli.printing import print_summary
from attnshift.metrics.statistics import wilson
from attnshift.report.page import write_report
from attnshift.results.arms import ARMS
from report.made_up import CORRECT, DONUT, FIRST, IDS, SECOND, SURROGATE, TUNED, made_up_run, quality, results, verdicts
from report.seen import Seen
from tables import summarise, write_records

if TYPE_CHECKING:
    from attnshift.report.summary import Summary
    from attnshift.results.store import Store

REFERENCE = "smoothing(sigma=0.25)+lab:<i>reference</i>"
RIGHT = {"clean": "yyn", "round_trip": "yyy", "reconstruction": "yny", "noise": "yyy", "attack": "nyy"}
"""Images a, b and c: the reference loses a to the attack, and b to the reconstruction alone; c it never knew."""


def rows_of(name: str, role: str, correct: dict[str, str]) -> list[dict[str, Any]]:
    """Verdicts of one more classifier."""
    (example,) = {row["classifier"]: row for row in verdicts() if row["classifier"] == FIRST}.values()
    return [
        example
        | {"id": id, "arm": arm, "classifier": name, "role": role}
        | {"correct": right == "y", "success": right == "n", "predicted_name": "mug" if right == "y" else "donut"}
        for arm in ARMS
        for id, right in zip(IDS, correct[arm], strict=True)
    ]


def with_reference() -> list[dict[str, Any]]:
    return verdicts() + rows_of(REFERENCE, "reference", RIGHT)


def defended(prefix: str, name: str) -> list[dict[str, Any]]:
    """``name`` behind a defence that keeps the attack from any success."""
    kept = CORRECT[name] | {"attack": CORRECT[name]["clean"]}
    return rows_of(f"{prefix}+{name}", "defended", kept)


def seen(rows: list[dict[str, Any]]) -> Summary:
    return summarise(results(), rows, quality())


def test_without_a_reference_nothing_is_said_about_labels() -> None:
    assert seen(verdicts()).label is None


def test_the_reference_is_a_role_of_its_own() -> None:
    summary = seen(with_reference())
    assert [row.name for row in summary.classifiers] == [SURROGATE, TUNED, REFERENCE, SECOND, FIRST]
    assert summary.judges == seen(verdicts()).judges, "it is no judge"


def test_a_label_is_kept_where_the_reference_still_sees_it() -> None:
    label = seen(with_reference()).label
    assert label is not None
    assert (label.reference, label.accuracy) == (REFERENCE, wilson(2, 3))
    expected = {"round_trip": 2, "reconstruction": 1, "noise": 2, "attack": 1}
    assert dict(label.kept) == {arm: wilson(count, 2) for arm, count in expected.items()}


def test_success_with_the_label_kept() -> None:
    """a fools FIRST and has lost its label. b keeps it, and FIRST was lost to the reconstruction already."""
    label = seen(with_reference()).label
    assert label is not None
    second, first, together = label.judges
    assert (first.name, second.name, together.name) == (FIRST, SECOND, "mean of 2 judges")
    assert first.accuracy == wilson(2, 3)
    assert first.success["attack"] == wilson(1, 2), "b, and a no longer"
    assert first.success["reconstruction"] == wilson(1, 2)
    assert first.attributable.value == 0.0
    assert second.success["attack"] == wilson(0, 1)
    assert together == label.together
    assert together.success["attack"].value == 0.5
    assert together.attributable.value == 0.0


def test_a_success_that_is_struck_out_is_no_loss() -> None:
    """b fools FIRST, attacked or reconstructed alone; with its label lost neither counts, and the other share stays."""
    lost = dict.fromkeys(ARMS, "yyy") | {"attack": "yny"}
    label = seen(verdicts() + rows_of(REFERENCE, "reference", lost)).label
    assert label is not None
    first = label.judges[1]
    assert (first.name, first.success["attack"]) == (FIRST, wilson(1, 2))
    assert first.attributable.value == 0.5, "a, and nothing taken off for b"


YES_OR_NO = draws.text("yn", min_size=3, max_size=3)


@settings(max_examples=40, deadline=None)
@given(YES_OR_NO, YES_OR_NO, YES_OR_NO, YES_OR_NO)
def test_nothing_is_gained_by_losing_a_label(before: str, after: str, control: str, attack: str) -> None:
    """Whoever is right about what: with the condition an attack's own share is never more, and 0 where all is lost."""
    judge = dict.fromkeys(ARMS, "yyy") | {"reconstruction": before, "attack": after}
    reference = dict.fromkeys(ARMS, "yyy") | {"reconstruction": control, "attack": attack}
    rows = rows_of(FIRST, "judge", judge) + rows_of(REFERENCE, "reference", reference)
    summary = seen(rows)
    assert summary.judges is not None
    assert summary.label is not None
    assert summary.label.together is not None
    assert summary.label.together.attributable.value <= summary.judges.attributable.value
    lost = seen(
        [row | ({"correct": False} if (row["role"], row["arm"]) == ("reference", "attack") else {}) for row in rows]
    )
    assert lost.label is not None
    assert lost.label.together is not None
    assert lost.label.together.success["attack"].value == 0
    assert lost.label.together.attributable.value <= 0


def test_images_that_the_reference_does_not_know_count_for_nobody() -> None:
    """c is known to nobody else; a now is unknown to the reference alone."""
    unknown = RIGHT | {"clean": "nyn"}
    label = seen(verdicts() + rows_of(REFERENCE, "reference", unknown)).label
    assert label is not None
    assert label.kept["attack"] == wilson(1, 1)
    second, first, together = label.judges
    assert (first.accuracy, first.success["attack"]) == (wilson(1, 3), wilson(1, 1))
    assert second.accuracy == wilson(0, 3)
    assert (together.success["attack"].value, together.success["attack"].count) == (1.0, 1)


def test_a_reference_that_sees_everything_changes_no_figure_of_the_judges() -> None:
    everything = dict.fromkeys(ARMS, "yyy")
    summary = seen(verdicts() + rows_of(REFERENCE, "reference", everything))
    assert summary.label is not None
    assert summary.label.together == summary.judges


def test_without_judges_the_label_still_counts() -> None:
    label = seen([row for row in with_reference() if row["role"] != "judge"]).label
    assert label is not None
    assert (label.judges, label.together) == ((), None)


def test_judges_behind_a_defence_are_counted_apart() -> None:
    rows = [*verdicts(), *defended("jpeg(quality=60)", FIRST), *defended("jpeg(quality=60)", SECOND)]
    rows += defended("median", FIRST)
    summary = seen(rows)
    assert [row.role for row in summary.classifiers][-5:] == ["judge", "judge", "defended", "defended", "defended"]
    assert summary.judges == seen(verdicts()).judges, "what a defence is worth does not move it"
    (jpeg,) = summary.defended
    assert (jpeg.name, jpeg.role) == ("mean of 2 judges behind jpeg(quality=60)", "defended")
    assert jpeg.success["attack"].value == 0.0
    assert jpeg.success["reconstruction"].value == 0.5


@pytest.mark.parametrize(
    ("judges_by_defence", "called", "means"),
    [
        ([("jpeg", FIRST), ("jpeg", SECOND)], "mean of 2 judges behind jpeg", []),
        ([("jpeg", FIRST), ("median", FIRST)], "mean of 2 defended judges", []),
        (
            [("jpeg", FIRST), ("median+jpeg", FIRST), ("jpeg", SECOND)],
            "mean of 3 defended judges",
            ["mean of 2 judges behind jpeg"],
        ),
    ],
)
def test_where_all_judges_are_defended_the_mean_says_so(
    judges_by_defence: list[tuple[str, str]], called: str, means: list[str]
) -> None:
    rows = [row for row in verdicts() if row["role"] != "judge"]
    for prefix, name in judges_by_defence:
        rows += defended(prefix, name)
    summary = seen(rows)
    assert summary.judges is not None
    assert (summary.judges.name, summary.judges.role) == (called, "defended")
    assert [row.name for row in summary.defended] == means


VISIBLE = [
    {"id": id, "arm": arm, "object_ssim": 0.5 + place / 10, "contrast_kept": math.nan if place else 0.75}
    for place, id in enumerate(IDS)
    for arm in ("reconstruction", "attack")
]


def test_visibility_is_a_mean_over_the_images_in_which_it_can_be_measured() -> None:
    figures = summarise(results(), verdicts(), quality(), VISIBLE).visibility
    assert set(figures) == {"reconstruction", "attack"}
    assert figures["attack"]["object_ssim"].value == pytest.approx(0.6)
    assert (figures["attack"]["contrast_kept"].value, figures["attack"]["contrast_kept"].count) == (0.75, 1)
    assert summarise(results(), verdicts(), quality()).visibility == {}


@pytest.fixture
def labelled(tmp_path: Path) -> Store:
    store = made_up_run(tmp_path / "run")
    write_records(store, "verdicts", [*with_reference(), *defended("jpeg", FIRST), *defended("jpeg", SECOND)])
    return store


def text(store: Store) -> str:
    html = write_report(store).read_text(encoding="utf-8")
    assert "<i>reference" not in html
    words = Seen(html).text
    assert "nan" not in words.split()
    return words


def test_the_report_says_whether_the_label_is_kept(labelled: Store) -> None:
    words = text(labelled)
    section = words.partition("Whether the true class is still there")[2].partition("How natural it looks")[0]
    assert f"{REFERENCE} was declared to speak for the label" in section
    assert "arm label kept round trip 100 % [34, 100] reconstruction 50 % [9, 91]" in section
    assert f"{FIRST} 67 % [21, 94] 50 % [9, 91] 0 % [0, 0]" in section
    assert "object_ssim" not in section
    assert section.count("mean of 2 judges") == 2
    assert f"{REFERENCE} reference " in words
    assert f"jpeg+{FIRST} defended " in words
    assert "mean of 2 judges behind jpeg defended" in words.partition("Whether the true class")[0]


def test_the_report_says_how_visible_objects_are(tmp_path: Path) -> None:
    store = made_up_run(tmp_path / "run")
    assert "Whether the true class" not in text(store)
    write_records(store, "visibility", VISIBLE)
    section = text(store).partition("Whether the true class is still there")[2].partition("How natural it looks")[0]
    assert "arm object_ssim contrast_kept round trip – – reconstruction 0.600 [" in section
    assert "label" not in section
    write_records(store, "visibility", [row | {"contrast_kept": math.nan} for row in VISIBLE])
    assert "] – " in text(store).partition("attack 0.600")[2][:30]


def test_the_printed_summary_says_both(labelled: Store, capsys: pytest.CaptureFixture[str]) -> None:
    print_summary(labelled)
    lines = capsys.readouterr().out.splitlines()
    assert any("mean of 2 judges behind jpeg" in line for line in lines)
    (kept,) = [line for line in lines if line.startswith("label kept")]
    assert kept.startswith(f"label kept, says {REFERENCE}: round trip 100 % [34, 100], reconstruction 50 %")
    assert "success with the label kept, mean of 2 judges: attack 50 % [0, 100], attributable 0 % [0, 0]" in lines
    assert not any(line.startswith("object in") for line in lines)
    write_records(labelled, "visibility", VISIBLE)
    print_summary(labelled)
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("object in attack: object_ssim 0.600 [0.5") for line in lines)


def test_without_both_nothing_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    print_summary(made_up_run(tmp_path / "run"))
    printed = capsys.readouterr().out
    assert "label" not in printed
    assert "object" not in printed


def test_a_targeted_attack_succeeds_on_the_target_and_the_label_is_still_the_true_class() -> None:
    """The reference takes a for something else than the target: its label is lost all the same."""
    targets = dict.fromkeys(IDS, DONUT)
    rows = verdicts(targets=targets) + [row | {"success": False} for row in rows_of(REFERENCE, "reference", RIGHT)]
    label = summarise(results(targets=targets), rows, quality()).label
    assert label is not None
    assert label.kept["attack"] == wilson(1, 2)
    assert label.judges[1].success["attack"] == wilson(1, 2)
