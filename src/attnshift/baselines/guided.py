"""Options of attacks that steer the sampling of a diffusion model. They are read without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from attnshift.baselines.diffusion import PromptedBaseline, check_negative_prompt
from attnshift.sizes import size_of

if TYPE_CHECKING:
    from attnshift.baselines.edits import EditInput

__all__ = ["GuidedBaseline", "Length", "Share"]

Length = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class GuidedBaseline(PromptedBaseline):
    """Attack on the way of guided sampling. It was published for generations, from noise.

    Here the way starts from the image, inverted through the last ``inverted_steps`` of
    ``schedule_steps`` under its prompt, and a constant after each step makes it end at the image
    again. So the attack edits images, and strength 0 gives them back.

    With ``start = "noise"`` it starts from drawn noise and walks the whole schedule, as published.
    Of the image only its class and its id count. Strength 0 gives its twin: the image of the same
    noise, prompt and steps, without the attack.
    """

    acts_with: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "inverted_steps": ("start", "inverted"),
        "residual": ("start", "inverted"),
    }
    start: Literal["inverted", "noise"] = "inverted"
    """Latents at the start: those of the inverted image, or noise."""
    schedule_steps: Annotated[int, Field(ge=2, le=999)] = 200
    inverted_steps: Annotated[int, Field(ge=1, le=999)] = 41
    guidance: Annotated[float, Field(ge=0)] = 3.0
    """Weight of classifier-free guidance towards the prompt."""
    residual: bool = True
    """Add to each image what the autoencoder loses of it."""

    @property
    def generates(self) -> bool:
        return self.start == "noise"

    @property
    def way(self) -> int:
        """Steps that are walked."""
        return self.schedule_steps if self.generates else self.inverted_steps

    def check(self, given: EditInput) -> None:
        from attnshift.diffusion.backbone import check_steps

        super().check(given)
        check_negative_prompt(given.backbone, self.guidance)
        options = "baseline.schedule_steps" if self.generates else "baseline.schedule_steps and inverted_steps"
        check_steps(given.backbone, self.schedule_steps, self.way, size_of(given.images), options)
