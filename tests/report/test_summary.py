"""Figures of the made-up run, counted by hand."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from attnshift.metrics.statistics import wilson
from report.made_up import (
    DONUT,
    FIRST,
    HELPER,
    SECOND,
    SHARES,
    SURROGATE,
    TARGETS,
    TREE,
    TUNED,
    quality,
    results,
    verdicts,
)
from tables import summarise

if TYPE_CHECKING:
    from attnshift.report.summary import ClassifierSummary


def by_name() -> dict[str, ClassifierSummary]:
    return {row.name: row for row in summarise(results(), verdicts(), quality()).classifiers}


def test_surrogates_come_first_and_judges_last() -> None:
    assert list(by_name()) == [SURROGATE, TUNED, SECOND, FIRST]
    assert [row.role for row in by_name().values()] == ["surrogate", "tuning", "judge", "judge"]


@pytest.mark.parametrize(
    ("name", "right", "fooled", "known"),
    [
        (SURROGATE, 3, {"round_trip": 0, "reconstruction": 0, "noise": 0, "attack": 2}, 3),
        (TUNED, 0, {"round_trip": 0, "reconstruction": 0, "noise": 0, "attack": 0}, 0),
        # c is wrong when clean already, and does not count as fooled.
        (FIRST, 2, {"round_trip": 0, "reconstruction": 1, "noise": 0, "attack": 2}, 2),
        (SECOND, 1, {"round_trip": 0, "reconstruction": 0, "noise": 0, "attack": 0}, 1),
    ],
)
def test_success_counts_only_what_was_right_when_clean(
    name: str, right: int, fooled: dict[str, int], known: int
) -> None:
    row = by_name()[name]
    assert row.accuracy == wilson(right, 3)
    assert {arm: estimate.count for arm, estimate in row.success.items()} == dict.fromkeys(fooled, known)
    if known:
        assert {arm: estimate.value for arm, estimate in row.success.items()} == {
            arm: count / known for arm, count in fooled.items()
        }
        assert row.success["attack"] == wilson(fooled["attack"], known)


@pytest.mark.parametrize(("name", "expected"), [(SURROGATE, 2 / 3), (FIRST, (0 + 1) / 2), (SECOND, 0.0)])
def test_attributable_is_attack_minus_reconstruction_on_the_same_images(name: str, expected: float) -> None:
    estimate = by_name()[name].attributable
    assert estimate.value == pytest.approx(expected)
    assert estimate.low <= estimate.value <= estimate.high


def test_a_classifier_that_knows_nothing_has_no_success() -> None:
    row = by_name()[TUNED]
    assert row.attributable.count == 0
    assert all(math.isnan(estimate.value) for estimate in row.success.values())


def test_judges_together_count_each_image_once() -> None:
    """a: fooled by 1 of 2; b: by 1 of the 1 that knows it; c: nobody knows it."""
    judges = summarise(results(), verdicts(), quality()).judges
    assert judges is not None
    assert judges.name == "mean of 2 judges"
    assert judges.success["attack"].value == pytest.approx((1 / 2 + 1) / 2)
    assert judges.success["attack"].count == 2
    assert judges.success["reconstruction"].value == pytest.approx((0 + 1) / 2)
    assert judges.success["round_trip"].value == 0
    assert judges.attributable.value == pytest.approx((1 / 2 + 0) / 2)
    assert judges.accuracy.value == pytest.approx((2 / 2 + 1 / 2 + 0) / 3)


def test_without_judges_there_is_no_mean() -> None:
    assert summarise(results(), [row for row in verdicts() if row["role"] != "judge"], []).judges is None


def test_in_a_targeted_run_a_third_class_is_no_success() -> None:
    """b shall be seen as a tree, and whoever does not see a mug sees a donut in it."""
    summary = summarise(results(targets=TARGETS), verdicts(targets=TARGETS), quality())
    untargeted = by_name()
    rows = {row.name: row for row in summary.classifiers}
    assert rows[SURROGATE].success["attack"] == wilson(1, 3), "a, and not b"
    assert rows[SURROGATE].attributable.value == pytest.approx(1 / 3)
    assert rows[FIRST].success["attack"] == wilson(1, 2)
    assert rows[FIRST].success["reconstruction"] == wilson(0, 2), "the reconstruction of b is no tree either"
    assert rows[FIRST].attributable.value == pytest.approx(1 / 2)
    assert [row.accuracy for row in rows.values()] == [row.accuracy for row in untargeted.values()]
    assert summary.judges is not None
    assert summary.judges.success["attack"].value == pytest.approx((1 / 2 + 0) / 2)
    assert summary.judges.attributable.value == pytest.approx((1 / 2 + 0) / 2)


@pytest.mark.parametrize(
    ("targets", "aim"),
    [
        (None, ""),
        (dict.fromkeys("abc", DONUT), ", targeted at donut"),
        (TARGETS, ", targeted per image"),
        ({"a": TREE, "b": TREE, "c": TREE}, ", targeted at tree"),
    ],
)
def test_a_summary_says_what_the_attack_was_after(targets: dict[str, int] | None, aim: str) -> None:
    assert summarise(results(targets=targets), [], []).aim == aim


def test_quality_is_a_mean_and_leaves_out_infinities() -> None:
    figures = summarise(results(), verdicts(), quality()).quality
    assert set(figures) == {"round_trip", "reconstruction", "noise", "attack"}
    assert figures["attack"]["ssim"].value == pytest.approx((0.9 + 0.92 + 0.94) / 3)
    assert figures["attack"]["psnr"].value == pytest.approx(31)
    assert figures["reconstruction"]["psnr"].value == pytest.approx((30 + 32) / 2), "b is equal to the clean image"
    assert figures["reconstruction"]["psnr"].count == 2
    assert figures["reconstruction"]["l2"].value == pytest.approx((2 + 0 + 2) / 3)
    assert math.isinf(figures["round_trip"]["psnr"].value)


def test_seconds_and_images() -> None:
    summary = summarise(results(), [], [])
    assert summary.images == 3
    assert summary.seconds.value == 2.0
    assert summary.classifiers == ()


def test_the_order_of_the_verdicts_changes_no_figure() -> None:
    forward, backward = (summarise(results(), rows, quality()) for rows in (verdicts(), verdicts()[::-1]))
    assert {row.name: row for row in forward.classifiers if row.role != "tuning"} == {
        row.name: row for row in backward.classifiers if row.role != "tuning"
    }
    assert forward.judges == backward.judges


def test_shares_are_means_over_the_images_that_are_still_attacked() -> None:
    seen = summarise(results(shares=SHARES), verdicts(), quality())
    assert seen.shares[SURROGATE] == pytest.approx((0.2, 0.5))
    assert seen.shares[HELPER] == pytest.approx((1.4 / 3, 0.5))
    assert seen.effective_models.value == pytest.approx(1.25)
    assert seen.effective_models.count == 3


def test_what_the_change_spends_is_said_where_it_is_known() -> None:
    assert not summarise(results(), verdicts(), quality()).spending
    spent, *rest = [row | {"spent": 0.9} for row in results()]
    seen = summarise([spent | {"pixel_share": 0.25}, *rest], verdicts(), quality())
    assert {name: (share.value, share.count) for name, share in seen.spending.items()} == {
        "budget": (pytest.approx(0.9), 3),
        "added pixels": (pytest.approx(0.25), 1),
    }


def test_attention_pulls_and_idle_terms() -> None:
    summary = summarise(results(), verdicts(), quality())
    (mass, distance) = summary.movement["class, saved file"]
    assert list(summary.movement) == ["class, saved file"]
    assert mass.value == pytest.approx((0.5 + 0.75 + 1.0) / 3)
    assert distance.value == pytest.approx(0.3)
    assert summary.pulls == {"entropy": (0.25,)}, "in iteration 1 the classification has no gradient"
    assert summary.idle_terms == {"contrast never acted: already satisfied": 1}
