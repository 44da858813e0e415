"""Metrics of sets, against formulas in numpy, piq and torchmetrics, and by their properties."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy
import pytest
import torch
from torch import Tensor

from attnshift.testing.metrics import paired_features
from later import later

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from attnshift.metrics.sets import SetMetric

kid = later("torchmetrics.image.kid")
piq = later("piq")
piq_kid = later("piq.kid")
sets = later("attnshift.metrics.sets")


@pytest.fixture(params=["Kid", "Cmmd"])
def metric(request: pytest.FixtureRequest) -> SetMetric:
    return getattr(sets, request.param)()


def in_numpy(pair: Sequence[Tensor]) -> list[NDArray[numpy.float64]]:
    return [each.double().numpy() for each in pair]


def cubic(left: NDArray[numpy.float64], right: NDArray[numpy.float64]) -> float:
    return float((left @ right / len(left) + 1) ** 3)


def gaussian(left: NDArray[numpy.float64], right: NDArray[numpy.float64]) -> float:
    return float(numpy.exp(-((left - right) ** 2).sum() / (2 * 10**2)))


def u_statistic(kernel: object, x: NDArray[numpy.float64], y: NDArray[numpy.float64]) -> float:
    """Gretton et al. 2012, equation 4, term by term."""
    assert callable(kernel)
    count = len(x)
    terms = [
        kernel(x[i], x[j]) + kernel(y[i], y[j]) - kernel(x[i], y[j]) - kernel(x[j], y[i])
        for i in range(count)
        for j in range(count)
        if i != j
    ]
    return sum(terms) / (count * (count - 1))


def test_fid_against_the_formula() -> None:
    """Formula of Heusel et al. 2017, equation 6.

    It uses tr sqrt(AB) = tr sqrt(sqrt(A) B sqrt(A)).
    """
    pair = paired_features()
    (mean_x, mean_y) = (each.mean(0) for each in in_numpy(pair))
    (cov_x, cov_y) = (numpy.cov(each.T) for each in in_numpy(pair))
    values, vectors = numpy.linalg.eigh(cov_x)
    root = vectors @ numpy.diag(values**0.5) @ vectors.T
    shared = numpy.sqrt(numpy.linalg.eigvalsh(root @ cov_y @ root)).sum()
    expected = ((mean_x - mean_y) ** 2).sum() + numpy.trace(cov_x) + numpy.trace(cov_y) - 2 * shared
    assert sets.Fid()(*pair).value == pytest.approx(expected, rel=1e-9)


def test_fid_against_piq() -> None:
    """piq iterates towards the matrix root in fp32."""
    pair = paired_features()
    assert sets.Fid()(*pair).value == pytest.approx(float(piq.FID().compute_metric(*pair)), rel=5e-3)


def test_fid_has_no_interval() -> None:
    estimate = sets.Fid()(*paired_features())
    assert math.isnan(estimate.low)
    assert math.isnan(estimate.high)
    assert estimate.count == 60


def test_kid_against_the_formula() -> None:
    pair = paired_features(count=30)
    assert sets.Kid()(*pair).value == pytest.approx(u_statistic(cubic, *in_numpy(pair)), rel=1e-9)


def test_kid_against_piq() -> None:
    pair = [each.double() for each in paired_features()]
    x, y = pair
    kernels = (piq_kid._polynomial_kernel(*each) for each in ((x, x), (x, y), (y, y)))
    expected = piq_kid._mmd2_and_variance(*kernels, mmd_est="u-statistic")
    assert sets.Kid()(*pair).value == pytest.approx(float(expected), rel=1e-9)


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance`")
def test_kid_is_that_of_torchmetrics_without_the_values_within_pairs() -> None:
    pair = [each.double() for each in paired_features()]
    theirs = kid.KernelInceptionDistance(sets._Identity(8), subsets=1, subset_size=60)
    theirs.update(pair[0], real=True)
    theirs.update(pair[1], real=False)
    across = (pair[0] @ pair[1].T / 8 + 1) ** 3
    elsewhere = (across.sum() - across.trace()) / (60 * 59)
    assert sets.Kid()(*pair).value == pytest.approx(
        float(theirs.compute()[0] + 2 * (across.mean() - elsewhere)), rel=1e-9
    )


def test_cmmd_against_the_formula() -> None:
    pair = paired_features(count=30)
    unit = [each / numpy.linalg.norm(each, axis=1, keepdims=True) for each in in_numpy(pair)]
    assert sets.Cmmd()(*pair).value == pytest.approx(1000 * u_statistic(gaussian, *unit), rel=1e-7)


def test_cmmd_reads_directions_alone() -> None:
    first, second = paired_features()
    assert sets.Cmmd()(7 * first, second / 3).value == pytest.approx(sets.Cmmd()(first, second).value, rel=1e-6)


def test_many_images_are_added_up_in_parts(metric: SetMetric, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = paired_features()
    whole = metric(*pair)
    monkeypatch.setattr(sets, "_ROWS", 7)
    for name in ("value", "low", "high"):
        assert getattr(metric(*pair), name) == pytest.approx(getattr(whole, name), rel=1e-9)


def test_the_interval_is_the_jackknife_s(metric: SetMetric) -> None:
    """Over pairs: each is left out once."""
    first, second = paired_features(count=20)
    kept = [[place for place in range(20) if place != out] for out in range(20)]
    without = numpy.array([metric(first[places], second[places]).value for places in kept])
    error = (19 / 20 * ((without - without.mean()) ** 2).sum()) ** 0.5
    whole = metric(first, second)
    assert (whole.low, whole.high) == pytest.approx((whole.value - 1.96 * error, whole.value + 1.96 * error), rel=1e-3)


def test_edits_that_change_no_distribution_are_at_0_on_average(metric: SetMetric) -> None:
    """Each edit is close to its image; the statistic of unpaired sets would be negative."""

    def edited(seed: int) -> list[Tensor]:
        draw = torch.Generator().manual_seed(seed)
        first, noise = torch.randn(2, 20, 8, generator=draw)
        return [first + 1, 0.95 * first + (1 - 0.95**2) ** 0.5 * noise + 1]

    values = numpy.array([metric(*edited(seed)).value for seed in range(300)])
    assert abs(values.mean()) < 3 * values.std() / 300**0.5


@pytest.mark.heavy
def test_the_interval_holds_the_distance_of_many_images(metric: SetMetric) -> None:
    draw = torch.Generator().manual_seed(0)

    def edited(count: int) -> list[Tensor]:
        first, noise = torch.randn(2, count, 8, generator=draw)
        return [first + 1, first + 1.3 + 0.3 * noise]

    truth = metric(*edited(6000)).value
    held = [estimate.low <= truth <= estimate.high for estimate in (metric(*edited(100)) for _ in range(200))]
    assert sum(held) / 200 >= 0.9


def test_least_numbers_of_images() -> None:
    assert [sets.Fid().least(width) for width in (128, 2048)] == [640, 10_240]
    assert sets.Kid().least(2048) == sets.Cmmd().least(768) == 100


def test_a_scale_is_a_factor() -> None:
    pair = paired_features()
    plain, scaled = (sets.paired_mmd(lambda left, right: left @ right.T, *pair, scale=scale) for scale in (1, 5))
    assert (scaled.value, scaled.low, scaled.high) == pytest.approx((5 * plain.value, 5 * plain.low, 5 * plain.high))
