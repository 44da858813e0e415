"""A comparison within budgets, for people and programs: compare.json with every figure,
compare.html, and tables."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from attnshift.metrics.statistics import Estimate
from attnshift.report.budgets import BudgetComparison, BudgetLine, BudgetTable
from attnshift.report.comparison_files import address, comparison_facts, relative, write_files
from attnshift.report.figures import chance, percent
from attnshift.report.rendering import render_page
from attnshift.report.tables import Cell, FigureTable, estimate_data

__all__ = ["budget_data", "budget_tables", "write_budgets"]

_DIGITS = {"psnr": 1, "flat_noise": 2, "l2": 2}
_COSTS = {
    "surrogate_gradients": "surrogate gradients",
    "denoiser_evaluations": "denoiser evaluations",
    "cpu_seconds": "CPU s an image",
}


def write_budgets(folder: Path, comparison: BudgetComparison) -> Path:
    """Write compare.json and compare.html into ``folder`` and return the path of the page."""
    page = render_page(
        "budget.html.jinja",
        comparison=comparison,
        names=[line.name for line in comparison.tables[0].lines],
        sections=[(table.budget, _tables(table), table.shown) for table in comparison.tables],
        heads={line.name: line.name for line in comparison.tables[0].lines},
        address=partial(address, folder),
        titles=("run", "image", "reason"),
        failures=[(each.run, each.file, each.reason) for each in comparison.failures],
    )
    return write_files(folder, budget_data(folder, comparison), page)


def budget_data(folder: Path, comparison: BudgetComparison) -> dict[str, Any]:
    """Every figure as data, null where there is none or where it is not finite; runs are named
    from ``folder``."""
    return comparison_facts(comparison) | {
        "seeds": comparison.seeds,
        "budgets": [
            {"budget": table.budget, "recipes": [_line_data(folder, line) for line in table.lines]}
            for table in comparison.tables
        ],
    }


def budget_tables(comparison: BudgetComparison) -> list[FigureTable]:
    """Three tables for each budget: success, each judge's, and naturalness with costs."""
    return [table for each in comparison.tables for table in _tables(each)]


def _tables(table: BudgetTable) -> list[FigureTable]:
    return [_success(table), _by_judge(table), _naturalness(table)]


def _success(table: BudgetTable) -> FigureTable:
    first = table.lines[0].name
    columns = [f"recipe, {table.budget}", "success"]
    referred = any(line.label_kept.count for line in table.lines)
    if referred:
        columns += ["label kept"]
    if len(table.lines) > 1:
        columns += [f"difference to {first}", "won", "lost", "p (Holm)"]
    rows = []
    for line in table.lines:
        row: list[Cell | str] = [line.name, Cell(percent(line.success), line.success)]
        if referred:
            row += [_share(line.label_kept)]
        if line.gap and line.change and line.corrected is not None:
            row += [Cell(percent(line.gap), line.gap), _count(line.change.won), _count(line.change.lost)]
            row += [Cell(chance(line.corrected), line.corrected)]
        elif len(table.lines) > 1:
            row += ["–"] * 4
        rows.append(tuple(row))
    return FigureTable(tuple(columns), tuple(rows))


def _by_judge(table: BudgetTable) -> FigureTable:
    judges = list(table.lines[0].judges)
    rows = ((line.name, *(Cell(percent(each), each) for each in line.judges.values())) for line in table.lines)
    return FigureTable(("recipe, success by judge", *judges), tuple(rows))


def _naturalness(table: BudgetTable) -> FigureTable:
    """The metrics that every line has; an attack on pixels asks no denoiser.

    The share of added pixels has a column where a recipe adds them to what its latents show.
    """
    metrics = [name for name in table.lines[0].quality if all(name in line.quality for line in table.lines)]
    shares = {"spent": [line.spent for line in table.lines]}
    if any(line.pixel_share.count for line in table.lines):
        shares["pixel share"] = [line.pixel_share for line in table.lines]
    rows = []
    for line, own in zip(table.lines, zip(*shares.values(), strict=True), strict=True):
        quality = (Cell(_mean(line.quality[name], _DIGITS.get(name, 3)), line.quality[name]) for name in metrics)
        costs = (Cell(_mean(line.costs[name], 1), line.costs[name]) for name in _COSTS)
        rows.append((line.name, *map(_share, own), *quality, *costs))
    return FigureTable(("recipe, means", *shares, *metrics, *_COSTS.values()), tuple(rows))


def _share(estimate: Estimate) -> Cell | str:
    return Cell(percent(estimate), estimate) if estimate.count else "–"


def _mean(estimate: Estimate, digits: int) -> str:
    return f"{estimate.value:.{digits}f}" if estimate.count else "–"


def _count(images: int) -> Cell:
    return Cell(str(images), images)


def _line_data(folder: Path, line: BudgetLine) -> dict[str, Any]:
    return {
        "name": line.name,
        "runs": [relative(folder, run.folder) for run in line.runs],
        "success": estimate_data(line.success),
        "gap": estimate_data(line.gap),
        "change": None if line.change is None else asdict(line.change) | {"p_holm": line.corrected},
        "label_kept": estimate_data(line.label_kept) if line.label_kept.count else None,
        "judges": {name: estimate_data(each) for name, each in line.judges.items()},
        "spent": estimate_data(line.spent),
        "pixel_share": estimate_data(line.pixel_share) if line.pixel_share.count else None,
        "quality": {name: estimate_data(each) for name, each in line.quality.items()},
        "costs": {name: estimate_data(each) for name, each in line.costs.items()},
    }
