"""The order in which denoising visits its steps: each once, or some several times (time travel)."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Visit", "visits"]


@dataclass(frozen=True)
class Visit:
    """One evaluation of a step.

    ``number`` counts the visits of a way, ``index`` the steps of its schedule, and ``left`` those
    that follow. ``again``: noise is added afterwards, and the step is visited once more.
    ``straight``: it goes to the last level at once, and ends the way.
    """

    number: int
    index: int
    left: int
    again: bool
    straight: bool = False


def visits(steps: int, passes: int = 1, travelled: tuple[float, float] = (0.0, 1.0)) -> tuple[Visit, ...]:
    """The visits of a way of so many ``steps``.

    A step whose share of the steps that follow it lies within ``travelled`` is visited ``passes``
    times (time travel), others once.
    """
    low, high = travelled
    found: list[Visit] = []
    for index in range(steps):
        left = steps - 1 - index
        count = passes if low <= left / steps <= high else 1
        found += [Visit(len(found) + at, index, left, at + 1 < count) for at in range(count)]
    return tuple(found)
