"""Runs compared image by image, with figures that can be counted on fingers."""

from __future__ import annotations

from pathlib import Path

import pytest

from attnshift.errors import RunError
from attnshift.report.paired import compare_runs
from report.made_up import FIRST, IDS, TARGETS, made_up_run, quality, verdicts
from tables import write_records


def test_a_run_against_itself(tmp_path: Path) -> None:
    """a: one of two judges is fooled; b: its one judge was lost to the reconstruction already; c: no judge knows it."""
    run = made_up_run(tmp_path / "run")
    seen = compare_runs(run, run)
    assert (seen.attributable.value, seen.attributable.count) == (0.25, 2)
    assert (seen.attributable_gap.value, seen.attributable_gap.low, seen.attributable_gap.high) == (0.0, 0.0, 0.0)
    assert seen.ssim.value == pytest.approx(0.92)
    assert seen.ssim_gap.value == 0.0


def test_gaps_are_those_of_the_same_image(tmp_path: Path) -> None:
    reference, weaker = made_up_run(tmp_path / "reference"), made_up_run(tmp_path / "weaker")
    rows = verdicts()
    for row in rows:
        if (row["classifier"], row["arm"], row["id"]) == (FIRST, "attack", "a"):
            row |= {"correct": True, "success": False}
    # Another order of the images, and one image less.
    write_records(weaker, "verdicts", rows[::-1])
    write_records(weaker, "quality", [row | {"ssim": 1.0} for row in quality()[::-1] if row["id"] != "c"])
    seen = compare_runs(reference, weaker)
    assert seen.attributable.value == 0.0
    assert seen.attributable_gap.value == -0.25
    assert seen.ssim_gap.value == pytest.approx((0.1 + 0.08) / 2)
    assert seen.ssim_gap.count == len(IDS) - 1


def test_a_third_class_is_no_success_of_a_targeted_run(tmp_path: Path) -> None:
    """a reaches its donut on one of two judges; b is no tree to the one that knows it, reconstructed or attacked."""
    untargeted, targeted = made_up_run(tmp_path / "any"), made_up_run(tmp_path / "run", targets=TARGETS)
    assert compare_runs(targeted, targeted).attributable.value == 0.25
    rows = [row | {"success": row["success"] and row["id"] != "a"} for row in verdicts(targets=TARGETS)]
    write_records(targeted, "verdicts", rows)
    assert compare_runs(untargeted, targeted).attributable.value == 0.0
    assert compare_runs(untargeted, targeted).attributable_gap.value == -0.25


def test_without_a_common_image_or_a_judge_there_is_nothing_to_compare(tmp_path: Path) -> None:
    judged, unjudged = made_up_run(tmp_path / "judged"), made_up_run(tmp_path / "unjudged", judged=False)
    with pytest.raises(RunError, match="no judged image in common"):
        compare_runs(judged, unjudged)
