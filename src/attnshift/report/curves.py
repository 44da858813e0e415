"""Success against naturalness as the strength of an attack changes, from the runs of a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy

from attnshift.errors import RunError
from attnshift.evaluation.curves import Curve, Reading, read_curves
from attnshift.evaluation.statistics import Estimate
from attnshift.report.summary import indexed, judge_gains, summarise
from attnshift.runs.spec import RunSpec
from attnshift.runs.store import Store

__all__ = ["Comparison", "Line", "Point", "measure"]


@dataclass(frozen=True)
class Point:
    """One run. ``success`` is attributable success on the judges; the others are means over its images."""

    strength: float
    run: Store
    success: Estimate
    ssim: Estimate
    psnr: Estimate
    seconds: Estimate


@dataclass(frozen=True)
class Line:
    """What is compared: its runs, and what the curve through them says where SSIM is fixed (``Comparison.at``)."""

    name: str
    points: tuple[Point, ...]
    readings: tuple[Reading, ...]


@dataclass(frozen=True)
class Comparison:
    """``lines`` over the same ``images``; each is compared to the first. ``spec`` is that of the first run."""

    lines: tuple[Line, ...]
    judges: tuple[str, ...]
    at: tuple[float, ...]
    images: int
    aim: str
    """As ``Summary.aim``."""
    spec: RunSpec


def measure(runs: Mapping[str, Mapping[float, Store]], judges: Sequence[str], at: Sequence[float]) -> Comparison:
    """Compare finished ``runs`` (name -> strength -> run) by ``judges`` alone, and where SSIM is one of ``at``.

    Images are paired by their place in the plan, which all runs share; a ``RunError`` where they do not.
    """
    stores = [store for line in runs.values() for store in line.values()]
    tables = {store.folder: _tables(store, judges) for store in stores}
    first = tables[stores[0].folder].images
    for store in stores:
        if tables[store.folder].images != first:
            raise RunError(f"{store.folder} and {stores[0].folder} do not hold the same images; compare them anew")
    curves = [_curve([tables[store.folder] for store in line.values()], judges) for line in runs.values()]
    readings = [read_curves(curves, each) for each in at]
    lines = [
        Line(
            name,
            tuple(_point(strength, store, tables[store.folder]) for strength, store in line.items()),
            tuple(each[place] for each in readings),
        )
        for place, (name, line) in enumerate(runs.items())
    ]
    aim = summarise(tables[stores[0].folder].results, [], []).aim
    return Comparison(tuple(lines), tuple(judges), tuple(at), len(first), aim, stores[0].spec())


@dataclass(frozen=True)
class _Tables:
    results: list[dict[str, Any]]
    verdicts: list[dict[str, Any]]
    quality: list[dict[str, Any]]

    @property
    def images(self) -> list[tuple[object, ...]]:
        return [(row["file"], row["label"], row["target"]) for row in self.results]


def _tables(store: Store, judges: Sequence[str]) -> _Tables:
    verdicts = [row for row in store.table("verdicts") if row["role"] == "judge" and row["classifier"] in judges]
    if {row["classifier"] for row in verdicts} != set(judges):
        raise RunError(f"{store.folder} is not judged by all of {', '.join(judges)}; compare them anew")
    return _Tables(store.table("results"), verdicts, store.table("quality"))


def _curve(line: Sequence[_Tables], judges: Sequence[str]) -> Curve:
    naturalness, success = [], []
    for tables in line:
        ids = [row["id"] for row in tables.results]
        similarity = {row["id"]: row["ssim"] for row in tables.quality if row["arm"] == "attack"}
        naturalness.append([similarity[each] for each in ids])
        success.append(judge_gains(judges, ids, indexed(tables.verdicts)))
    return Curve(numpy.array(naturalness), numpy.array(success))


def _point(strength: float, store: Store, tables: _Tables) -> Point:
    summary = summarise(tables.results, tables.verdicts, tables.quality)
    assert summary.judges is not None
    quality = summary.quality["attack"]
    return Point(strength, store, summary.judges.attributable, quality["ssim"], quality["psnr"], summary.seconds)
