"""Figures of maps that are written by hand."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import torch

from attnshift.attention.selection import Selection
from attnshift.sizes import Size
from attnshift.studies.inspection.maps import MapFigures, map_figures
from attnshift.studies.inspection.probes import Group, MapProbe
from attnshift.types import Branch, Site

if TYPE_CHECKING:
    from torch import Tensor

SITE = Site("up", "cross", "up", Size.of(2), 2)
GROUP = Group("cross", "up", 2, 2, "quarter")


def figures(values: Tensor, shown: Tensor | None, head: int = -1) -> MapFigures:
    """Of a map [heads,side,side] of one token beside another one, in a picture of 8 x 8 pixels."""
    own = values.flatten(1)[None, :, :, None]
    branch = Branch(torch.zeros(1, 4, 8, 8), torch.zeros(1, 3, 8, 8), {SITE: (torch.cat([1 - own, own], -1),)})
    probe = MapProbe((SITE,), GROUP.selection(head), GROUP, head)
    (found,) = map_figures(branch, [probe], (1,), 0, shown)
    return found


def test_a_map_on_the_object() -> None:
    values = torch.tensor([[0.1, 0.1], [0.1, 0.5]]).expand(2, 2, 2)
    shown = torch.zeros(1, 8, 8)
    shown[:, 4:, 2:] = 1.0
    found = figures(values, shown)
    assert found.mass == pytest.approx(0.2)
    assert found.peak_inside is True
    assert found.share_inside == pytest.approx((0.5 + 0.5 * 0.1) / 0.8)
    assert found.area == pytest.approx(24 / 64)


def test_the_middle_of_a_position_counts_and_not_its_corner() -> None:
    values = torch.tensor([[0.5, 0.1], [0.1, 0.1]]).expand(2, 2, 2)
    shown = torch.zeros(1, 8, 8)
    shown[:, 2:, 2:] = 0.6
    assert figures(values, shown).peak_inside is True
    shown[:, 2, 2] = 0.4
    assert figures(values, shown).peak_inside is False


def test_entropy_of_a_flat_map_and_of_a_point() -> None:
    flat, point = torch.full((2, 2, 2), 0.25), torch.tensor([[1.0, 0.0], [0.0, 0.0]]).expand(2, 2, 2)
    assert figures(flat, None).entropy == pytest.approx(1.0)
    assert figures(point, None).entropy == pytest.approx(0.0, abs=1e-6)
    both = torch.stack([point[0], point[1].flip(0)])
    assert figures(both, None).entropy == pytest.approx(math.log(2) / math.log(4), abs=1e-6)
    assert figures(both, None, head=1).entropy == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("shown", [None, torch.zeros(1, 8, 8)])
def test_without_an_object_nothing_is_said_about_it(shown: Tensor | None) -> None:
    found = figures(torch.rand(2, 2, 2), shown)
    assert (found.peak_inside, found.share_inside, found.area) == (None, None, None)


def test_a_selection_is_of_one_place_grid_head_and_step() -> None:
    assert GROUP.selection(1, 3) == Selection(("up",), "quarter", (3, 3), (0.0, 1.0))
