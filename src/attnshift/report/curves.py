"""Success against naturalness as the strength of an attack changes,
from the runs of a comparison."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy

from attnshift.metrics.curves import Curve, Reading, read_curves
from attnshift.metrics.statistics import Change, Estimate, holm
from attnshift.report.paired import compare_fooled
from attnshift.report.shared_images import RunTables, lost_images, shared_tables
from attnshift.report.side_by_side import SharedImage, shared_images
from attnshift.report.summary import judge_gains, summarise
from attnshift.results.rows import FailedRow
from attnshift.results.spec import RunSpec
from attnshift.results.store import Store

__all__ = ["Comparison", "ComparisonFailure", "Line", "Point", "Rival", "measure_comparison"]


@dataclass(frozen=True)
class Rival:
    """A run against the first line's of the same strength, image by image
    (``report.paired.compare_fooled``).

    ``corrected`` is its p after Holm's correction for all such tests of a comparison.
    """

    change: Change
    corrected: float


@dataclass(frozen=True)
class Point:
    """One run. ``success`` is attributable success on the judges;
    the other figures are means over its images."""

    strength: float
    run: Store
    success: Estimate
    ssim: Estimate
    psnr: Estimate
    seconds: Estimate
    rival: Rival | None = None
    """None in the first line, and at strengths that the first line does not have."""


@dataclass(frozen=True)
class Line:
    """A recipe that is compared: its runs,
    and its success where SSIM is fixed (``Comparison.at``)."""

    name: str
    points: tuple[Point, ...]
    readings: tuple[Reading, ...]


@dataclass(frozen=True)
class Comparison:
    """``lines`` over the same ``images``, which all runs have; each line is compared to the first.

    ``spec`` is that of the first run. An image that failed in one run is in no figure of any run:
    of the ``planned`` images those in ``failures`` are missing. ``judges`` measure success;
    ``aside`` are judges behind a defence, whose verdicts the runs hold and which count only where
    there are no others.
    """

    lines: tuple[Line, ...]
    judges: tuple[str, ...]
    at: tuple[float, ...]
    images: int
    planned: int
    aim: str
    """``Summary.aim`` of the runs."""
    spec: RunSpec
    aside: tuple[str, ...] = ()
    failures: tuple[ComparisonFailure, ...] = ()
    shown: tuple[SharedImage, ...] = ()
    """Images after the attack of each line, at the strength of ``nearest``."""

    @property
    def missing(self) -> str:
        """A sentence without its full stop; nothing where no image failed."""
        return lost_images(self.images, self.planned)

    def nearest(self, line: Line) -> Point:
        """The run of ``line`` whose mean SSIM lies nearest to the first of ``at``."""
        return _nearest(line.points, self.at)


@dataclass(frozen=True)
class ComparisonFailure:
    """An image that failed in one run, and why."""

    name: str
    strength: float
    file: str
    reason: str


def measure_comparison(
    runs: Mapping[str, Mapping[float, Store]], judges: Sequence[str], at: Sequence[float]
) -> Comparison:
    """Compare finished ``runs`` (name -> strength -> run) by ``judges`` alone,
    and where SSIM is one of ``at``.

    The judges without a defence count, or all of them where each has one
    (``results.roles.counted_judges``). Images are paired by file, label and target, since a recipe
    that is given masks has other ids for them. Only images that all runs have attacked count; a
    ``RunError`` where there is none.
    """
    stores = [store for line in runs.values() for store in line.values()]
    tables, judges, aside = shared_tables(stores, judges)
    curves = [_curve([tables[store.folder] for store in line.values()], judges) for line in runs.values()]
    readings = [read_curves(curves, each) for each in at]
    rivals = _rivals(runs, tables, judges)
    lines = [
        Line(
            name,
            tuple(
                _point(strength, store, tables[store.folder], rivals.get(store.folder))
                for strength, store in line.items()
            ),
            tuple(each[place] for each in readings),
        )
        for place, (name, line) in enumerate(runs.items())
    ]
    chosen = {line.name: _nearest(line.points, at).run for line in lines}
    aim = summarise(tables[stores[0].folder].results, [], []).aim
    return Comparison(
        tuple(lines),
        tuple(judges),
        tuple(at),
        len(tables[stores[0].folder].ids),
        stores[0].planned(),
        aim,
        stores[0].spec(),
        tuple(aside),
        tuple(_failures(runs)),
        shared_images({name: (store, tables[store.folder]) for name, store in chosen.items()}, judges),
    )


def _nearest(points: Sequence[Point], at: Sequence[float]) -> Point:
    return min(points, key=lambda each: abs(each.ssim.value - (at[0] if at else 1.0)))


def _failures(runs: Mapping[str, Mapping[float, Store]]) -> Iterator[ComparisonFailure]:
    for name, line in runs.items():
        for strength, store in line.items():
            for row in store.table(FailedRow):
                yield ComparisonFailure(name, strength, row.file, row.reason)


def _curve(line: Sequence[RunTables], judges: Sequence[str]) -> Curve:
    naturalness, success = [], []
    for tables in line:
        ids = tables.ids
        similarity = {row.id: row.values["ssim"] for row in tables.quality if row.arm == "attack"}
        naturalness.append([similarity[each] for each in ids])
        success.append(judge_gains(judges, ids, tables.seen))
    return Curve(numpy.array(naturalness), numpy.array(success))


def _rivals(
    runs: Mapping[str, Mapping[float, Store]], tables: Mapping[Path, RunTables], judges: Sequence[str]
) -> dict[Path, Rival]:
    first, *others = runs.values()
    changes: dict[Path, Change] = {}
    for strength, store in ((strength, store) for line in others for strength, store in line.items()):
        if strength in first:
            old, new = tables[first[strength].folder], tables[store.folder]
            changes[store.folder] = compare_fooled(judges, (old.ids, new.ids), (old.seen, new.seen))
    corrected = holm([change.p for change in changes.values()])
    return {folder: Rival(changes[folder], p) for folder, p in zip(changes, corrected, strict=True)}


def _point(strength: float, store: Store, tables: RunTables, rival: Rival | None) -> Point:
    summary = summarise(tables.results, tables.verdicts, tables.quality)
    assert summary.judges is not None
    quality = summary.quality["attack"]
    return Point(strength, store, summary.judges.attributable, quality["ssim"], quality["psnr"], summary.seconds, rival)
