"""Maps of tokens, and the variance of the true class's, against calculations by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy
import pytest
import torch

from attnshift.attention.maps import phrase_map, token_maps
from attnshift.attention.selection import Selection
from attnshift.losses.attention import Variance
from attnshift.testing.observations import HEADS, LATENTS, SITES, STEPS, TOKENS, observation, with_maps

if TYPE_CHECKING:
    from attnshift.types import AttentionMaps, Site


def averaged(attention: AttentionMaps, sites: list[Site], steps: list[int], image: int, token: int) -> numpy.ndarray:
    """Mean over sites, steps and heads of one token's map, position by position."""
    side = sites[0].grid.rows
    total = numpy.zeros((side, side))
    for site in sites:
        for step in steps:
            maps = attention[site][step][image].double().numpy()
            for head in range(HEADS):
                for row in range(side):
                    for column in range(side):
                        total[row, column] += maps[head, row * side + column, token]
    return total / (len(sites) * len(steps) * HEADS)


@pytest.mark.parametrize(("grid", "side"), [("quarter", 2), ("half", 4)])
@pytest.mark.parametrize(("window", "steps"), [((0, -1), [0, 1]), ((1, 1), [1])])
def test_variance_by_hand(grid: str, side: int, window: tuple[int, int], steps: list[int]) -> None:
    observed = observation()
    sites = [site for site in SITES if site.kind == "cross" and site.grid.rows == side and site.place in ("down", "up")]
    assert len(sites) == STEPS
    values = Variance(Selection(grid=grid, steps=window))(observed)  # type: ignore[arg-type]
    for image, span in enumerate(TOKENS):
        maps = [averaged(observed.adversarial.attention, sites, steps, image, token) for token in span]
        assert float(values[image]) == pytest.approx(numpy.var(numpy.stack(maps), ddof=1), rel=1e-4)


def test_maps_of_tokens_stand_in_the_order_of_the_span_and_add_up_to_the_phrase() -> None:
    attention = observation().adversarial.attention
    selection = Selection()
    sites = list(selection.sites(SITES, "cross", LATENTS))
    maps = token_maps(attention, sites, selection, (4, 2), 1)
    for place, token in enumerate((4, 2)):
        numpy.testing.assert_allclose(maps[place], averaged(attention, sites, [0, 1], 1, token), rtol=1e-5)
    torch.testing.assert_close(phrase_map(attention, sites, selection, (4, 2), 1), maps.sum(0))


def test_smaller_grids_are_resized_to_the_largest() -> None:
    """A token that takes the same share everywhere keeps it, and a look at one corner stays in that corner."""
    observed, everywhere = observation(), Selection(("down", "mid", "up"), "all")
    sites = [site for site in SITES if site.kind == "cross"]
    maps = {site: [torch.zeros(3, HEADS, site.positions, 6) for _ in range(STEPS)] for site in sites}
    for site in sites:
        for each in maps[site]:
            each[..., 1] = 0.25
            if site.grid.rows == 2:
                each[:, :, 1, 2] = 1.0  # top right
    attention = with_maps(observed, maps).adversarial.attention  # type: ignore[arg-type]
    even, corner = token_maps(attention, sites, everywhere, (1, 2), 0)
    assert even.shape == (8, 8)
    torch.testing.assert_close(even, torch.full((8, 8), 0.25))
    assert corner[0, 7] == corner.max()
    assert corner[:4, 4:].sum() > 0.5 * corner.sum()


def test_variance_is_zero_where_attention_is_flat_and_large_where_it_is_not() -> None:
    observed = observation()
    flat = {site: [torch.full_like(each, 0.1) for each in steps] for site, steps in observed.clean.attention.items()}
    torch.testing.assert_close(Variance()(with_maps(observed, flat)), torch.zeros(3))  # type: ignore[arg-type]
    assert (Variance()(observed) > 1e-4).all()
