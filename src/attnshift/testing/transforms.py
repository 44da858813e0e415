"""The contract of transforms, which make views of an image."""

from __future__ import annotations

from collections.abc import Callable

import numpy
import torch

from attnshift.ensemble import TRANSFORMS
from attnshift.ensemble.transforms import Transform
from attnshift.randomness import generator
from attnshift.registry import check
from attnshift.testing.models import pictures
from attnshift.testing.requirements import require, require_close, require_finite, require_shape

__all__ = ["TRANSFORM_CHECKS", "check_transform"]

_SIDE = 24


def check_transform(transform: Transform) -> None:
    """Hold a transform to its contract, on three images of 24 pixels."""
    check(TRANSFORMS, type(transform).__name__, transform)
    for each in TRANSFORM_CHECKS:
        each(transform)


def views_are_images(transform: Transform) -> None:
    """Shape and dtype stay, values stay in [0,1], also of black and white images."""
    shown = torch.cat([pictures(1, _SIDE), torch.zeros(1, 3, _SIDE, _SIDE), torch.ones(1, 3, _SIDE, _SIDE)])
    for dtype in (torch.float32, torch.bfloat16):
        seen = transform(shown.to(dtype), _generators(0, 1, 2))
        require_shape(seen, tuple(shown.shape), "the view")
        require(seen.dtype == dtype, f"the view of {dtype} images is {seen.dtype}")
        require_finite(seen, "the view")
        require(0 <= seen.min() <= seen.max() <= 1, "the view has values outside [0,1]")


def draws_come_from_the_generators(transform: Transform) -> None:
    shown = pictures(3, _SIDE)
    torch.manual_seed(1)
    first = transform(shown, _generators(0, 1, 2))
    torch.manual_seed(2)
    again = transform(shown, _generators(0, 1, 2))
    require(torch.equal(first, again), "equal generators give another view; draw from them and from nothing else")


def batch_mates_change_no_view(transform: Transform) -> None:
    shown = pictures(3, _SIDE)
    together = transform(shown, _generators(0, 1, 2))
    for image in range(3):
        alone = transform(shown[image : image + 1], _generators(image))
        require_close(alone, together[image : image + 1], "an image has another view when it is alone")


def a_gradient_passes(transform: Transform) -> None:
    leaf = (0.2 + 0.6 * pictures(3, _SIDE)).requires_grad_()
    weights = torch.linspace(-1, 1, 3 * _SIDE * _SIDE).view(3, _SIDE, _SIDE)
    (gradient,) = torch.autograd.grad((transform(leaf, _generators(0, 1, 2)) * weights).sum(), leaf)
    require_finite(gradient, "the gradient")
    require((gradient.flatten(1).norm(dim=1) > 0).all(), "no gradient reaches an image")


TRANSFORM_CHECKS: tuple[Callable[[Transform], None], ...] = (
    views_are_images,
    draws_come_from_the_generators,
    batch_mates_change_no_view,
    a_gradient_passes,
)
"""All that ``check_transform`` tries."""


def _generators(*numbers: int) -> list[numpy.random.Generator]:
    return [generator("contract of transforms", number) for number in numbers]
