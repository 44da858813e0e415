"""Options of attacks on the noise that an image is mapped to. They are read without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from attnshift.baselines.diffusion import PromptedBaseline, check_negative_prompt

if TYPE_CHECKING:
    from attnshift.baselines.edits import EditInput

__all__ = ["MappedBaseline"]


@dataclass(frozen=True)
class MappedBaseline(PromptedBaseline):
    """Attack by signs of an accumulated gradient on the noise z_T that DDIM inversion maps an image
    to, conditional on the prompt; z_T stays within ``epsilon`` of where it was."""

    lengths: ClassVar[tuple[str, ...]] = ("epsilon", "step_size")
    pace_share: ClassVar[float]
    """Share of ``epsilon`` that a step has where its size is not given."""
    epsilon: Annotated[float, Field(gt=0, le=10)] = 0.1
    """Largest change of a value of z_T, whose values have a standard deviation of about 1."""
    step_size: Annotated[float, Field(gt=0, le=10)] | None = None
    """Change of a value in each step; None stands for the paper's share of ``epsilon``."""
    steps: Annotated[int, Field(ge=1, le=10_000)] = 10
    """Number of updates."""
    decay: Annotated[float, Field(ge=0)] = 1.0
    """Factor on the accumulated gradient in each step (the momentum's decay)."""
    schedule_steps: Annotated[int, Field(ge=2, le=999)] = 50
    """Steps of the denoising schedule."""
    guidance: Annotated[float, Field(ge=0)] = 1.0
    """Weight of classifier-free guidance towards the prompt on the way back; 1 is the conditional
    prediction alone."""
    residual: bool = True
    """Add to each image what the way back loses of it."""

    def check(self, given: EditInput) -> None:
        super().check(given)
        check_negative_prompt(given.backbone, self.guidance)

    @property
    def pace(self) -> float:
        """Change of a value in each step."""
        return self.pace_share * self.epsilon if self.step_size is None else self.step_size
