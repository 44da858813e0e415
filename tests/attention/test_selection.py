"""Which sites and steps a term reads."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch

from attnshift.attention.maps import site_maps
from attnshift.attention.selection import Selection
from attnshift.errors import RecipeError
from attnshift.sizes import Size
from attnshift.testing.observations import HEADS, LATENTS, REFERENCE, RUNNING, SITES
from attnshift.types import Site

if TYPE_CHECKING:
    from attnshift.types import Kind, Place


def chosen(selection: Selection, kind: Kind = "cross") -> list[tuple[Place, int]]:
    sites = selection.sites(SITES, kind, LATENTS)
    assert all(site.kind == kind for site in sites)
    return [(site.place, site.grid.rows) for site in sites]


def test_default_is_down_and_up_at_a_quarter() -> None:
    assert chosen(Selection()) == [("down", 2), ("up", 2)]
    assert chosen(Selection(), "self") == [("down", 2), ("up", 2)]


@pytest.mark.parametrize(("grid", "side"), [("full", 8), ("half", 4), ("quarter", 2)])
def test_grids(grid: str, side: int) -> None:
    assert chosen(Selection(grid=grid)) == [("down", side), ("up", side)]  # type: ignore[arg-type]


def test_everything() -> None:
    assert chosen(Selection(("down", "mid", "up"), "all")) == [
        ("down", 8), ("down", 4), ("down", 2), ("mid", 1), ("up", 2), ("up", 4), ("up", 8),
    ]  # fmt: skip


def test_grid_of_an_odd_latent_is_rounded_up() -> None:
    """A stride of two turns a side of 7 into 4, and 4 into 2."""
    sites = Selection(grid="quarter").sites(SITES, "cross", Size.of(7))
    assert {site.grid.rows for site in sites} == {2}


def test_empty_selection_says_what_there_is() -> None:
    message = (
        r"no self-attention site at places \['mid'\] and grid 'full'; the model has down 2x2, down 4x4, down 8x8, "
        r"mid 1x1, up 2x2, up 4x4, up 8x8"
    )
    with pytest.raises(RecipeError, match=message):
        Selection(("mid",), "full").sites(SITES, "self", LATENTS)


@pytest.mark.parametrize(
    ("steps", "indices"),
    [((0, -1), [0, 1, 2, 3, 4]), ((1, 3), [1, 2, 3]), ((4, 4), [4]), ((0, 0), [0]), ((-2, -1), [3, 4])],
)
def test_window_includes_both_ends(steps: tuple[int, int], indices: list[int]) -> None:
    assert list(Selection(steps=steps).window(range(5))) == indices


@pytest.mark.parametrize("steps", [(3, 1), (5, -1), (7, 9)])
def test_window_without_a_step_is_an_error(steps: tuple[int, int]) -> None:
    with pytest.raises(RecipeError, match="steps"):
        Selection(steps=steps).window(range(5))


def test_sites_in_other_views_are_not_offered() -> None:
    everything = Selection(("down", "mid", "up"), "all")
    for available in (RUNNING, (*REFERENCE, *RUNNING)):
        assert everything.sites(available, "cross", LATENTS) == everything.sites(SITES, "cross", LATENTS)
    others = tuple(site for site in (*RUNNING, *REFERENCE) if site.view != "prompt")
    with pytest.raises(RecipeError, match="no cross-attention site"):
        everything.sites(others, "cross", LATENTS)


def test_shares_of_heads_are_scaled_to_sum_to_1() -> None:
    maps = torch.zeros(5, 3, 4, 4)
    shares = Selection(heads=(1.0, 0.0, 3.0)).head_weights(maps, 1)
    torch.testing.assert_close(shares, torch.tensor([0.25, 0.0, 0.75]).view(1, 3, 1, 1))


@pytest.mark.parametrize("count", [1, 2, 8])
def test_heads_without_weights_count_the_same(count: int) -> None:
    maps = torch.zeros(2, 7, count)
    torch.testing.assert_close(Selection().head_weights(maps, 2), torch.full((1, 1, count), 1 / count))
    assert Selection(heads=()).sites(SITES, "cross", LATENTS)


@pytest.mark.parametrize("weights", [(1.0,), (1.0, 2.0, 3.0)])
def test_weights_of_another_number_of_heads_name_both_numbers(weights: tuple[float, ...]) -> None:
    with pytest.raises(RecipeError, match=rf"{len(weights)} head weights .* have {HEADS} heads") as caught:
        Selection(heads=weights).sites(SITES, "cross", LATENTS)
    assert "\n" not in str(caught.value)
    assert str(list(weights)) in str(caught.value)


def test_weights_have_to_fit_every_selected_site_and_no_other() -> None:
    mixed = tuple(replace(site, heads=8) if site.grid.rows == 4 else site for site in SITES)
    weights = (1.0,) * HEADS
    assert Selection(grid="quarter", heads=weights).sites(mixed, "cross", LATENTS)
    with pytest.raises(RecipeError, match=r"2 head weights .* have 8 heads"):
        Selection(grid="all", heads=weights).sites(mixed, "cross", LATENTS)
    with pytest.raises(RecipeError, match=r"3 head weights .* have 2 or 8 heads"):
        Selection(grid="all", heads=(1.0, 1.0, 1.0)).sites(mixed, "cross", LATENTS)


def test_weights_that_are_all_0_are_an_error() -> None:
    with pytest.raises(RecipeError, match=r"head weights \[0.0, 0.0\] .* all of them are 0"):
        Selection(heads=(0.0, 0.0)).sites(SITES, "cross", LATENTS)
    assert Selection(heads=(0.0, 1e-3)).sites(SITES, "cross", LATENTS)


def test_a_grid_that_is_not_square_is_read_row_by_row_and_chosen_by_both_sides() -> None:
    wide = Site("up", "cross", "up", Size(2, 3), 1)
    maps = torch.zeros(1, 1, 6, 4)
    maps[0, 0, 4, 1] = 1
    found = site_maps({wide: (maps,)}, wide, Selection(), (1,), 0)
    assert found[0, 0, 0].tolist() == [[0, 0, 0], [0, 1, 0]]
    others = (wide, replace(wide, layer="tall", grid=Size(3, 2)), replace(wide, layer="fine", grid=Size(4, 6)))
    assert Selection(grid="quarter").sites(others, "cross", Size(7, 11)) == (wide,)
