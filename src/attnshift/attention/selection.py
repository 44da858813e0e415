"""Selection of the sites, heads and denoising steps that a term reads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from attnshift.errors import RecipeError
from attnshift.registry import STRICT
from attnshift.sizes import Sides, Size
from attnshift.types import Kind, MassShare, Place, Site

__all__ = ["EVERYWHERE", "Selection"]


@dataclass(frozen=True)
class Selection:
    """Sites by place and grid, weights of their heads, a window of denoising steps, and what masses
    are shares of.

    ``grid`` says how fine the grid is beside the latents, in rows and in columns: "quarter" (7 x 7
    positions at 224 px of Stable Diffusion), "half", "full", "eighth", or "all"; where all of a
    model's sites have one grid, as in transformers, that is read in any case. ``steps`` counts from
    0; an end of -1 means the last step, included. ``heads`` are the heads' shares in a mean, scaled
    to sum to 1; empty means that all count the same. ``share`` acts on joint attention alone:
    masses are shares of the attention to the text (or to the image, between positions), or of the
    whole row.
    """

    __pydantic_config__ = STRICT
    places: tuple[Place, ...] = ("down", "up")
    """Parts of the denoiser whose sites are read."""
    grid: Literal["full", "half", "quarter", "eighth", "all"] = "quarter"
    steps: tuple[int, int] = field(default=(0, -1))
    heads: tuple[Annotated[float, Field(ge=0)], ...] = ()
    share: MassShare = "part"

    def sites(self, available: Iterable[Site], kind: Kind, latents: Sides) -> tuple[Site, ...]:
        """The selected ones among ``available`` where ``latents`` have this size; ``RecipeError``
        if there is none.

        Sites of cross-attention are read in the form in which they are offered, those of
        self-attention as maps.
        """
        offered = (site for site in available if site.kind == kind and site.view == "prompt")
        candidates = list(dict.fromkeys(site if kind == "cross" else site.mapped() for site in offered))
        parts = {"full": 1, "half": 2, "quarter": 4, "eighth": 8}
        any_grid = self.grid == "all" or len({site.grid for site in candidates}) == 1
        chosen = tuple(
            site
            for site in candidates
            if site.place in self.places and (any_grid or site.grid == Size.of(latents).shrunk(parts[self.grid]))
        )
        if not chosen:
            grids = sorted({(site.place, site.grid) for site in candidates})
            raise RecipeError(
                f"no {kind}-attention site at places {list(self.places)} and grid '{self.grid}'; "
                f"the model has {', '.join(f'{place} {grid.columns}x{grid.rows}' for place, grid in grids)}"
            )
        if self.heads:
            other = sorted({site.heads for site in chosen if site.heads != len(self.heads)})
            if other or not sum(self.heads):
                raise RecipeError(
                    f"{len(self.heads)} head weights {list(self.heads)} do not fit the selected sites"
                    + (f", which have {' or '.join(map(str, other))} heads" if other else ": all of them are 0")
                )
        return chosen

    def head_weights(self, maps: Float[Tensor, "..."], dim: int) -> Float[Tensor, "..."]:
        """Shares of the heads, which are dimension ``dim`` of ``maps``; they sum to 1 and have its
        rank."""
        count = maps.shape[dim]
        shares = maps.new_tensor(self.heads) if self.heads else maps.new_ones(count)
        return (shares / shares.sum()).view([count if at == dim else 1 for at in range(maps.ndim)])

    def window(self, steps: Sequence[object]) -> range:
        """Indices of the selected steps; ``RecipeError`` if there is none."""
        first, last = self.steps
        chosen = range(len(steps))[first : None if last == -1 else last + 1]
        if not chosen:
            raise RecipeError(f"steps {list(self.steps)} select none of the {len(steps)} denoising steps")
        return chosen


EVERYWHERE = Selection(places=("down", "mid", "up"), grid="all")
"""Every site and denoising step."""
