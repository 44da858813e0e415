"""Diff-PGD: PGD whose classifier sees a purified image. Its options are read without torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import Field

from attnshift.baselines.diffusion import DiffusionBaseline
from attnshift.baselines.kinds import Radius

if TYPE_CHECKING:
    from attnshift.baselines.edits import Edit, EditInput

__all__ = ["DiffPGD", "OfficialDiffPGD"]


@dataclass(frozen=True)
class DiffPGD(DiffusionBaseline):
    """Diff-PGD: Xue et al. (NeurIPS 2023), on latents.

    PGD moves the pixels within ``epsilon``, the surrogates see them purified, and the purified
    image is the result. Purification encodes, adds noise, takes ``depth`` + 1 DDIM steps under the
    empty prompt and decodes. The result leaves the ball of radius ``epsilon``.

    The defaults repair what hinders a comparison: one noise for all iterations and the result, and
    the part that purification alone loses is added again. ``OfficialDiffPGD`` has neither.
    """

    lengths: ClassVar[tuple[str, ...]] = ("epsilon", "step_size")
    epsilon: Radius = 16 / 255
    step_size: Radius | None = None
    """Change of a value in each step; None stands for an eighth of ``epsilon``."""
    steps: Annotated[int, Field(ge=1, le=10_000)] = 10
    """Number of updates."""
    depth: Annotated[int, Field(ge=0, le=49)] = 3
    """Place of the noise level on the paper's ladder of 50, from 0; so many steps follow, and
    one."""
    gradient: Literal["approximate", "exact"] = "approximate"
    """``approximate``: the Jacobian of purification counts as the identity (version 2 of the
    paper's code). ``exact``: the gradient goes back through all steps (version 1)."""
    noise: Literal["fixed", "fresh"] = "fixed"
    """``fresh``: another noise in each iteration and for the result, which no surrogate then
    saw."""
    residual: bool = True
    """Add to each image the difference of the purified images, with the attack and without."""
    random_start: bool = False
    """Start from a random image within ``epsilon``."""
    clip: Literal["steps", "end"] = "steps"
    """Whether the pixels are brought into [0,1] after each step, or only before the result."""

    @property
    def pace(self) -> float:
        """Change of a value in each step."""
        return self.epsilon / 8 if self.step_size is None else self.step_size

    @property
    def milder(self) -> Self | None:
        return replace(self, depth=self.depth - 1) if self.depth else None

    def prepare(self, given: EditInput) -> Edit:
        from attnshift.baselines.purified import prepare_purified

        return prepare_purified(self, given)


@dataclass(frozen=True)
class OfficialDiffPGD(DiffPGD):
    """Diff-PGD as its authors release it: version 2, with fresh noise and no residual."""

    noise: Literal["fixed", "fresh"] = "fresh"
    residual: bool = False
    clip: Literal["steps", "end"] = "end"
