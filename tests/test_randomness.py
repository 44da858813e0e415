"""Draws are named, not counted."""

from __future__ import annotations

import random

import numpy
import torch
from hypothesis import given
from hypothesis import strategies as st

from attnshift.randomness import generator, normal

NAMES = st.lists(st.integers(-(10**6), 10**6) | st.text(max_size=8), max_size=4)


@given(NAMES, NAMES)
def test_different_names_draw_differently_and_equal_ones_alike(one: list[int | str], other: list[int | str]) -> None:
    draws = [generator(*names).integers(2**63, size=2).tolist() for names in (one, other, one)]
    assert draws[0] == draws[2]
    assert (draws[0] == draws[1]) == (one == other)


def test_names_are_not_joined_and_not_converted() -> None:
    names: list[tuple[int | str, ...]] = [("a", "b"), ("ab",), ("a, b",), ("'a', 'b'",), (1,), ("1",), (1, 1), (11,)]
    assert len({generator(*each).random() for each in names}) == len(names)


def test_draws_are_the_same_in_every_version() -> None:
    """Results of past runs can be repeated only while these numbers hold."""
    assert generator(0, "image", 3).random() == 0.11493767180963632
    assert normal((2,), 0, "image", 3).tolist() == [-1.780643343925476, -0.39579498767852783]


def test_global_generators_are_left_alone() -> None:
    states = random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_rng_state()
    normal((3, 3), 0, "purpose")
    assert random.getstate() == states[0]
    assert numpy.random.get_state()[1].tolist() == states[1]
    assert torch.equal(torch.get_rng_state(), states[2])
    torch.manual_seed(5)
    first = normal((3,), 1)
    torch.manual_seed(6)
    assert torch.equal(normal((3,), 1), first)


def test_normal_values_are_fp32_and_standard() -> None:
    values = normal((100, 50, 4), 7, "moments")
    assert values.shape == (100, 50, 4)
    assert values.dtype == torch.float32
    assert abs(float(values.mean())) < 0.03
    assert abs(float(values.std()) - 1) < 0.03
