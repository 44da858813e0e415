"""AdvDiff: guidance towards a wrong class at the end of sampling. Its options are read without
torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from attnshift.baselines.guided import GuidedBaseline, Length, Share

if TYPE_CHECKING:
    from attnshift.baselines.edits import Edit, EditInput

__all__ = ["AdvDiff", "AdvDiffFromNoise"]


@dataclass(frozen=True)
class AdvDiff(GuidedBaseline):
    """AdvDiff: Dai et al. (ECCV 2024), from the inverted image.

    After each guided step the latents move along the gradient of log p of a wrong class, the most
    likely one. At the end of the way the start moves along the gradient there, and a new round
    begins, until the surrogates are fooled.

    ``decoded = "noisy"``, ``aim = "step"`` and ``relative = false`` with ``scale = 1.0`` and
    ``start_scale = 0.5`` are the released steps.
    """

    lengths: ClassVar[tuple[str, ...]] = ("scale", "start_scale")
    scale: Length = 0.005
    """Length of the move after each guided step (the paper's s)."""
    start_scale: Length = 0.0025
    """Length of the move of the start after each round (the paper's a)."""
    relative: bool = True
    """Whether lengths are shares of the latents' own norm, or factors on the gradient."""
    rounds: Annotated[int, Field(ge=1, le=1000)] = 5
    """Attempts, each from the start that the one before has moved."""
    guided_share: Share = 1.0
    """Part of the way, from its end, whose steps are guided; the very last step is not."""
    decoded: Literal["preview", "noisy"] = "preview"
    """The latents that classifiers see decoded: those predicted for the end of the way, or the
    noisy ones."""
    aim: Literal["round", "step"] = "round"
    """Whether the wrong class is chosen once in a round, or at each step anew."""

    def prepare(self, given: EditInput) -> Edit:
        from attnshift.baselines.rounds import prepare_rounds

        return prepare_rounds(self, given)


@dataclass(frozen=True)
class AdvDiffFromNoise(AdvDiff):
    """AdvDiff from noise, as published: the last fifth of all steps is guided."""

    start: Literal["inverted", "noise"] = "noise"
    guided_share: Share = 0.2
