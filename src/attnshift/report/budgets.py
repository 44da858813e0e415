"""Success at a budget of naturalness, from the runs of a comparison: read off directly, paired
by image."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from attnshift.metrics import METRICS
from attnshift.metrics.statistics import Change, Estimate, bootstrap, holm, mcnemar
from attnshift.report.shared_images import RunTables, lost_images, shared_tables
from attnshift.report.side_by_side import SharedImage, shared_images
from attnshift.report.summary import judge_gains, summarise
from attnshift.report.verdicts import fools_most
from attnshift.results.rows import FailedRow
from attnshift.results.spec import RunSpec
from attnshift.results.store import Store

__all__ = ["BudgetComparison", "BudgetLine", "BudgetTable", "RunFailure", "measure_budgets"]

_COSTS = ("surrogate_gradients", "denoiser_evaluations", "cpu_seconds")


@dataclass(frozen=True)
class BudgetLine:
    """A recipe within a budget. Figures are means over images and seeds.

    ``success`` is attributable success on the judges; ``judges`` has each judge's own. ``gap`` is
    the difference of ``success`` to the first recipe's on the same images, ``change`` McNemar's
    test of that, and ``corrected`` its p after Holm's correction; None in the first line.
    ``label_kept`` is the share of the attacked images in which the reference still sees the class,
    of those that it knows when clean; it counts none without a reference.
    ``quality`` are the metrics that could be taken. ``spent`` is the share of the budget,
    ``pixel_share`` that of added pixels in the change, and ``costs`` are what an image cost:
    columns of the table results.
    """

    name: str
    runs: tuple[Store, ...]
    success: Estimate
    judges: Mapping[str, Estimate]
    label_kept: Estimate
    quality: Mapping[str, Estimate]
    spent: Estimate
    pixel_share: Estimate
    costs: Mapping[str, Estimate]
    gap: Estimate | None = None
    change: Change | None = None
    corrected: float | None = None


@dataclass(frozen=True)
class BudgetTable:
    """All recipes within one budget, such as ssim=0.95."""

    budget: str
    lines: tuple[BudgetLine, ...]
    shown: tuple[SharedImage, ...] = ()
    """Images after the attack of each line, in its first seed."""


@dataclass(frozen=True)
class RunFailure:
    """An image that failed in one run, such as fast@ssim=0.95, and why."""

    run: str
    file: str
    reason: str


@dataclass(frozen=True)
class BudgetComparison:
    """Recipes within budgets on the same ``images``; ``planned`` counts those that failed too.

    ``judges`` measure success; ``aside`` are judges behind a defence, which count only where there
    are no others.
    """

    tables: tuple[BudgetTable, ...]
    judges: tuple[str, ...]
    aside: tuple[str, ...]
    images: int
    planned: int
    seeds: int
    aim: str
    spec: RunSpec
    failures: tuple[RunFailure, ...]

    @property
    def missing(self) -> str:
        """A sentence without its full stop; nothing where no image failed."""
        return lost_images(self.images, self.planned)


def measure_budgets(runs: Mapping[str, Mapping[str, Sequence[Store]]], judges: Sequence[str]) -> BudgetComparison:
    """Compare finished ``runs`` (recipe -> budget -> one run a seed) by ``judges`` alone.

    Only images that all runs have attacked count; a ``RunError`` where there is none.
    """
    named = [
        (f"{name}@{budget}", store) for name, line in runs.items() for budget, each in line.items() for store in each
    ]
    stores = [store for _, store in named]
    tables, chosen, aside = shared_tables(stores, judges)
    first = tables[stores[0].folder]
    budgets = next(iter(runs.values()))
    found = [
        BudgetTable(
            budget,
            _lines(
                budget,
                {name: ([tables[store.folder] for store in line[budget]], line[budget]) for name, line in runs.items()},
                chosen,
            ),
            shared_images(
                {name: (line[budget][0], tables[line[budget][0].folder]) for name, line in runs.items()}, chosen
            ),
        )
        for budget in budgets
    ]
    return BudgetComparison(
        tuple(found),
        tuple(chosen),
        tuple(aside),
        len(first.ids),
        stores[0].planned(),
        len(next(iter(budgets.values()))),
        summarise(first.results, [], []).aim,
        stores[0].spec(),
        tuple(RunFailure(run, row.file, row.reason) for run, store in named for row in store.table(FailedRow)),
    )


def _lines(
    budget: str, runs: Mapping[str, tuple[Sequence[RunTables], Sequence[Store]]], judges: Sequence[str]
) -> tuple[BudgetLine, ...]:
    gains = {name: _gains(tables, judges) for name, (tables, _) in runs.items()}
    fooled = {name: _fooled(tables, judges) for name, (tables, _) in runs.items()}
    reference, *others = runs
    changes = [mcnemar(*_known(fooled[reference], fooled[name])) for name in others]
    corrected = holm([change.p for change in changes])
    lines = []
    for place, (name, (tables, stores)) in enumerate(runs.items()):
        against = {}
        if place:
            gap = [
                [own - other for own, other in zip(mine, theirs, strict=True)]
                for mine, theirs in zip(gains[name], gains[reference], strict=True)
            ]
            against = {
                "gap": bootstrap(gap, ("gap", budget)),
                "change": changes[place - 1],
                "corrected": corrected[place - 1],
            }
        lines.append(
            BudgetLine(
                name,
                tuple(stores),
                bootstrap(gains[name], ("success", budget)),
                {judge: bootstrap(_gains(tables, [judge]), ("success", budget, judge)) for judge in judges},
                bootstrap([[_number(each) for each in run.label_kept] for run in tables], ("label kept", budget)),
                _quality(tables, budget),
                _column(tables, "spent", budget),
                _column(tables, "pixel_share", budget),
                {cost: _column(tables, cost) for cost in _COSTS},
                **against,
            )
        )
    return tuple(lines)


def _gains(tables: Sequence[RunTables], judges: Sequence[str]) -> list[list[float]]:
    """Attributable success, [seeds][images]; nan for an image that no judge knows."""
    return [judge_gains(judges, each.ids, each.seen) for each in tables]


def _fooled(tables: Sequence[RunTables], judges: Sequence[str]) -> list[bool | None]:
    """Whether an image fools most of the judges in at least half of the seeds; None where no
    judge knows it."""
    seen = [fools_most(judges, each.ids, each.seen) for each in tables]
    by_image = [
        [found[id] for found, id in zip(seen, ids, strict=True) if id in found]
        for ids in zip(*(each.ids for each in tables), strict=True)
    ]
    return [2 * sum(flags) >= len(flags) if flags else None for flags in by_image]


def _known(first: Sequence[bool | None], second: Sequence[bool | None]) -> tuple[list[bool], list[bool]]:
    pairs = [(bool(a), bool(b)) for a, b in zip(first, second, strict=True) if a is not None and b is not None]
    return [a for a, _ in pairs], [b for _, b in pairs]


def _quality(tables: Sequence[RunTables], budget: str) -> dict[str, Estimate]:
    """Means of the metrics that all runs could take; images that equal the clean one have no
    finite PSNR."""
    found = {}
    for metric in METRICS:
        values = []
        for each in tables:
            kept = {row.id: row.values.get(metric, math.nan) for row in each.quality if row.arm == "attack"}
            values.append([kept[id] if math.isfinite(kept[id]) else math.nan for id in each.ids])
        if not all(math.isnan(value) for row in values for value in row):
            found[metric] = bootstrap(values, (metric, budget))
    return found


def _column(tables: Sequence[RunTables], name: str, *key: str) -> Estimate:
    """Mean of a column of the table results, over the images that have it."""
    return bootstrap([[_number(getattr(row, name)) for row in each.results] for each in tables], (name, *key))


def _number(value: float | None) -> float:
    return math.nan if value is None else value
