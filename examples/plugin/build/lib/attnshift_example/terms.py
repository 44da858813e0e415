"""A loss term."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor

from attnshift import STRICT, Observation, Site
from attnshift.sizes import Size


@dataclass(frozen=True)
class ChangeTotalVariation:
    """Total variation of the change of the image (Rudin, Osher and Fatemi, Physica D 1992), from 0 up.

    The mean of |d|^``power`` over the differences d between neighbouring pixels of (attacked - clean). It keeps
    speckle out and lets smooth changes pass.
    """

    __pydantic_config__ = STRICT
    reads_interference: ClassVar[bool] = False
    holds: ClassVar[bool] = True
    power: Annotated[float, Field(ge=1, le=4)] = 2.0

    def sites(self, available: Iterable[Site], latents: Size) -> tuple[Site, ...]:
        """No attention is read."""
        return ()

    def __call__(self, observation: Observation) -> Tensor:
        change = observation.adversarial.images.float() - observation.images.float()
        rows, columns = change.diff(dim=2), change.diff(dim=3)
        return sum(each.abs().pow(self.power).mean((1, 2, 3)) for each in (rows, columns))  # type: ignore[return-value]
