"""Figures of an inspection: the alignment of every probe, and where the class word looks, with
intervals over images."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import TypeVar

import numpy

from attnshift.metrics.statistics import Estimate, bootstrap, holm, student, wilson
from attnshift.results.inspection import EVERY, AlignmentRow, InspectionSpec, InspectionStore, MapRow, PictureRow

__all__ = ["AlignmentLine", "InspectionSummary", "MapLine", "read_of", "summarise_inspection"]

_YARDSTICKS = ("surrogate", "classification", "random")
"""Kinds with which terms are compared. They are no candidates and no tests."""

Key = TypeVar("Key")
_Grouped = TypeVar("_Grouped")


@dataclass(frozen=True)
class _Line:
    """Figures of one group of sites, or of one head or step of it (columns of ``AlignmentRow``)."""

    place: str
    side: int
    head: int
    step: int

    @property
    def read(self) -> str:
        return read_of(self.place, self.side, self.head, self.step)


@dataclass(frozen=True)
class AlignmentLine(_Line):
    """One probe. ``path`` is the mean cosine over the points of the path, ``points`` that at each
    one; nan without a gradient.

    ``p`` is that of Student's test of ``path`` against 0, corrected for all terms and directions
    (Holm); None for yardsticks. ``ratio`` is the median ratio of norms, nan without one; ``dead``
    is the share of images and points that have no gradient.
    """

    kind: str
    name: str
    path: Estimate
    points: tuple[Estimate, ...]
    p: float | None
    ratio: float
    dead: float

    @property
    def verdict(self) -> str:
        """aligned, against, zero (the interval contains 0), or no gradient."""
        if not self.path.count:
            return "no gradient"
        if self.path.low > 0:
            return "aligned"
        return "against" if self.path.high < 0 else "zero"


@dataclass(frozen=True)
class MapLine(_Line):
    """Maps of one group of sites, head and step at one point of the path; the means over images.

    ``peak`` is the share of images whose maximum lies on the object, ``inside`` the share of mass
    there, ``area`` the object's share of the picture, ``gain`` the mean of inside / area; 1 is
    chance. They have no images without masks or a reference.
    """

    iteration: int
    mass: Estimate
    entropy: Estimate
    peak: Estimate
    inside: Estimate
    area: Estimate
    gain: Estimate


@dataclass(frozen=True)
class InspectionSummary:
    """All figures of an inspection of ``images`` images; lines best first, those without a gradient
    last."""

    spec: InspectionSpec
    images: int
    yardsticks: tuple[AlignmentLine, ...]
    lines: tuple[AlignmentLine, ...]
    maps: tuple[MapLine, ...]
    pictures: tuple[PictureRow, ...]


def read_of(place: str, side: int, head: int, step: int) -> str:
    """What a row reads, in words.

    >>> read_of("up", 8, -1, 2), read_of("mid", 4, 1, -1), read_of("own", 0, -1, -1)
    ('up 8 x 8, step 2', 'mid 4 x 4, head 1', 'own')
    """
    parts = [f"{place} {side} x {side}" if side else place]
    parts += [f"head {head}"] * (head != EVERY) + [f"step {step}"] * (step != EVERY)
    return ", ".join(filter(None, parts))


def summarise_inspection(store: InspectionStore) -> InspectionSummary:
    """The figures of the tables in ``store``; a ``RunError`` where there are none yet."""
    spec, rows = store.spec(), store.table(AlignmentRow)
    order = {id: at for at, id in enumerate(dict.fromkeys(row.id for row in rows))}
    groups = _grouped(rows, lambda row: (row.kind, row.name, row.place, row.side, row.head, row.step))
    lines = [_line(each, order, spec.points) for each in groups]
    candidates = _corrected([line for line in lines if line.kind not in _YARDSTICKS])
    maps = _grouped(store.table(MapRow), lambda row: (row.place, row.side, row.head, row.step, row.iteration))
    return InspectionSummary(
        spec,
        len(order),
        tuple(line for line in lines if line.kind in _YARDSTICKS),
        tuple(sorted(candidates, key=_best_first)),
        tuple(_map_line(each) for each in maps),
        tuple(store.table(PictureRow)),
    )


def _best_first(line: AlignmentLine) -> tuple[bool, float]:
    return not line.path.count, -line.path.value if line.path.count else 0.0


def _grouped(rows: Iterable[_Grouped], key: Callable[[_Grouped], Key]) -> list[list[_Grouped]]:
    groups: dict[Key, list[_Grouped]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return list(groups.values())


def _cosines(rows: Sequence[AlignmentRow], order: dict[str, int], points: Sequence[int]) -> numpy.ndarray:
    """Cosines [points,images], nan where there is no gradient."""
    values = numpy.full((len(points), len(order)), numpy.nan)
    for row in rows:
        if row.cosine is not None:
            values[points.index(row.iteration), order[row.id]] = row.cosine
    return values


def _over_path(values: numpy.ndarray) -> numpy.ndarray:
    """Mean [images] over the points that have a gradient; nan where none has."""
    there = ~numpy.isnan(values)
    counts = there.sum(0)
    return numpy.where(counts > 0, numpy.where(there, values, 0).sum(0) / numpy.maximum(counts, 1), numpy.nan)


def _line(rows: Sequence[AlignmentRow], order: dict[str, int], points: Sequence[int]) -> AlignmentLine:
    values, first = _cosines(rows, order, points), rows[0]
    path = _over_path(values)
    tested = first.kind not in _YARDSTICKS and int((~numpy.isnan(path)).sum()) > 1
    ratios = [row.ratio for row in rows if row.ratio is not None]
    return AlignmentLine(
        first.place,
        first.side,
        first.head,
        first.step,
        first.kind,
        first.name,
        bootstrap(path),
        tuple(bootstrap(each) for each in values),
        student(path) if tested else None,
        median(ratios) if ratios else math.nan,
        sum(row.cosine is None for row in rows) / len(rows),
    )


def _corrected(lines: Sequence[AlignmentLine]) -> Iterator[AlignmentLine]:
    """The same lines; p of all that are tests is corrected."""
    tested = [line.p for line in lines if line.p is not None]
    found = iter(holm(tested))
    return (line if line.p is None else replace(line, p=next(found)) for line in lines)


def _map_line(rows: Sequence[MapRow]) -> MapLine:
    first = rows[0]
    pointed = [row for row in rows if row.peak_inside is not None]
    inside = [row.share_inside for row in pointed if row.share_inside is not None]
    area = [row.area for row in pointed if row.area is not None]
    return MapLine(
        first.place,
        first.side,
        first.head,
        first.step,
        first.iteration,
        bootstrap([row.mass for row in rows]),
        bootstrap([row.entropy for row in rows]),
        wilson(sum(bool(row.peak_inside) for row in pointed), len(pointed)),
        bootstrap(inside),
        bootstrap(area),
        bootstrap([share / each for share, each in zip(inside, area, strict=True)]),
    )
