"""Places of all parts of the figure of a comparison,
in the units of its SVG; the template draws them.

A line differs from the others by its marker, its dashes and its name, also without colours.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from attnshift.report.curves import Comparison, Point
from attnshift.report.figures import decimal, number, percent

__all__ = ["DrawnLine", "Label", "Mark", "Plot", "Style", "Tick", "plot", "style", "ticks"]

WIDTH, HEIGHT = 480, 360
LEFT, RIGHT, TOP, BOTTOM = 62, 454, 44, 306
"""Edges of the area with the curves; around it there is room for text
of the size that a phone needs."""

_LETTER, _TEXT = 8.6, 17
"""Width of a letter and height of a line on a phone."""
_LONGEST = 20

_COLOURS = tuple(f"var(--series-{number})" for number in range(6))
"""Colours of page.css, which have a light and a dark form."""
_DASHES = ("", "7 4", "2 3", "10 3 2 3", "5 2")
_MARKERS = (
    "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0 -10 0z",
    "M-4.5 -4.5h9v9h-9z",
    "M0 -6L5.5 4H-5.5z",
    "M0 -6.5L5 0L0 6.5L-5 0z",
    "M0 6L5.5 -4H-5.5z",
    "M-1.7 -5.5h3.4v3.8h3.8v3.4h-3.8v3.8h-3.4v-3.8h-3.8v-3.4h3.8z",
)


@dataclass(frozen=True)
class Style:
    """``marker`` is a path around 0; every seventh line has the first marker again, but hollow."""

    colour: str
    dashes: str
    marker: str
    hollow: bool


@dataclass(frozen=True)
class Tick:
    place: float
    text: str


@dataclass(frozen=True)
class Mark:
    """A point with its interval from ``low`` to ``high``,
    all in units of the figure, and its words."""

    x: float
    y: float
    low: float
    high: float
    words: str


@dataclass(frozen=True)
class Label:
    x: float
    y: float
    anchor: str
    text: str


@dataclass(frozen=True)
class DrawnLine:
    name: str
    style: Style
    marks: tuple[Mark, ...]
    """In the order of SSIM."""
    label: Label

    @property
    def points(self) -> str:
        return " ".join(f"{mark.x:.1f},{mark.y:.1f}" for mark in self.marks)


@dataclass(frozen=True)
class Plot:
    """``guides`` stand where SSIM is fixed."""

    columns: tuple[Tick, ...]
    rows: tuple[Tick, ...]
    guides: tuple[Tick, ...]
    series: tuple[DrawnLine, ...]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = RIGHT
    top: int = TOP
    bottom: int = BOTTOM


def plot(comparison: Comparison) -> Plot:
    """SSIM to the right, attributable success upwards;
    a line none of whose points has a success is left out."""
    drawn = [
        (place, line.name, sorted((point for point in line.points if point.success.count), key=_similarity))
        for place, line in enumerate(comparison.lines)
    ]
    points = [point for *_, each in drawn for point in each]
    similarities = [*map(_similarity, points), *comparison.at]
    columns = ticks(min(similarities, default=0.0), max(similarities, default=1.0))
    rows = ticks(
        min([0.0, *(point.success.low for point in points)]), max([0.1, *(point.success.high for point in points)])
    )
    across, up = _Axis(columns, LEFT, RIGHT), _Axis(rows, BOTTOM, TOP)
    marked = [(place, name, tuple(_mark(name, each, across, up) for each in own)) for place, name, own in drawn if own]
    digits = max(len(decimal(value)) - len("0.") for value in columns)
    labels = _labels([(_short(name), marks) for _, name, marks in marked])
    return Plot(
        tuple(Tick(across(value), decimal(value, digits)) for value in columns),
        tuple(Tick(up(value), f"{round(100 * value, 6):g} %") for value in rows),
        tuple(Tick(across(value), decimal(value)) for value in comparison.at),
        tuple(
            DrawnLine(name, style(place), marks, label)
            for (place, name, marks), label in zip(marked, labels, strict=True)
        ),
    )


def style(place: int) -> Style:
    """Colour, dashes and marker of the line at ``place``, from 0."""
    return Style(
        _COLOURS[place % len(_COLOURS)],
        _DASHES[place % len(_DASHES)],
        _MARKERS[place % len(_MARKERS)],
        hollow=place // len(_MARKERS) % 2 == 1,
    )


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round values, evenly spaced, the first not above ``low`` and the last not below ``high``.

    >>> ticks(0.83, 0.97)
    [0.825, 0.85, 0.875, 0.9, 0.925, 0.95, 0.975]
    """
    magnitude = 10 ** math.floor(math.log10(max(high - low, 1e-3) / most))
    spans = ((factor * magnitude, *_around(low, high, factor * magnitude)) for factor in (1, 2, 2.5, 5, 10, 20))
    step, first, last = next(span for span in spans if span[2] - span[1] <= most)
    return [round(step * each, 9) for each in range(first, max(last, first + 1) + 1)]


