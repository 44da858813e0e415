"""AdvFM: PGD on the predicted end of a rectified flow. Its options are read without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from attnshift.baselines.diffusion import PromptedBaseline

if TYPE_CHECKING:
    from attnshift.baselines.edits import Edit, EditInput

__all__ = ["AdvFM"]

_DIVISIONS = 4
"""Steps of PGD from the middle of its ball to the edge, where their size is not given."""


@dataclass(frozen=True)
class AdvFM(PromptedBaseline):
    """AdvFM (CVPR 2026), from the inverted image, on a model of a rectified flow.

    The image is inverted to the noise ``start_level`` under its prompt, and a constant after each
    step makes the way back end at the image again. At each of ``schedule_steps`` even steps, PGD
    moves the predicted end of the way within ``epsilon``, and the velocity leads to the moved end.
    The surrogates see two images: that end, and the end that the next step predicts.

    The paper was not to be had. What two notes on it do not state is a choice made here.
    """

    flow: ClassVar[bool] = True
    lengths: ClassVar[tuple[str, ...]] = ("epsilon", "step_size")
    epsilon: Annotated[float, Field(gt=0, le=10)] = 0.06
    """Largest change of the predicted end in one step, in standard deviations of the image's
    latents. The paper's 4/255 is as much of an image's own deviation."""
    step_size: Annotated[float, Field(gt=0, le=10)] | None = None
    """Change of a value in each update, in the same unit; None stands for a quarter of
    ``epsilon``."""
    steps: Annotated[int, Field(ge=1, le=10_000)] = 10
    """Number of updates at each step of the way (the paper's I)."""
    schedule_steps: Annotated[int, Field(ge=1, le=999)] = 15
    """Steps of the way, evenly spaced in noise (the paper's T)."""
    start_level: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of noise at the start of the way; 1 is noise alone."""
    end_weight: Annotated[float, Field(ge=0, le=1)] = 0.3
    """Weight of the loss at the predicted end (the paper's w). The rest is that of the loss at the
    end that the next step predicts; at 1 no step looks ahead."""
    gradient: Literal["exact", "detached"] = "exact"
    """``detached``: the gradient of the look-ahead does not go back through the denoiser."""
    residual: bool = True
    """Add to each image what the autoencoder loses of it."""

    @property
    def pace(self) -> float:
        """Change of a value in each update."""
        return self.epsilon / _DIVISIONS if self.step_size is None else self.step_size

    def prepare(self, given: EditInput) -> Edit:
        from attnshift.baselines.velocities import prepare_velocities

        return prepare_velocities(self, given)
