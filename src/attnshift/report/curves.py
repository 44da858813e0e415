"""Success against naturalness as the strength of an attack changes, from the runs of a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy

from attnshift.errors import RunError
from attnshift.evaluation.curves import Curve, Reading, read_curves
from attnshift.evaluation.statistics import Change, Estimate, holm
from attnshift.report.paired import compare_fooled
from attnshift.report.summary import judge_gains, summarise
from attnshift.report.verdicts import counted, indexed, roles_in
from attnshift.runs.spec import RunSpec
from attnshift.runs.store import Store

__all__ = ["Comparison", "Line", "Point", "Rival", "measure"]


@dataclass(frozen=True)
class Rival:
    """A run against the first line's of the same strength, image by image (``report.paired.compare_fooled``).

    ``corrected`` is its p after Holm's correction for all such tests of a comparison.
    """

    change: Change
    corrected: float


@dataclass(frozen=True)
class Point:
    """One run. ``success`` is attributable success on the judges; the others are means over its images."""

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
    """What is compared: its runs, and what the curve through them says where SSIM is fixed (``Comparison.at``)."""

    name: str
    points: tuple[Point, ...]
    readings: tuple[Reading, ...]


@dataclass(frozen=True)
class Comparison:
    """``lines`` over the same ``images``; each is compared to the first. ``spec`` is that of the first run.

    ``judges`` measure success; ``aside`` are judges behind a defence, whose verdicts the runs hold and which count only
    where there are no others.
    """

    lines: tuple[Line, ...]
    judges: tuple[str, ...]
    at: tuple[float, ...]
    images: int
    aim: str
    """As ``Summary.aim``."""
    spec: RunSpec
    aside: tuple[str, ...] = ()


def measure(runs: Mapping[str, Mapping[float, Store]], judges: Sequence[str], at: Sequence[float]) -> Comparison:
    """Compare finished ``runs`` (name -> strength -> run) by ``judges`` alone, and where SSIM is one of ``at``.

    Of the judges those without a defence count, or all where each has one (``verdicts.counted``).
    Images are paired by their place in the plan, which all runs share; a ``RunError`` where they do not.
    """
    stores = [store for line in runs.values() for store in line.values()]
    tables = {store.folder: _tables(store, judges) for store in stores}
    known = counted(roles_in(tables[stores[0].folder].verdicts))
    judges, aside = ([each for each in judges if (each in known) == chosen] for chosen in (True, False))
    first = tables[stores[0].folder].images
    for store in stores:
        if tables[store.folder].images != first:
            raise RunError(f"{store.folder} and {stores[0].folder} do not hold the same images; compare them anew")
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
    aim = summarise(tables[stores[0].folder].results, [], []).aim
    return Comparison(tuple(lines), tuple(judges), tuple(at), len(first), aim, stores[0].spec(), tuple(aside))


@dataclass(frozen=True)
class _Tables:
    results: list[dict[str, Any]]
    verdicts: list[dict[str, Any]]
    quality: list[dict[str, Any]]

    @property
    def images(self) -> list[tuple[object, ...]]:
        return [(row["file"], row["label"], row["target"]) for row in self.results]

    @property
    def ids(self) -> list[str]:
        return [row["id"] for row in self.results]


def _tables(store: Store, judges: Sequence[str]) -> _Tables:
    rows = (row for row in store.table("verdicts") if row["role"] in ("judge", "defended"))
    verdicts = [row for row in rows if row["classifier"] in judges]
    if {row["classifier"] for row in verdicts} != set(judges):
        raise RunError(f"{store.folder} is not judged by all of {', '.join(judges)}; compare them anew")
    return _Tables(store.table("results"), verdicts, store.table("quality"))


def _curve(line: Sequence[_Tables], judges: Sequence[str]) -> Curve:
    naturalness, success = [], []
    for tables in line:
        ids = tables.ids
        similarity = {row["id"]: row["ssim"] for row in tables.quality if row["arm"] == "attack"}
        naturalness.append([similarity[each] for each in ids])
        success.append(judge_gains(judges, ids, indexed(tables.verdicts)))
    return Curve(numpy.array(naturalness), numpy.array(success))


def _rivals(
    runs: Mapping[str, Mapping[float, Store]], tables: Mapping[Path, _Tables], judges: Sequence[str]
) -> dict[Path, Rival]:
    first, *others = runs.values()
    changes: dict[Path, Change] = {}
    for strength, store in ((strength, store) for line in others for strength, store in line.items()):
        if strength in first:
            old, new = tables[first[strength].folder], tables[store.folder]
            verdicts = indexed(old.verdicts), indexed(new.verdicts)
            changes[store.folder] = compare_fooled(judges, (old.ids, new.ids), verdicts)
    corrected = holm([change.p for change in changes.values()])
    return {folder: Rival(changes[folder], p) for folder, p in zip(changes, corrected, strict=True)}


def _point(strength: float, store: Store, tables: _Tables, rival: Rival | None) -> Point:
    summary = summarise(tables.results, tables.verdicts, tables.quality)
    assert summary.judges is not None
    quality = summary.quality["attack"]
    return Point(strength, store, summary.judges.attributable, quality["ssim"], quality["psnr"], summary.seconds, rival)
