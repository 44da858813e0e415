"""Where the time went, told by a clock that only moves when a part of the attack says so."""

from __future__ import annotations

import pytest
import torch

from attnshift import profiling
from attnshift.profiling import PARTS, Profile, part, profiled, time_backward, timed


class Clock:
    now = 0.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(profiling, "_now", lambda: clock.now)
    return clock


def test_every_second_counts_once_and_for_the_innermost_part(clock: Clock) -> None:
    with profiled() as seen:
        clock.now += 1
        with part("bookkeeping"):
            clock.now += 2
            with part("fusion"):
                clock.now += 4
                with part("classifiers"):
                    clock.now += 8
                clock.now += 16
            clock.now += 32
        clock.now += 64
    clock.now += 128
    counted = {name: seconds for name, seconds in seen.seconds.items() if seconds}
    assert counted == {"storing": 65, "bookkeeping": 34, "fusion": 20, "classifiers": 8}
    assert seen.whole == 127
    assert seen.iterations == 62


def test_what_iterations_are_made_of_belongs_to_others_outside_of_them(clock: Clock) -> None:
    with profiled() as seen, part("controls"):
        with part("denoising"):
            clock.now += 1
        with part("inversion"):
            clock.now += 2
    assert (seen.seconds["controls"], seen.seconds["inversion"], seen.seconds["denoising"]) == (1, 2, 0)


def test_parts_are_closed_by_exceptions(clock: Clock) -> None:
    def broken() -> None:
        with part("loading"):
            clock.now += 1
            raise ValueError("broken")

    with profiled() as seen:
        with pytest.raises(ValueError, match="broken"):
            broken()
        clock.now += 2
    assert (seen.seconds["loading"], seen.seconds["storing"]) == (1, 2)


def test_nothing_happens_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden() -> float:
        raise AssertionError("a clock was read")

    monkeypatch.setattr(profiling, "_now", forbidden)
    tensor = torch.ones(1, requires_grad=True) * 1
    function = torch.nn.Identity()
    with part("bookkeeping"):
        time_backward("denoising", tensor)
    assert timed("classifiers", function) is function
    assert not tensor._backward_hooks


def test_profile_starts_with_every_part() -> None:
    assert tuple(Profile().seconds) == PARTS
