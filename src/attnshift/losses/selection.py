"""Which sites and denoising steps a term reads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from attnshift.errors import RecipeError
from attnshift.tables import STRICT
from attnshift.types import Kind, Place, Site

__all__ = ["Selection"]


@dataclass(frozen=True)
class Selection:
    """Sites by place and grid, and a window of denoising steps.

    ``grid`` is the side of the grid relative to the latent: "quarter" (7 x 7 positions at 224 px of Stable Diffusion),
    "half", "full", "eighth", or "all". ``steps`` counts from 0; an end of -1 means the last step, included.
    """

    __pydantic_config__ = STRICT
    places: tuple[Place, ...] = ("down", "up")
    grid: Literal["full", "half", "quarter", "eighth", "all"] = "quarter"
    steps: tuple[int, int] = field(default=(0, -1))

    def sites(self, available: Iterable[Site], kind: Kind, latent_side: int) -> tuple[Site, ...]:
        """The selected ones among ``available``; ``RecipeError`` if there is none."""
        candidates = [site for site in available if site.kind == kind]
        parts = {"full": 1, "half": 2, "quarter": 4, "eighth": 8}
        chosen = tuple(
            site
            for site in candidates
            if site.place in self.places and (self.grid == "all" or site.side == -(-latent_side // parts[self.grid]))
        )
        if not chosen:
            grids = sorted({(site.place, site.side) for site in candidates})
            raise RecipeError(
                f"no {kind}-attention site at places {list(self.places)} and grid '{self.grid}'; "
                f"the model has {', '.join(f'{place} {side}x{side}' for place, side in grids)}"
            )
        return chosen

    def window(self, steps: Sequence[object]) -> range:
        """Indices of the selected steps; ``RecipeError`` if there is none."""
        first, last = self.steps
        chosen = range(len(steps))[first : None if last == -1 else last + 1]
        if not chosen:
            raise RecipeError(f"steps {list(self.steps)} select none of the {len(steps)} denoising steps")
        return chosen
