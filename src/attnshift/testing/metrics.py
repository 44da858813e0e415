"""The contracts of metrics of images and of sets, of measures of visibility and of features."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from attnshift.metrics import FEATURES, METRICS, SETS
from attnshift.metrics.metrics import Metric
from attnshift.registry import check
from attnshift.testing.models import pictures
from attnshift.testing.requirements import require, require_close, require_finite, require_shape

if TYPE_CHECKING:
    from attnshift.metrics.features import Features
    from attnshift.metrics.sets import SetMetric

__all__ = ["check_features", "check_metric", "check_set_metric", "check_visibility", "paired_features"]


def check_metric(metric: Metric, side: int = 64) -> None:
    """Hold a metric to its contract, on three pairs of images of ``side`` pixels.

    A metric may have the attributes ``higher_is_better`` and ``differentiable``; then what they
    state must hold.

    ``UnavailableError`` passes: the metric cannot be computed here, and says why.
    """
    check(METRICS, getattr(metric, "__name__", "metric"), metric)
    reference = pictures(3, side)
    candidate = (reference + 0.1 * torch.randn(reference.shape, generator=torch.Generator().manual_seed(1))).clamp(0, 1)
    together = metric(reference, candidate)
    require_shape(together, (3,), "the value")
    require_finite(together, "the value of images that differ")
    for at in range(3):
        alone = metric(reference[at : at + 1], candidate[at : at + 1])
        require_close(alone, together[at : at + 1], "a pair has another value when it is alone", rtol=1e-4)
    equal = metric(reference, reference)
    require(not equal.isnan().any(), "equal images have no value")
    require(not torch.equal(equal, together), "images that differ have the value of equal ones")
    direction = getattr(metric, "higher_is_better", None)
    if direction is not None:
        worse = together < equal if direction else together > equal
        require(worse.all(), f"higher_is_better is {direction}, and images that differ are better than equal ones")
    if getattr(metric, "differentiable", False):
        for edit in (reference, candidate):
            leaf = edit.clone().requires_grad_()
            (slope,) = torch.autograd.grad(metric(reference, leaf).sum(), leaf)
            require_finite(slope, "the gradient")


def check_set_metric(metric: SetMetric) -> None:
    """Hold a metric of sets to its contract,
    on the features of 60 made-up images and of their edits."""
    check(SETS, type(metric).__name__, metric)
    require(metric.features in FEATURES, f"its features are '{metric.features}'; known: {', '.join(FEATURES)}")
    require(metric.least(8) > 0, "its least number of images is not positive")
    first, second = paired_features()
    require(abs(metric(first, first).value) < 1e-9, "equal sets have a distance")
    distances = [metric(*paired_features(shift=shift, noise=0.2)).value for shift in (0, 0.3, 1)]
    require(distances == sorted(distances), "a greater change has no greater distance")
    order = torch.randperm(60, generator=torch.Generator().manual_seed(1))
    found, expected = (
        torch.tensor([each.value, each.low, each.high], dtype=torch.float64)
        for each in (metric(first[order], second[order]), metric(first, second))
    )
    require_close(found, expected, "the order of the pairs changes the estimate", rtol=1e-6)


def paired_features(
    count: int = 60, width: int = 8, seed: int = 0, shift: float = 0.3, noise: float = 0.5
) -> tuple[Tensor, Tensor]:
    """Features of made-up images and of their edits, each [count,width] in fp32."""
    draw = torch.Generator().manual_seed(seed)
    mixed = torch.randn(count, width, generator=draw) @ torch.randn(width, width, generator=draw) / width**0.5 + 1
    return mixed, mixed + shift + noise * torch.randn(count, width, generator=draw)


def check_visibility(measure: Callable[[Tensor, Tensor, Tensor], Tensor], side: int = 64) -> None:
    """Hold a measure of visibility to its contract: a value per image,
    nan where the mask is empty."""
    clean = pictures(3, side)
    masks = torch.zeros(3, 1, side, side)
    masks[:2, :, side // 4 : side // 2, side // 4 : side // 2] = 1
    edit = clean * (1 - 0.5 * masks)
    together = measure(clean, edit, masks)
    require_shape(together, (3,), "the value")
    require_finite(together[:2], "the value of an object")
    require(together[2].isnan(), "an image without an object has a value; give nan")
    for at in range(3):
        rows = slice(at, at + 1)
        alone = measure(clean[rows], edit[rows], masks[rows])
        require_close(alone, together[rows], "an image has another value when it is alone", rtol=1e-4)
    unchanged = measure(clean, clean, masks)[:2]
    require_close(unchanged, torch.ones(2), "an unchanged object is not as visible as before, 1", rtol=1e-4)
    require((together[:2] < unchanged).all(), "a faded object is as visible as an unchanged one")


def check_features(features: Features, side: int = 64) -> None:
    """Hold features of sets to their contract:
    one fp32 vector per image that batch mates do not change.

    ``UnavailableError`` passes: weights are not there.
    """
    shown = pictures(3, side)
    with torch.no_grad():
        together = features.extract(shown)
        require_shape(together, (3, features.width), f"what {features.name} extracts")
        require(together.dtype == torch.float32, f"{features.name} gives {together.dtype}, not float32")
        require_finite(together, f"what {features.name} extracts")
        for at in range(3):
            alone = features.extract(shown[at : at + 1])
            require_close(alone, together[at : at + 1], "an image has other features when it is alone", 1e-4, 1e-4)
