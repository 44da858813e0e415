"""Randomised smoothing: the bound, the radius, the vote."""

from __future__ import annotations

from collections.abc import Callable
from math import comb
from statistics import NormalDist

import pytest
import torch
from torch import Tensor

from attnshift.classifiers import load_classifier
from attnshift.defences.smoothing import Smoothing, lower_bound
from lab_scenes import rendered


@pytest.mark.parametrize(
    ("successes", "count", "lower"),
    [(81, 263, 0.2527), (15, 148, 0.0578), (0, 20, 0.0), (1, 29, 0.0009)],
)
def test_the_bound_is_the_published_one(successes: int, count: int, lower: float) -> None:
    """Newcombe, Statistics in Medicine 1998, table I, method 5 (Clopper-Pearson), 95 % two-sided."""
    assert lower_bound(successes, count, 0.025) == pytest.approx(lower, abs=5e-5)


@pytest.mark.parametrize(("successes", "count"), [(1, 1), (3, 10), (9, 10), (40, 50)])
@pytest.mark.parametrize("alpha", [0.001, 0.05, 0.4])
def test_the_bound_is_where_the_exact_tail_is_alpha(successes: int, count: int, alpha: float) -> None:
    bound = lower_bound(successes, count, alpha)
    tail = sum(comb(count, k) * bound**k * (1 - bound) ** (count - k) for k in range(successes, count + 1))
    assert tail == pytest.approx(alpha, rel=1e-9)


@pytest.mark.parametrize("count", [1, 100, 100_000])
def test_the_bound_of_all_and_of_one(count: int) -> None:
    assert lower_bound(count, count, 0.001) == pytest.approx(0.001 ** (1 / count), rel=1e-9)
    assert lower_bound(1, count, 0.001) == pytest.approx(-(0.999 ** (1 / count) - 1), rel=1e-6)


def test_the_largest_radius_of_the_paper() -> None:
    """At the paper's n = 100,000 and alpha = 0.001, no radius exceeds 3.81 sigma, 0.95 at 0.25."""
    largest = 0.25 * NormalDist().inv_cdf(lower_bound(100_000, 100_000, 0.001))
    assert largest == pytest.approx(0.9525, abs=5e-4)


def half_space(offset: float) -> Callable[[Tensor], Tensor]:
    """Classifier with a plane at distance ``offset``.

    Class 1 has a mean pixel above one half by ``offset`` / sqrt(pixels).
    """

    def classify(images: Tensor) -> Tensor:
        pixels = images[0].numel()
        height = (images - 0.5).flatten(1).sum(1) / pixels**0.5 + offset
        return torch.stack([torch.zeros_like(height), height], 1)

    return classify


@pytest.mark.parametrize("distance", [0.05, 0.2])
def test_the_radius_of_a_half_space_is_its_distance(distance: float) -> None:
    """For a plane the certificate is tight: Phi^-1(p) sigma is the distance, up to sampling."""
    image = torch.full((1, 3, 8, 8), 0.5)
    certificate = Smoothing(sigma=0.25, copies=4000).certify(half_space(distance), image)
    assert certificate.classes.tolist() == [1]
    assert 0.6 * distance - 0.02 < float(certificate.radii) < distance
    assert float(certificate.radii) == pytest.approx(0.25 * NormalDist().inv_cdf(float(certificate.bounds)), abs=1e-6)


def test_it_abstains_where_the_vote_is_close() -> None:
    image = torch.full((2, 3, 8, 8), 0.5)
    certificate = Smoothing(sigma=0.25, copies=200).certify(half_space(0.0), image)
    assert certificate.classes.tolist() == [-1, -1]
    assert certificate.radii.tolist() == [0.0, 0.0]
    assert (certificate.bounds < 0.5).all()


def test_the_softmax_is_the_shares_of_the_votes() -> None:
    """A share of Phi(distance / sigma) of the copies lies on the image's own side."""
    image = torch.full((1, 3, 8, 8), 0.5)
    shares = Smoothing(sigma=0.25, copies=4000).poll(half_space(0.25), image).softmax(1)
    assert float(shares[0, 1]) == pytest.approx(NormalDist().cdf(1), abs=0.02)
    assert float(shares[0, 1] * 4000) == pytest.approx(round(float(shares[0, 1] * 4000)), abs=1e-2)
    assert Smoothing(sigma=0.0, copies=3).poll(half_space(0.25), image).softmax(1).round(decimals=6).tolist() == [
        [0.0, 1.0]
    ]


def test_copies_are_not_clamped_and_more_than_fit_at_once_are_counted() -> None:
    seen: list[Tensor] = []

    def classify(images: Tensor) -> Tensor:
        seen.append(images)
        return torch.zeros(len(images), 4)

    Smoothing(sigma=0.5, copies=250).poll(classify, torch.zeros(1, 3, 8, 8))
    copies = torch.cat(seen)
    assert len(copies) == 250
    assert max(map(len, seen)) <= 100
    assert copies.mean().abs() < 0.01
    assert float(copies.std()) == pytest.approx(0.5, abs=0.01)
    assert len(copies.flatten(1).unique(dim=0)) == 250


def test_the_class_is_chosen_on_copies_that_do_not_bound_it() -> None:
    seen: list[Tensor] = []

    def classify(images: Tensor) -> Tensor:
        seen.append(images)
        return torch.zeros(len(images), 4)

    Smoothing(copies=5, selection=5).certify(classify, torch.zeros(1, 3, 8, 8))
    assert [len(each) for each in seen] == [5, 5]
    assert not torch.equal(*seen)


def test_a_lab_classifier_vouches_for_a_clean_image() -> None:
    images = rendered((1,)).images
    certificate = Smoothing(sigma=0.1, copies=100, selection=20).certify(load_classifier("lab:robust"), images)
    assert certificate.classes.tolist() == [1]
    assert float(certificate.radii) == pytest.approx(0.1 * 1.5, abs=0.02)
