"""What people said about a run's images, as tables and lines, and as data for programs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from attnshift.metrics.statistics import Estimate
from attnshift.report.figures import percent
from attnshift.report.people import CHANCE, Gap, People, PeoplesArm
from attnshift.report.tables import Cell, FigureTable, estimate_data
from attnshift.terminal import plural

__all__ = ["people_data", "people_lines", "people_summary", "people_tables"]

_NOBODY = "no person was asked"
_FINE = 0.05
"""The difference for which the needed number of raters is given."""
_FEW = 5
"""Raters below whom a line warns."""


def people_tables(people: People) -> list[FigureTable]:
    """Shares of each arm, differences with their power, and success with the label kept."""
    tables = [
        FigureTable(
            ("arm", "taken for the original", "pairs", "label seen", "answers"), tuple(map(_arm_row, people.arms))
        )
    ]
    if people.gaps:
        columns = ("difference", "value", "found with 80 % power", "raters for 5 points")
        tables.append(FigureTable(columns, tuple(map(_gap_row, people.gaps))))
    if people.success:
        pairs = (("every success", people.success.plain), ("label kept, say most raters", people.success.kept))
        rows = ((name, _percent(each.success["attack"]), _percent(each.attributable)) for name, each in pairs)
        tables.append(FigureTable((f"success, {people.success.plain.name}", "attack", "attributable"), tuple(rows)))
    return tables


def people_lines(people: People) -> list[str]:
    """Sentences, without their full stops, on who was asked, how well they agree, and how carefully
    they looked."""
    return list(_lines(people))


def people_summary(people: People | None) -> list[str]:
    """Lines with the shares of each arm for the terminal, or that nobody was asked."""
    if people is None:
        return [_NOBODY]
    shares = (
        f"{each.name}: "
        + ", ".join(
            f"{what} {percent(share)}"
            for what, share in (("taken for the original", each.taken), ("label seen", each.kept))
            if share.count
        )
        for each in people.arms
    )
    lines = [f"people, {line}" for line in shares]
    if people.success:
        kept = people.success.kept
        figures = f"attack {percent(kept.success['attack'])}, attributable {percent(kept.attributable)}"
        lines.append(f"success with the label kept by people, {kept.name}: {figures}")
    return [*people_lines(people), *lines]


def people_data(people: People | None) -> dict[str, Any] | None:
    """All figures as values that JSON holds; None where nobody was asked."""
    if people is None:
        return None
    return {
        "raters": people.raters,
        "images": people.images,
        "answers": people.answers,
        "stopped": people.stopped,
        "chance": CHANCE,
        "arms": [
            {
                "arm": each.name,
                "taken_for_original": estimate_data(each.taken),
                "pairs": each.pairs,
                "label_seen": estimate_data(each.kept),
                "answers": each.labels,
            }
            for each in people.arms
        ],
        "differences": [_gap_data(each) for each in people.gaps],
        "agreement": {name: None if math.isnan(value) else value for name, value in people.agreement.items()},
        "checks": {rater: estimate_data(each) for rater, each in people.checks.items()},
        "careless": list(people.careless),
        "success": people.success
        and {
            "images_with_label_kept": estimate_data(people.success.share),
            "judges": people.success.plain.name,
            **{
                name: {
                    "attack": estimate_data(each.success["attack"]),
                    "attributable": estimate_data(each.attributable),
                }
                for name, each in (("every", people.success.plain), ("label_kept", people.success.kept))
            },
        },
    }


def _lines(people: People) -> Iterator[str]:
    asked = f"{plural(people.raters, 'person', 'people')} gave {plural(people.answers, 'answer')}"
    stopped = f"; {people.stopped} stopped before the end" if people.stopped else ""
    yield f"{asked} about {plural(people.images, 'image')}{stopped}"
    alphas = (f"{name} {value:.2f}" for name, value in people.agreement.items() if not math.isnan(value))
    if agreed := ", ".join(alphas):
        yield f"agreement of raters, Krippendorff's alpha: {agreed}"
    if people.success:
        yield f"most raters still see the class in {percent(people.success.share)} of the attacked images"
    if people.careless:
        names = ", ".join(people.careless)
        yield f"failed more than a quarter of their checks, and count all the same: {names}"
    if people.raters < _FEW:
        yield f"fewer than {_FEW} raters say little about other people, whatever the intervals"


def _arm_row(each: PeoplesArm) -> tuple[Cell | str, ...]:
    return (
        each.name,
        _percent(each.taken),
        Cell(str(each.pairs), float(each.pairs)),
        _percent(each.kept),
        Cell(str(each.labels), float(each.labels)),
    )


def _gap_row(gap: Gap) -> tuple[Cell | str, ...]:
    if gap.spread is None:
        return (gap.name, _percent(gap.value), "–", "–")
    raters, detectable = gap.spread.raters_for(_FINE), gap.spread.detectable
    needed = f"none: more than {gap.spread.images_for(_FINE) - 1} images" if raters is None else str(raters)
    found = f"{100 * detectable:.0f} points" if detectable <= 1 else "nothing"
    return (gap.name, _percent(gap.value), Cell(found, detectable), needed)


def _gap_data(gap: Gap) -> dict[str, Any]:
    spread = gap.spread
    raters = spread and spread.raters_for(_FINE)
    return {
        "name": gap.name,
        "value": estimate_data(gap.value),
        "detectable": spread and spread.detectable,
        "raters_for_5_points": raters,
        "images_for_5_points": spread.images_for(_FINE) if spread and raters is None else None,
    }


def _percent(estimate: Estimate) -> Cell:
    return Cell(percent(estimate), estimate)
