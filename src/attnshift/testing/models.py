"""Small networks with random weights, and images, for checks that need them."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import cache, wraps
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from attnshift.classifiers import load_classifier
from attnshift.classifiers.classifier import Classifier
from attnshift.data.images import quantise
from attnshift.sizes import Sides, Size

if TYPE_CHECKING:
    from attnshift.diffusion.sd3 import StableDiffusion3
    from attnshift.diffusion.stable_diffusion import StableDiffusion

__all__ = ["SIDE", "pictures", "small_backbone", "small_classifier", "small_flow", "sure_classifier"]

SIDE = 64
_Made = TypeVar("_Made")


def _by_precision(make: Callable[[], _Made]) -> Callable[[], _Made]:
    """``make``, called once for each default precision of new networks."""
    made = cache(lambda precision: make())
    return wraps(make)(lambda: made(torch.get_default_dtype()))


@_by_precision
def small_backbone() -> StableDiffusion:
    """A Stable Diffusion with random weights for images of ``SIDE`` pixels."""
    from attnshift.diffusion.stable_diffusion import StableDiffusion
    from attnshift.lab.random_pipeline import random_pipeline

    return StableDiffusion(random_pipeline(size=SIDE), "small")


@_by_precision
def small_flow() -> StableDiffusion3:
    """A Stable Diffusion 3 with random weights for images of ``SIDE`` pixels."""
    from attnshift.diffusion.sd3 import StableDiffusion3
    from attnshift.lab.random_pipeline import random_flow

    return StableDiffusion3(random_flow(SIDE), "small flow")


@_by_precision
def small_classifier() -> Classifier:
    """A classifier of 1000 classes with random weights."""
    classifier = load_classifier("random:test_resnet")
    classifier.network.to(torch.get_default_dtype())
    return classifier


@_by_precision
def sure_classifier() -> Classifier:
    """``small_classifier`` with names of its classes, and logits 100 times as large, so that the
    first class's probability is near 1 and not near 1/1000."""
    network: Any = deepcopy(small_classifier().network)
    with torch.no_grad():
        for parameter in network.get_classifier().parameters():
            parameter.mul_(100)
    return replace(small_classifier(), network=network, class_names=tuple(f"thing {label}" for label in range(1000)))


def pictures(count: int = 3, size: Sides = SIDE) -> Tensor:
    """Smooth colours with some noise, [count,3,height,width], as 8-bit files hold them."""
    draw = torch.Generator().manual_seed(0)
    smooth = interpolate(torch.rand(count, 3, 4, 4, generator=draw), Size.of(size), mode="bicubic")
    return quantise((smooth + 0.05 * torch.randn(smooth.shape, generator=draw)).clamp(0, 1))
