"""Runs against each other image by image: which images one fools and the other does not, counted on fingers."""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from attnshift.errors import RunError
from attnshift.metrics.statistics import Change
from attnshift.report.curve_page import comparison_tables, write_comparison
from attnshift.report.curves import Comparison, Rival, measure_comparison
from attnshift.report.paired import compare_runs
from attnshift.report.tables import write_tables
from attnshift.report.verdicts import fools_most, indexed
from attnshift.results.roles import counted_judges
from attnshift.results.rows import VerdictRow
from attnshift.results.store import Store
from report.made_up import FIRST, SECOND, made_up_run, verdicts
from report.made_up_comparison import HOSTILE, made_up_comparison
from report.seen import Seen
from tables import records, typed, write_records

THIRD, FOURTH = "lab:third", "lab:fourth"
EXAMPLE = Path(__file__).parents[2] / "examples" / "ablation_table.py"


def markdown(comparison: Comparison) -> str:
    return write_tables(comparison_tables(comparison), "markdown")


def run(folder: Path, changes: Mapping[tuple[str, str, str], bool] | None = None) -> Store:
    """The made-up run where ``changes`` (classifier, arm, image) decide who is right."""
    store = made_up_run(folder)
    rows = [
        row | ({"correct": right, "success": not right} if right is not None else {})
        for row in verdicts()
        for right in [(changes or {}).get((row["classifier"], row["arm"], row["id"]))]
    ]
    write_records(store, "verdicts", rows)
    return store


def spared(folder: Path) -> Store:
    """a fools none of its judges."""
    return run(folder, {(FIRST, "attack", "a"): True})


def judged(kept: Mapping[str, str], fooled: Mapping[str, str]) -> list[VerdictRow]:
    """Verdicts on an image x: of each judge whether it is right about the reconstruction, and about the attack."""
    return [
        VerdictRow("x", arm, name, "judge", 0, "", right == "y", right == "n", 0.5, 0.5)
        for name in kept
        for arm, right in (("clean", "y"), ("reconstruction", kept[name]), ("attack", fooled[name]))
    ]


@pytest.mark.parametrize(
    ("kept", "seen", "fooled"),
    [
        ("yyyy", "nnyy", True),
        ("yyyy", "nyyy", False),
        ("yyyy", "nnnn", True),
        # The reconstruction alone fools two: the attack's own successes are the other two.
        ("nnyy", "nnnn", True),
        ("nnny", "nnnn", False),
        # What the reconstruction alone fools and the attack does not takes nothing away from the two that it wins.
        ("nyyy", "ynny", True),
    ],
)
def test_an_image_is_fooled_where_half_of_its_judges_are(kept: str, seen: str, fooled: bool) -> None:
    names = (FIRST, SECOND, THIRD, FOURTH)
    rows = judged(dict(zip(names, kept, strict=True)), dict(zip(names, seen, strict=True)))
    assert fools_most(names, ["x"], indexed(rows)) == {"x": fooled}
    without = [row for row in rows if row.arm != "reconstruction"]
    assert fools_most(names, ["x"], indexed(without)) == {"x": seen.count("n") >= 2}, "an attack on pixels"


def test_only_judges_that_know_an_image_count() -> None:
    """a: FIRST of two; b: FIRST alone, which the reconstruction loses already; c: nobody knows it."""
    seen = indexed(typed(VerdictRow, verdicts()))
    assert fools_most([FIRST, SECOND], "abc", seen) == {"a": True, "b": False}
    assert fools_most([SECOND], "abc", seen) == {"a": False}
    assert fools_most([], "abc", seen) == {}


def test_two_runs_judge_by_judge_and_together(tmp_path: Path) -> None:
    weaker, stronger = spared(tmp_path / "weaker"), run(tmp_path / "run", {(FIRST, "reconstruction", "b"): True})
    seen = compare_runs(weaker, stronger)
    assert seen.judges == {FIRST: Change(2, 0, 0.5, 2), SECOND: Change(0, 0, 1.0, 1)}
    assert seen.fooled == Change(2, 0, 0.5, 2)
    back = compare_runs(stronger, weaker)
    assert (back.fooled, back.judges[FIRST]) == (Change(0, 2, 0.5, 2), Change(0, 2, 0.5, 2))