def _around(low: float, high: float, step: float) -> tuple[int, int]:
    """The multiples of ``step`` next to ``low`` and ``high``;
    rounding makes no values of their own."""
    return math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)


@dataclass(frozen=True)
class _Axis:
    """From the values between the first and the last of ``marked``
    to places between ``start`` and ``end``."""

    marked: Sequence[float]
    start: float
    end: float

    def __call__(self, value: float) -> float:
        first, last = self.marked[0], self.marked[-1]
        return self.start + (value - first) / (last - first) * (self.end - self.start)


def _similarity(point: Point) -> float:
    return point.ssim.value


def _mark(name: str, point: Point, across: _Axis, up: _Axis) -> Mark:
    success = point.success
    words = f"{name}, strength {point.strength:g}: {percent(success)} at SSIM {number(point.ssim)}"
    return Mark(across(point.ssim.value), up(success.value), up(success.low), up(success.high), words)


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"


_Marks = tuple[Mark, ...]
_Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""


def _labels(lines: Sequence[tuple[str, _Marks]]) -> list[Label]:
    """A place for each name beside one of its own marks where it covers as little
    as can be, other names least."""
    ink = [spot for _, marks in lines for spot in _ink(marks)]
    taken: list[_Box] = []
    labels = []
    for name, marks in lines:
        places = [each for mark in marks for each in _beside(mark, name)]
        best = min(places, key=lambda label: _covers(_box(label), ink, taken))
        taken.append(_box(best))
        labels.append(best)
    return labels


def _beside(mark: Mark, name: str) -> Iterator[Label]:
    for anchor, x in (("start", mark.x + 9), ("end", mark.x - 9), ("middle", mark.x)):
        for y in (mark.y - 9, mark.y + _TEXT, mark.y + 5):
            yield Label(x, y, anchor, name)


def _box(label: Label) -> _Box:
    width = _LETTER * len(label.text)
    left = label.x - {"start": 0.0, "middle": width / 2, "end": width}[label.anchor]
    return left, label.y - 0.8 * _TEXT, left + width, label.y + 0.2 * _TEXT


def _ink(marks: _Marks) -> Iterator[tuple[float, float]]:
    """Spots all over the line, its markers and its intervals."""
    for mark in marks:
        yield from ((mark.x + across, mark.y + down) for across in (-5, 0, 5) for down in (-5, 0, 5))
        yield from _between((mark.x, mark.low), (mark.x, mark.high))
    for one, other in pairwise(marks):
        yield from _between((one.x, one.y), (other.x, other.y))


def _between(start: tuple[float, float], end: tuple[float, float]) -> Iterator[tuple[float, float]]:
    steps = 1 + int(math.dist(start, end) / 5)
    for step in range(steps + 1):
        share = step / steps
        yield start[0] + share * (end[0] - start[0]), start[1] + share * (end[1] - start[1])


def _covers(box: _Box, ink: Sequence[tuple[float, float]], taken: Sequence[_Box]) -> float:
    left, top, right, bottom = box
    outside = left < LEFT or right > RIGHT or top < TOP or bottom > BOTTOM
    names = sum(left < other[2] and other[0] < right and top < other[3] and other[1] < bottom for other in taken)
    return 10_000 * outside + 100 * names + sum(left <= x <= right and top <= y <= bottom for x, y in ink)
