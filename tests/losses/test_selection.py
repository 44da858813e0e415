"""Which sites and steps a term reads."""

from __future__ import annotations

import pytest

from attnshift.errors import RecipeError
from attnshift.losses.selection import Selection
from attnshift.types import Kind, Place
from contracts.observations import LATENT_SIDE, SITES


def chosen(selection: Selection, kind: Kind = "cross") -> list[tuple[Place, int]]:
    sites = selection.sites(SITES, kind, LATENT_SIDE)
    assert all(site.kind == kind for site in sites)
    return [(site.place, site.side) for site in sites]


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
    sites = Selection(grid="quarter").sites(SITES, "cross", 7)
    assert {site.side for site in sites} == {2}


def test_empty_selection_says_what_there_is() -> None:
    message = (
        r"no self-attention site at places \['mid'\] and grid 'full'; the model has down 2x2, down 4x4, down 8x8, "
        r"mid 1x1, up 2x2, up 4x4, up 8x8"
    )
    with pytest.raises(RecipeError, match=message):
        Selection(("mid",), "full").sites(SITES, "self", LATENT_SIDE)


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