def test_a_judge_that_is_there_once_is_no_pair(tmp_path: Path) -> None:
    one, other = run(tmp_path / "one"), run(tmp_path / "other")
    write_records(one, "verdicts", [row for row in records(one, "verdicts") if row["classifier"] != SECOND])
    assert set(compare_runs(one, other).judges) == {FIRST}
    assert compare_runs(one, other).attributable.value == 0.5, "of FIRST alone"
    write_records(other, "verdicts", [row for row in records(other, "verdicts") if row["classifier"] != FIRST])
    with pytest.raises(RunError, match="no judge in common"):
        compare_runs(one, other)


def as_defended(rows: list[dict[str, Any]], *names: str) -> list[dict[str, Any]]:
    """``rows``, and those of ``names`` behind JPEG, which nothing fools."""
    judges_by_defence = [
        row | {"classifier": f"jpeg+{row['classifier']}", "role": "defended", "success": False}
        for row in rows
        if row["classifier"] in names
    ]
    return rows + judges_by_defence


def test_judges_behind_a_defence_count_where_there_are_no_others(tmp_path: Path) -> None:
    assert counted_judges({"a": "judge", "jpeg+a": "defended", "s": "surrogate"}) == ["a"]
    assert counted_judges({"jpeg+a": "defended", "median+a": "defended", "t": "tuning"}) == ["jpeg+a", "median+a"]
    store = run(tmp_path / "run")
    write_records(store, "verdicts", as_defended(verdicts(), FIRST))
    seen = compare_runs(store, store)
    assert (set(seen.judges), seen.attributable.value) == ({FIRST, SECOND}, 0.25)
    write_records(store, "verdicts", [row for row in records(store, "verdicts") if row["role"] != "judge"])
    seen = compare_runs(store, store)
    assert (set(seen.judges), seen.attributable.value) == ({f"jpeg+{FIRST}"}, 0.0)


def test_each_run_is_compared_to_the_first_recipes_of_the_same_strength(tmp_path: Path) -> None:
    runs = {
        "one": {1.0: spared(tmp_path / "one 1"), 2.0: run(tmp_path / "one 2")},
        "two": {1.0: run(tmp_path / "two 1"), 2.0: spared(tmp_path / "two 2"), 4.0: run(tmp_path / "two 4")},
        "three": {2.0: run(tmp_path / "three 2")},
    }
    one, two, three = measure_comparison(runs, (FIRST, SECOND), [0.9]).lines
    assert [point.rival for point in one.points] == [None, None]
    assert [point.rival and point.rival.change for point in two.points] == [
        Change(1, 0, 1.0, 2),
        Change(0, 1, 1.0, 2),
        None,
    ]
    assert [point.rival and point.rival.change for point in three.points] == [Change(0, 0, 1.0, 2)]


def test_images_are_paired_by_place(tmp_path: Path) -> None:
    """A recipe that is given masks has other ids for the same images."""
    one, other = run(tmp_path / "one"), spared(tmp_path / "other")
    for name in ("results", "verdicts", "quality"):
        write_records(other, name, [row | {"id": f"{row['id']}+mask"} for row in records(other, name)])
    _, second = measure_comparison({"one": {1.0: one}, "other": {1.0: other}}, (FIRST, SECOND), [0.9]).lines
    assert second.points[0].rival == Rival(Change(0, 1, 1.0, 2), 1.0)


@pytest.mark.parametrize("plain", [True, False])
def test_a_comparison_is_measured_by_plain_judges_or_else_by_all(tmp_path: Path, plain: bool) -> None:
    store = run(tmp_path / "run")
    names = (f"jpeg+{FIRST}", *((FIRST,) if plain else ()))
    rows = as_defended(verdicts(), FIRST)
    write_records(store, "verdicts", [row for row in rows if row["role"] != "judge" or row["classifier"] in names])
    comparison = measure_comparison({"one": {1.0: store}}, names, [0.9])
    assert comparison.judges == ((FIRST,) if plain else names)
    assert comparison.aside == ((f"jpeg+{FIRST}",) if plain else ())
    assert comparison.lines[0].points[0].success.value == (0.5 if plain else 0.0)
    seen = Seen(write_comparison(tmp_path, comparison).read_text(encoding="utf-8")).text
    assert (f"in each run's report alone, jpeg+{FIRST}" in seen) == plain
    assert json.loads((tmp_path / "compare.json").read_text())["judges_aside"] == list(comparison.aside)


