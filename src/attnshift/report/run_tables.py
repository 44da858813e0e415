"""Figures of one run as tables for people and as data for programs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from attnshift._version import __version__
from attnshift.metrics.statistics import Estimate
from attnshift.report.classes import ClassFigures, attacked_ssim, class_figures, confusion_of, deciding
from attnshift.report.figures import number, percent
from attnshift.report.layers import layer_figures
from attnshift.report.missing import missing
from attnshift.report.naturalness import sets_of, short, unavailable
from attnshift.report.outdated import outdated
from attnshift.report.people import people_of
from attnshift.report.people_tables import people_data, people_tables
from attnshift.report.summary import ClassifierSummary, LabelSummary, Summary, summarise_run
from attnshift.report.tables import Cell, FigureTable, estimate_data
from attnshift.report.verdicts import indexed
from attnshift.results.roles import roles_in
from attnshift.results.rows import QualityRow, ResultRow, SetRow, UnavailableRow, VerdictRow
from attnshift.results.store import Store

__all__ = ["run_data", "run_tables"]


def run_tables(store: Store) -> list[FigureTable]:
    """Success on each classifier, naturalness of each arm, and, as far as they were taken,
    labels, visibility, sets and what people said."""
    return list(_tables(store, summarise_run(store)))


def run_data(store: Store) -> dict[str, Any]:
    """Every figure of a run as values that JSON holds;
    null where there is none or where it is not finite."""
    store = store.reading_once()
    spec, summary, lacking = store.spec(), summarise_run(store), missing(store)
    return {
        "attnshift": __version__,
        "run": spec.digest,
        "recipe": spec.recipe.name,
        "pipeline": spec.pipeline,
        "surrogates": list(spec.surrogates),
        "size": spec.size,
        "images": summary.images,
        "planned": lacking.planned,
        "left": lacking.left,
        "failed": [row.to_record() for row in lacking.failed],
        "admitted": list(spec.admitted),
        "targets": list(summary.targets),
        "classifiers": [_classifier_data(each) for each in summary.classifiers],
        "means": [_classifier_data(each) for each in _means(summary)],
        **_class_data(store),
        "label": summary.label and _label_data(summary.label),
        "people": people_data(people_of(store)),
        "quality": _by_arm(summary.quality),
        "visibility": _by_arm(summary.visibility),
        "sets": [row.to_record() | _interval(row) for row in store.table(SetRow)] if sets_of(store) else [],
        "outdated": outdated(store),
        "unavailable": unavailable(store.table(QualityRow), store.table(UnavailableRow)),
        "movement": {
            name: {"mass_after_of_before": estimate_data(mass), "total_variation": estimate_data(distance)}
            for name, (mass, distance) in summary.movement.items()
        },
        "layers": [asdict(each) for each in layer_figures(store.table(ResultRow))],
        "pulls": {name: list(values) for name, values in summary.pulls.items()},
        "idle_terms": dict(summary.idle_terms),
        "spending": {name: estimate_data(share) for name, share in summary.spending.items()},
        "effective_models": estimate_data(summary.effective_models),
        "seconds": estimate_data(summary.seconds),
    }


def _tables(store: Store, summary: Summary) -> Iterator[FigureTable]:
    arms = list(summary.quality)
    counted = ("judged",) if summary.partly else ()
    columns = ("classifier", "role", *counted, "clean accuracy", *map(_spaced, arms), "attributable")
    judged = (*summary.classifiers, *_means(summary))
    yield FigureTable(columns, tuple(_success_row(each, arms, summary.partly) for each in judged))
    metrics = list(dict.fromkeys(name for values in summary.quality.values() for name in values))
    rows = (_arm_row(arm, values, metrics) for arm, values in summary.quality.items())
    yield FigureTable(("arm", *metrics), tuple(rows))
    if summary.spending:
        spent = ((name, _percent(share)) for name, share in summary.spending.items())
        yield FigureTable(("the change spends, or is made of", "share"), tuple(spent))
    if summary.label:
        kept = ((_spaced(arm), _percent(share)) for arm, share in summary.label.kept.items())
        yield FigureTable(("arm", f"label kept, says {summary.label.reference}"), tuple(kept))
        with_label = ("with the label kept", "known when clean", "attack", "attributable")
        yield FigureTable(with_label, tuple(map(_label_row, summary.label.judges)))
    if summary.visibility:
        measures = list(dict.fromkeys(name for values in summary.visibility.values() for name in values))
        rows = (_arm_row(arm, values, measures) for arm, values in summary.visibility.items())
        yield FigureTable(("arm", *measures), tuple(rows))
    if summary.movement:
        moved = (
            (name, _number("", mass), _number("", distance)) for name, (mass, distance) in summary.movement.items()
        )
        yield FigureTable(("attention to", "mass after / before", "total variation"), tuple(moved))
    sets = [each for each in sets_of(store) if each.arms]
    if sets:
        rows = (
            (each.metric, each.features, _spaced(arm), Cell(short(value), value))
            for each in sets
            for arm, value in each.arms.items()
        )
        yield FigureTable(("distance to the clean set", "features", "arm", "value"), tuple(rows))
    people = people_of(store)
    if people:
        yield from people_tables(people)


def _means(summary: Summary) -> tuple[ClassifierSummary, ...]:
    return (*summary.defended, *([summary.judges] if summary.judges else []))


def _success_row(each: ClassifierSummary, arms: list[str], counted: bool) -> tuple[Cell | str, ...]:
    """A row of the first table; with ``counted`` it says how many images the classifier has
    judged."""
    judged = (str(each.accuracy.count),) if counted else ()
    success = (_percent(each.success[arm]) for arm in arms)
    return (each.name, each.role, *judged, _percent(each.accuracy), *success, _percent(each.attributable))


def _label_row(each: ClassifierSummary) -> tuple[Cell | str, ...]:
    return (each.name, _percent(each.accuracy), _percent(each.success["attack"]), _percent(each.attributable))


def _arm_row(arm: str, values: Mapping[str, Estimate], names: list[str]) -> tuple[Cell | str, ...]:
    return (_spaced(arm), *(_number(name, values[name]) if name in values else "–" for name in names))


def _percent(estimate: Estimate) -> Cell:
    return Cell(percent(estimate), estimate)


def _number(name: str, estimate: Estimate) -> Cell:
    """A metric or a measure of visibility; the latter may be measurable in no image."""
    digits = 2 if name in ("psnr", "l2") else 3
    return Cell("–" if math.isnan(estimate.value) else number(estimate, digits), estimate)


def _spaced(arm: str) -> str:
    return arm.replace("_", " ")


def _classifier_data(each: ClassifierSummary) -> dict[str, Any]:
    return {
        "name": each.name,
        "role": each.role,
        "clean_accuracy": estimate_data(each.accuracy),
        "success": {arm: estimate_data(value) for arm, value in each.success.items()},
        "attributable": estimate_data(each.attributable),
    }


def _class_data(store: Store) -> dict[str, Any]:
    """Success class by class, and what the classifiers that count take for what."""
    results, verdicts = store.table(ResultRow), store.table(VerdictRow)
    names, seen = deciding(roles_in(verdicts)), indexed(verdicts)
    ssim = attacked_ssim(store.table(QualityRow))
    return {
        "classes": [
            {"name": each.name, "label": each.label, "images": each.images, "success": estimate_data(each.success)}
            | {name: None if math.isnan(figure) else figure for name, figure in _class_figures(each)}
            for each in class_figures(results, names, seen, ssim)
        ],
        "confusion": [
            {"class": true, "seen": other, "verdicts": count}
            for true, other, count, _ in confusion_of(results, names, seen).pairs
        ],
    }


def _class_figures(each: ClassFigures) -> tuple[tuple[str, float], ...]:
    return ("attributable", each.attributable), ("ssim", each.ssim)


def _label_data(label: LabelSummary) -> dict[str, Any]:
    return {
        "reference": label.reference,
        "clean_accuracy": estimate_data(label.accuracy),
        "kept": {arm: estimate_data(value) for arm, value in label.kept.items()},
        "judges": [_classifier_data(each) for each in label.judges],
    }


def _by_arm(figures: Mapping[str, Mapping[str, Estimate]]) -> dict[str, dict[str, Any]]:
    return {arm: {name: estimate_data(value) for name, value in values.items()} for arm, values in figures.items()}


def _interval(row: SetRow) -> dict[str, float | None]:
    """The ends of an interval, null where there is none."""
    return {
        name: None if value is None or math.isnan(value) else value
        for name, value in (("low", row.low), ("high", row.high))
    }
