"""Momentum of the fused direction, and a limit to it."""

from __future__ import annotations

from dataclasses import replace

from jaxtyping import Float
from torch import Tensor

from attnshift.batching import batch_record, constant, image_norms, per_image, spread

__all__ = ["Momentum"]


@batch_record
class Momentum:
    """m <- decay * m + direction, each image's norm limited to ``limit`` unless that is 0; as an
    immutable record.

    Polyak's momentum on the classification alone, where MI-FGSM (Dong et al., CVPR 2018) has it. An
    optimiser with a momentum of its own wants ``decay`` 0.
    """

    decay: float = constant(default=0.0)
    limit: float = constant(default=0.0)
    past: Float[Tensor, "batch ..."] | None = per_image(default=None)

    def step(self, direction: Float[Tensor, "batch *point"]) -> tuple[Float[Tensor, "batch *point"], Momentum]:
        """The direction to follow instead of ``direction``, and the momentum after it."""
        moved = direction if self.past is None else self.decay * self.past + direction
        if self.limit:
            norms = spread(image_norms(moved).clamp(min=1e-30), moved)
            moved = moved * (self.limit / norms).clamp(max=1)
        return moved, replace(self, past=moved if self.decay else None)