def with_rivals(comparison: Comparison) -> Comparison:
    """Of the made-up lines the second wins 9 and loses 2 images at strength 0.5; the third wins all 12 at 1."""
    first, second, third = comparison.lines
    rival, other = Rival(Change(9, 2, 0.0654, 60), 0.0654), Rival(Change(12, 0, 0.00049, 60), 0.00098)
    second = replace(second, points=(replace(second.points[0], rival=rival), *second.points[1:]))
    third = replace(third, points=(third.points[0], replace(third.points[1], rival=other), third.points[2]))
    return replace(comparison, lines=(first, second, third))


def test_the_page_has_a_table_of_its_own(tmp_path: Path) -> None:
    page = write_comparison(tmp_path, with_rivals(made_up_comparison(tmp_path))).read_text(encoding="utf-8")
    assert "<script>alert" not in page
    text = Seen(page).text.partition("Image by image against fast")[2]
    assert "recipe strength won lost p diffattack 0.5 9 2 0.065" in text
    assert f"{HOSTILE} 1 12 0 0.001" in text
    assert "corrected for the 2 tests of this table (Holm)" in text
    data = json.loads((tmp_path / "compare.json").read_text(encoding="utf-8"))
    strengths = data["recipes"][2]["strengths"]
    assert strengths[1]["against_first"] == {"images": 60, "won": 12, "lost": 0, "p": 0.00049, "p_holm": 0.00098}
    assert "against_first" not in strengths[0]


def test_without_a_pair_there_is_no_such_table(tmp_path: Path) -> None:
    comparison = made_up_comparison(tmp_path)
    assert "Image by image" not in write_comparison(tmp_path, comparison).read_text(encoding="utf-8")
    assert len(markdown(comparison).split("\n\n")) == 2


def test_markdown_has_the_same_table(tmp_path: Path) -> None:
    rows = markdown(with_rivals(made_up_comparison(tmp_path))).split("\n\n")[2].splitlines()
    assert rows[0] == "| recipe | strength | won against fast | lost | p (Holm) |"
    assert rows[2] == "| diffattack | 0.5 | 9 | 2 | 0.065 |"
    assert len(rows) == 4
    assert len({row.replace("\\|", "").count("|") for row in rows}) == 1


def test_values_are_corrected_for_all_tests_of_the_comparison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = iter([Change(8, 0, 0.01, 9), Change(5, 0, 0.04, 9), Change(7, 0, 0.02, 9)])
    monkeypatch.setattr("attnshift.report.curves.compare_fooled", lambda *_: next(found))
    store = run(tmp_path / "run")
    stores = {name: Store(tmp_path / name) for name in ("a", "b", "c")}
    for each in stores.values():
        made_up_run(each.folder)
    runs = {"one": {1.0: store}} | {name: {1.0: each} for name, each in stores.items()}
    lines = measure_comparison(runs, (FIRST, SECOND), [0.9]).lines[1:]
    assert [line.points[0].rival and line.points[0].rival.corrected for line in lines] == [0.03, 0.04, 0.04]


def test_the_example_prints_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [spared(tmp_path / "weak").folder, run(tmp_path / "strong").folder]
    monkeypatch.setattr(sys, "argv", ["ablation_table.py", *map(str, folders)])
    runpy.run_path(str(EXAMPLE))
    header, line, weak, strong = capsys.readouterr().out.splitlines()
    assert len({each.count("|") for each in (header, line, weak, strong)}) == 1
    assert "| 0, 0 | 1.000 |" in weak
    assert "| 1, 0 | 1.000 |" in strong
