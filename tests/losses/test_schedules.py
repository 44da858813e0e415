"""How a weight moves over the optimisation."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from attnshift.losses.schedules import Schedule

FACTORS = st.floats(0, 10)
UNIT = st.floats(0, 1)
SHAPES = st.sampled_from(["constant", "linear", "cosine", "step"])
Shape = Literal["constant", "linear", "cosine", "step"]


@given(SHAPES, FACTORS, FACTORS, UNIT, UNIT, UNIT)
def test_factor_is_zero_outside_the_window_and_between_the_ends_inside(
    shape: Shape, start: float, end: float, one: float, other: float, progress: float
) -> None:
    window = (min(one, other), max(one, other))
    factor = Schedule(shape, start, end, window)(progress)
    if window[0] <= progress <= window[1]:
        assert min(start, end) - 1e-9 <= factor <= max(start, end) + 1e-9
    else:
        assert factor == 0


@given(st.sampled_from(["linear", "cosine", "step"]), FACTORS, FACTORS, UNIT, UNIT)
def test_ends_are_reached_at_the_ends_of_the_window(
    shape: Shape, start: float, end: float, first: float, last: float
) -> None:
    assume(first + 1e-3 < last)
    schedule = Schedule(shape, start, end, (first, last))
    assert schedule(first) == pytest.approx(start)
    assert schedule(last) == pytest.approx(end)


@given(SHAPES, st.lists(UNIT, min_size=2, max_size=5))
def test_a_rising_schedule_never_falls(shape: Shape, moments: list[float]) -> None:
    factors = [Schedule(shape, 0.3, 1.0)(each) for each in sorted(moments)]
    assert all(before <= after + 1e-12 for before, after in pairwise(factors))


@pytest.mark.parametrize(
    ("shape", "quarter", "middle"),
    [("constant", 2.0, 2.0), ("linear", 3.0, 4.0), ("cosine", 2 + 4 * (1 - 0.5**0.5) / 2, 4.0), ("step", 2.0, 6.0)],
)
def test_shapes_by_hand(shape: Shape, quarter: float, middle: float) -> None:
    schedule = Schedule(shape, 2.0, 6.0, (0.2, 0.6))
    assert schedule(0.3) == pytest.approx(quarter)
    assert schedule(0.4) == pytest.approx(middle)


@given(UNIT)
def test_default_leaves_the_weight_alone(progress: float) -> None:
    assert Schedule()(progress) == 1
