"""A comparison for people and programs: compare.json with every figure,
compare.html with the curves, and tables."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

from attnshift.metrics.curves import Reading
from attnshift.report.comparison_files import address, comparison_facts, relative, write_files
from attnshift.report.curves import Comparison, Line, Point, Rival
from attnshift.report.figures import chance, decimal, number, percent
from attnshift.report.plot import plot, style
from attnshift.report.rendering import render_page
from attnshift.report.tables import Cell, FigureTable, estimate_data
from attnshift.results.store import Store

__all__ = ["comparison_data", "comparison_tables", "write_comparison"]


def write_comparison(folder: Path, comparison: Comparison) -> Path:
    """Write compare.json and compare.html into ``folder`` and return the path of the page."""
    page = render_page(
        "compare.html.jinja",
        comparison=comparison,
        plot=plot(comparison),
        style=style,
        reading=_reading,
        gap=_gap,
        open_intervals=_has_open_interval(comparison),
        report=lambda run: _report(folder, run),
        address=partial(address, folder),
        heads={line.name: f"{line.name} at {comparison.nearest(line).strength:g}" for line in comparison.lines},
        rivals=_rivals(comparison),
        titles=("recipe", "strength", "image", "reason"),
        failures=[(each.name, f"{each.strength:g}", each.file, each.reason) for each in comparison.failures],
    )
    return write_files(folder, comparison_data(folder, comparison), page)


def comparison_data(folder: Path, comparison: Comparison) -> dict[str, Any]:
    """Every figure as data, null where there is none or where it is not finite;
    runs are named from ``folder``."""
    return comparison_facts(comparison) | {
        "recipes": [
            {
                "name": line.name,
                "strengths": [_point(folder, point) for point in line.points],
                "at": [
                    {"ssim": each.at, "success": estimate_data(each.success), "gap": estimate_data(each.gap)}
                    | ({"reason": each.reason} if each.reason else {})
                    for each in line.readings
                ],
            }
            for line in comparison.lines
        ],
    }


def comparison_tables(comparison: Comparison) -> list[FigureTable]:
    """The tables of the page: success where SSIM is fixed, every run,
    and each run against the first recipe's."""
    tables = [_fixed_table(comparison), _runs_table(comparison)]
    if rivals := _rivals(comparison):
        columns = ("recipe", "strength", f"won against {comparison.lines[0].name}", "lost", "p (Holm)")
        rows = (
            (line.name, _strength(point), _count(rival.change.won), _count(rival.change.lost), _chance(rival.corrected))
            for line, point, rival in rivals
        )
        tables.append(FigureTable(columns, tuple(rows)))
    return tables


def _fixed_table(comparison: Comparison) -> FigureTable:
    first, paired = comparison.lines[0].name, len(comparison.lines) > 1
    columns = ["recipe"]
    rows: list[list[Cell | str]] = [[line.name] for line in comparison.lines]
    for place, at in enumerate(comparison.at):
        columns += [f"success at SSIM {decimal(at)}", *([f"difference to {first}"] if paired else [])]
        for row, line in zip(rows, comparison.lines, strict=True):
            reading = line.readings[place]
            row.append(Cell(_reading(reading), reading.success))
            if paired:
                row.append(Cell(_gap(reading, line.name == first), None if line.name == first else reading.gap))
    return FigureTable(tuple(columns), tuple(map(tuple, rows)))


def _runs_table(comparison: Comparison) -> FigureTable:
    columns = ("recipe", "strength", "success", "SSIM", "PSNR, dB", "seconds per image")
    rows = (
        (
            line.name,
            _strength(point),
            Cell(percent(point.success), point.success),
            Cell(number(point.ssim), point.ssim),
            Cell(number(point.psnr, 1), point.psnr),
            Cell(f"{point.seconds.value:.2f}", point.seconds),
        )
        for line in comparison.lines
        for point in line.points
    )
    return FigureTable(columns, tuple(rows))


def _strength(point: Point) -> Cell:
    return Cell(f"{point.strength:g}", point.strength)


def _count(images: int) -> Cell:
    return Cell(str(images), images)


def _chance(p: float) -> Cell:
    return Cell(chance(p), p)


def _reading(reading: Reading) -> str:
    if reading.success is None:
        return f"not reached: {reading.reason}"
    return percent(reading.success)


def _gap(reading: Reading, is_first: bool) -> str:
    return "–" if is_first or reading.gap is None else percent(reading.gap)


def _rivals(comparison: Comparison) -> list[tuple[Line, Point, Rival]]:
    return [(line, point, point.rival) for line in comparison.lines for point in line.points if point.rival]


def _has_open_interval(comparison: Comparison) -> bool:
    shown = (each for line in comparison.lines for reading in line.readings for each in (reading.success, reading.gap))
    return any(each is not None and math.isnan(each.low) for each in shown)


def _report(folder: Path, run: Store) -> str:
    """Address of the run's own report as seen from ``folder``,
    or nothing where none was written."""
    path = run.folder / "report.html"
    return address(folder, path) if path.exists() else ""


def _point(folder: Path, point: Point) -> dict[str, Any]:
    estimates = {name: estimate_data(getattr(point, name)) for name in ("success", "ssim", "psnr", "seconds")}
    return {"strength": point.strength, "run": relative(folder, point.run.folder)} | estimates | _against(point.rival)


def _against(rival: Rival | None) -> dict[str, Any]:
    if rival is None:
        return {}
    change = rival.change
    counts = {"images": change.count, "won": change.won, "lost": change.lost}
    return {"against_first": counts | {"p": change.p, "p_holm": rival.corrected}}
