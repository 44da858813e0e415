"""Expectation over transformation: the views of an image over which a gradient is averaged."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from jaxtyping import Float
from torch import Tensor

from attnshift.ensemble.transforms import Transform
from attnshift.randomness import generator
from attnshift.types import RandomKey

__all__ = ["Expectation", "View", "as_it_is"]

View = Callable[[Float[Tensor, "batch 3 height width"]], Float[Tensor, "batch 3 height width"]]
"""Images in [0,1] as they might be seen, of the same shape, dtype and device."""


@dataclass(frozen=True)
class Expectation:
    """``draws`` views of every image in each iteration that is a multiple of ``every``, else one
    (both from 1 up).

    The first view is the image itself, the others chain all ``transforms``, in their order (Athalye
    et al., ICML 2018).
    """

    draws: int = 1
    every: int = 1
    transforms: Mapping[str, Transform] = field(default_factory=dict)

    def views(self, key: RandomKey) -> tuple[View, ...]:
        """The views of one iteration, pure functions of the images that ``key`` names, in that
        order.

        View ``number`` draws from (seed, id, iteration, "eot", number, name of the transform)
        and from nothing else: the same for every model, and whatever the other transforms and the
        number of views.
        """
        count = 1 if key.iteration % self.every else self.draws
        return (as_it_is, *(partial(self._transformed, key, number) for number in range(1, count)))

    def _transformed(
        self, key: RandomKey, number: int, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch 3 height width"]:
        for name, transform in self.transforms.items():
            generators = [generator(key.seed, id, key.iteration, "eot", number, name) for id in key.ids]
            images = transform(images, generators)
        return images


def as_it_is(images: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    return images
