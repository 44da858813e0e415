"""An inspection for people and programs: inspect.html, its two pictures, alignment.csv, maps.csv
and inspect.json."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy
from PIL import Image

from attnshift._version import __version__
from attnshift.files import atomic_write
from attnshift.metrics.statistics import Estimate
from attnshift.report.figures import chance, data_url, number, percent
from attnshift.report.inspection import AlignmentLine, InspectionSummary, MapLine
from attnshift.report.inspection_pictures import alignment_picture, map_picture
from attnshift.report.rendering import render_page
from attnshift.report.tables import Cell, FigureTable, estimate_data, write_tables
from attnshift.results.inspection import EVERY

__all__ = ["inspection_data", "inspection_tables", "write_inspection"]

_MARKS = {"aligned": "+", "against": "-", "zero": "0", "no gradient": "none"}


def write_inspection(folder: Path, summary: InspectionSummary) -> Path:
    """Write the page, the pictures and the figures into ``folder``; return the path of the page."""
    tables = inspection_tables(summary)
    pictures = {"alignment": alignment_picture(summary), "maps": map_picture(summary)}
    for name, pixels in pictures.items():
        if pixels is not None:
            atomic_write(folder / f"{name}.png", _png(pixels))
    for name, table in zip(("alignment", "maps"), tables, strict=False):
        atomic_write(folder / f"{name}.csv", (write_tables([table], "csv") + "\n").encode())
    data = json.dumps(inspection_data(summary), indent=1, allow_nan=False) + "\n"
    atomic_write(folder / "inspect.json", data.encode())
    page = render_page(
        "inspect.html.jinja",
        summary=summary,
        tables=tables,
        **{name: None if pixels is None else data_url(pixels) for name, pixels in pictures.items()},
    )
    atomic_write(folder / "inspect.html", page)
    return folder / "inspect.html"


def inspection_tables(summary: InspectionSummary, top: int = 0) -> list[FigureTable]:
    """Table of the alignment, best first and below the yardsticks; and that of the maps.

    ``top`` leaves that many terms, and of the maps only those of all heads and steps; 0 leaves all.
    """
    lines = [*summary.yardsticks, *(summary.lines[:top] if top else summary.lines)]
    maps = [line for line in summary.maps if not top or (line.head, line.step) == (EVERY, EVERY)]
    return [_alignment(summary, lines), _maps(maps)]


def inspection_data(summary: InspectionSummary) -> dict[str, Any]:
    """Every figure as data, null where there is none."""
    spec = summary.spec
    return {
        "attnshift": __version__,
        "images": summary.images,
        "pipeline": spec.run.pipeline,
        "recipe": spec.run.recipe.name,
        "size": spec.run.size,
        "surrogates": list(spec.run.surrogates),
        "tuning": list(spec.tuning),
        "reference": spec.reference or None,
        "points": list(spec.points),
        "alignment": [_line_data(summary, line) for line in (*summary.yardsticks, *summary.lines)],
        "maps": [_map_data(line) for line in summary.maps],
    }


def _alignment(summary: InspectionSummary, lines: Sequence[AlignmentLine]) -> FigureTable:
    points = tuple(f"at {each}" for each in summary.spec.points)
    columns = ("name", "reads", "", "cosine", "p (Holm)", *points, "gradient ratio", "no gradient")
    return FigureTable(columns, tuple(tuple(_alignment_row(line)) for line in lines))


def _alignment_row(line: AlignmentLine) -> Iterator[Cell | str]:
    yield line.name
    yield line.read
    yield _MARKS[line.verdict]
    yield _number(line.path)
    yield "–" if line.p is None else Cell(chance(line.p), line.p)
    for each in line.points:
        yield Cell(f"{each.value:+.3f}" if each.count else "–", each)
    yield "–" if math.isnan(line.ratio) else Cell(f"{line.ratio:.2g}", line.ratio)
    yield Cell(f"{line.dead:.0%}", line.dead)


def _maps(lines: Sequence[MapLine]) -> FigureTable:
    columns = (
        "class word's map",
        "iteration",
        "maximum on object",
        "mass on object",
        "object",
        "gain",
        "entropy",
        "mass",
    )
    rows = (
        (
            line.read,
            Cell(str(line.iteration), line.iteration),
            Cell(percent(line.peak), line.peak),
            Cell(percent(line.inside), line.inside),
            Cell(f"{line.area.value:.0%}" if line.area.count else "–", line.area),
            _number(line.gain, 2),
            _number(line.entropy),
            _number(line.mass, 4),
        )
        for line in lines
    )
    return FigureTable(columns, tuple(rows))


def _number(estimate: Estimate, digits: int = 3) -> Cell:
    return Cell(number(estimate, digits) if estimate.count else "–", estimate)


def _line_data(summary: InspectionSummary, line: AlignmentLine) -> dict[str, Any]:
    return {
        "kind": line.kind,
        "name": line.name,
        "place": line.place,
        "side": line.side,
        "head": line.head,
        "step": line.step,
        "verdict": line.verdict,
        "cosine": estimate_data(line.path),
        "points": {
            str(point): estimate_data(each) for point, each in zip(summary.spec.points, line.points, strict=True)
        },
        "p_holm": line.p,
        "ratio": None if math.isnan(line.ratio) else line.ratio,
        "no_gradient": line.dead,
    }


def _map_data(line: MapLine) -> dict[str, Any]:
    return {name: estimate_data(value) if isinstance(value, Estimate) else value for name, value in vars(line).items()}


def _png(pixels: numpy.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
