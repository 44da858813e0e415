"""Positions of the points of a curve."""

from __future__ import annotations

import math

from attnshift.telemetry.scalars import Scalars
from attnshift.testing.recorded import SURROGATES, begun, done, iteration


def test_points_are_means_over_the_images_that_are_left() -> None:
    points = Scalars(begun()).iteration(iteration(0, 0, 1.0, 3.0))
    assert {name: value for name, value, _ in points} == {
        "loss/classification": 2.0,
        "loss/structure": 4.0,
        f"margin/{SURROGATES[0]}": 2.0,
        f"margin/{SURROGATES[1]}": 2.0,
        f"share/{SURROGATES[0]}": 0.25,
        f"share/{SURROGATES[1]}": 0.75,
    }


def test_steps_hang_on_the_plan_alone() -> None:
    def steps(scalars: Scalars) -> list[int]:
        told = [iteration(batch, number, 1.0) for batch in (0, 1, 2) for number in (0, 1, 2)]
        return [next(iter({step for *_, step in scalars.iteration(event)})) for event in told]

    assert steps(Scalars(begun())) == [*range(9)]
    assert steps(Scalars(begun(done=3))) == [*range(9)]


def test_images_are_counted_with_those_that_were_done_before() -> None:
    scalars = Scalars(begun(done=3))
    assert scalars.image(done("a", -1.0, -1.0)) == [("image/seconds", 1.5, 4), ("image/fooled", 1.0, 4)]
    assert scalars.image(done("b", -1.0, 1.0)) == [("image/seconds", 1.5, 5), ("image/fooled", 0.0, 5)]


def test_infinities_that_meet_are_a_point_as_well() -> None:
    points = Scalars(begun()).iteration(iteration(0, 2, math.inf, -math.inf))
    assert len(points) == 2
    assert all(math.isnan(value) for _, value, _ in points)
