"""The figure of a comparison: everything in its place, nothing told by colour alone."""

from __future__ import annotations

import math
from itertools import combinations
from pathlib import Path

import pytest

from attnshift.report import plot as plot_module
from attnshift.report.plot import plot, style, ticks
from report.made_up_comparison import HOSTILE, made_up_comparison


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 1.0, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (-0.03, 0.31, [-0.1, 0, 0.1, 0.2, 0.3, 0.4]),
        (0.9, 0.95, [0.9, 0.91, 0.92, 0.93, 0.94, 0.95]),
    ],
)
def test_ticks_are_round_and_hold_what_is_drawn(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == expected


@pytest.mark.parametrize("value", [0.0, 0.9, 0.9512345, 1.0, -0.25])
def test_ticks_of_a_single_value(value: float) -> None:
    marked = ticks(value, value)
    assert marked[0] <= value <= marked[-1]
    assert 2 <= len(marked) <= 7


def test_marks_lie_where_they_belong(tmp_path: Path) -> None:
    """0.825 to 0.975 from left to right, -20 % to 80 % from bottom to top."""
    figure = plot(made_up_comparison(tmp_path))
    assert (figure.columns[0].text, figure.columns[-1].text) == ("0.825", "0.975")
    assert (figure.rows[0].text, figure.rows[-1].text) == ("-20 %", "80 %")
    (fast, *_) = figure.series
    strongest = fast.marks[0]
    share = (strongest.x - figure.left) / (figure.right - figure.left)
    assert 0.825 + share * 0.15 == pytest.approx(0.869)
    share = (figure.bottom - strongest.y) / (figure.bottom - figure.top)
    assert -0.2 + share * 1.0 == pytest.approx(0.62)
    assert strongest.high < strongest.y < strongest.low, "the upper end stands higher on the page"
    assert strongest.words == "fast, strength 2: 62 % [54, 70] at SSIM 0.869 [0.859, 0.879]"
    assert [mark.x for mark in fast.marks] == sorted(mark.x for mark in fast.marks)
    assert [guide.text for guide in figure.guides] == ["0.90", "0.95"]


def test_names_stand_apart_and_inside(tmp_path: Path) -> None:
    crowd = {f"recipe {each}": [(0.97 - each / 100, 0.1), (0.92, 0.3 + each / 20)] for each in range(6)}
    for lines in (crowd, {"one": [(0.9, 0.5)], "other": [(0.9, 0.5)]}):
        figure = plot(made_up_comparison(tmp_path, lines))
        boxes = [plot_module._box(each.label) for each in figure.series]
        for left, top, right, bottom in boxes:
            assert figure.left <= left < right <= figure.right
            assert figure.top <= top < bottom <= figure.bottom
        for one, other in combinations(boxes, 2):
            assert one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]


def test_a_long_name_is_cut_in_the_figure_alone(tmp_path: Path) -> None:
    series = plot(made_up_comparison(tmp_path)).series[-1]
    assert series.name == HOSTILE
    assert series.label.text == "<script>alert('x')<…"


def test_lines_differ_without_colour() -> None:
    looks = [style(place) for place in range(30)]
    assert len({(each.marker, each.hollow, each.dashes) for each in looks}) == 30


def test_a_line_without_success_is_left_out_and_the_others_keep_their_look(tmp_path: Path) -> None:
    figure = plot(made_up_comparison(tmp_path, {"none": [(0.9, math.nan)], "some": [(0.9, 0.5)]}))
    assert [(each.name, each.style) for each in figure.series] == [("some", style(1))]
    assert plot(made_up_comparison(tmp_path, {"none": [(0.9, math.nan)]})).series == ()
