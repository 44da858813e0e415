"""A comparison written by hand: lines through given points, without runs behind them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from attnshift.metrics.curves import Reading
from attnshift.metrics.statistics import Estimate
from attnshift.recipes.reading import load_recipe
from attnshift.report.curves import Comparison, Line, Point
from attnshift.results.spec import RunSpec
from attnshift.results.store import Store

HOSTILE = "<script>alert('x')</script> & \"recipe\" | a name that does not end for a long while"
AT = (0.9, 0.95)
MADE_UP: Mapping[str, Sequence[tuple[float, float]]] = {
    "fast": ((0.968, 0.19), (0.921, 0.47), (0.869, 0.62)),
    "diffattack": ((0.893, 0.0), (0.877, 0.02), (0.841, 0.09)),
    HOSTILE: ((0.962, 0.30), (0.905, 0.61), (0.850, 0.66)),
}
"""Name -> SSIM and success at the strengths 0.5, 1 and 2."""


def around(value: float, half: float = 0.08, count: int = 64) -> Estimate:
    return Estimate(value, value - half, value + half, count)


def made_up_comparison(folder: Path, lines: Mapping[str, Sequence[tuple[float, float]]] = MADE_UP) -> Comparison:
    """``folder`` is where its runs would lie. Every line reads 0.5 at 0.9, but none reaches 0.95."""
    readings = (Reading(0.9, around(0.5), around(0.1)), Reading(0.95, None, None, "stays below"))
    return Comparison(
        tuple(Line(name, _points(folder, name, points), readings) for name, points in lines.items()),
        ("lab:first", "lab:second"),
        AT,
        64,
        64,
        "",
        RunSpec(
            images="images",
            labels="labels.csv",
            items="0" * 16,
            pipeline="lab",
            surrogates=("lab:surrogate",),
            size=64,
            batch=8,
            device="cpu",
            threads=1,
            recipe=load_recipe("fast"),
        ),
    )


def _points(folder: Path, name: str, points: Sequence[tuple[float, float]]) -> tuple[Point, ...]:
    strengths = [0.5 * 2**place for place in range(len(points))]
    return tuple(
        Point(
            strength,
            Store(folder / "runs" / f"{name.replace('/', '')}@{strength:g}"),
            around(success, count=0 if math.isnan(success) else 64),
            around(ssim, 0.01),
            around(25.0 - strength),
            around(1.5 * strength),
        )
        for strength, (ssim, success) in zip(strengths, points, strict=True)
    )
