"""Suspicion falls on plainly wrong classifiers, not on weak ones, few images or weak runs."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from attnshift.metrics.clean_accuracy import COMMON_NORMALISATIONS, suspicion

Channels = tuple[float, float, float]


def first(right: int, count: int) -> list[bool]:
    """Right about the first so many images."""
    return [index < right for index in range(count)]


def said(own: Sequence[bool], best: Sequence[bool], retried: Sequence[bool] | None = None, least: float = 0.25) -> str:
    def retry(mean: Channels, std: Channels) -> Sequence[bool]:
        return retried if retried is not None and mean == (0.5, 0.5, 0.5) else own

    return suspicion("own", {"own": own, "best": best}, retry, least) or ""


def test_a_wrong_class_order() -> None:
    line = said(first(0, 64), first(63, 64))
    assert line.startswith("own is right about 0 of 64 clean images and best about 63 of 64: its preprocessing")
    assert "class order" in line


@pytest.mark.parametrize("right", [20, 26, 40, 63, 64])
def test_an_honest_weak_classifier_is_left_alone(right: int) -> None:
    """An adversarially trained network can be right about a third of what the best one knows."""
    assert said(first(right, 64), first(64, 64)) == ""


@pytest.mark.parametrize("count", [1, 3, 10])
def test_a_few_images_say_nothing(count: int) -> None:
    assert said(first(0, count), first(count, count)) == ""


@pytest.mark.parametrize("count", [20, 100, 1000])
def test_where_nobody_is_right_nobody_is_doubted(count: int) -> None:
    assert said(first(0, count), first(0, count)) == ""
    assert said(first(0, count), first(1, count)) == ""


def test_a_better_normalisation_is_named() -> None:
    line = said(first(45, 64), first(63, 64), first(62, 64))
    assert line == (
        "own is right about 45 of 64 clean images, and about 62 with mean 0.5 and std 0.5: "
        "its mean and std are probably wrong"
    )


def test_a_better_normalisation_must_be_beyond_chance() -> None:
    assert said(first(45, 64), first(63, 64), first(53, 64)) == ""
    swapped = [not each for each in first(32, 64)]
    assert said(first(32, 64), first(63, 64), swapped) == "", "as many lost as won"


def test_a_better_normalisation_must_matter() -> None:
    """One per cent of 10 000 images is beyond chance and no reason to refuse."""
    assert said(first(6000, 10000), first(8000, 10000), first(6100, 10000)) == ""
    assert said(first(6000, 10000), first(8000, 10000), first(6600, 10000)) != ""


def test_who_is_as_good_as_the_best_is_not_tried_again() -> None:
    def never(mean: Channels, std: Channels) -> Sequence[bool]:
        raise AssertionError("costs time")

    assert suspicion("own", {"own": first(60, 64), "best": first(64, 64)}, never) is None


def test_without_a_share_only_the_normalisation_counts() -> None:
    assert said(first(0, 64), first(63, 64), least=0) == ""
    assert said(first(0, 64), first(63, 64), first(60, 64), least=0) != ""


def test_the_usual_normalisations_are_different() -> None:
    assert len(set(COMMON_NORMALISATIONS.values())) == len(COMMON_NORMALISATIONS) == 3
