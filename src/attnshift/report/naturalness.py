"""Naturalness beside the means of the metrics:
metrics that could not be taken, and metrics of sets."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from attnshift.metrics import METRICS
from attnshift.metrics.statistics import Estimate
from attnshift.report.figures import number
from attnshift.results.arms import ARMS
from attnshift.results.rows import QualityRow, ResultRow, SetRow, UnavailableRow, images_digest
from attnshift.results.store import Store
from attnshift.terminal import plural

__all__ = ["SetSummary", "naturalness", "read_sets", "sets_are_outdated", "sets_of", "short", "unavailable"]


@dataclass(frozen=True)
class SetSummary:
    """One set metric: the distance of each arm to the clean set,
    in the order of ``ARMS``, or why there is none.

    ``usual``: the features are those that the metric was published with.
    """

    metric: str
    features: str
    usual: bool
    images: int
    arms: Mapping[str, Estimate]
    reason: str

    @property
    def comparable(self) -> str:
        """A warning where its figures cannot be compared
        with published ones; empty where they can."""
        return "" if self.usual else "comparable with nothing but figures on the same features"


def naturalness(store: Store) -> list[str]:
    """One line for each metric that could not be measured,
    and for each that was measured of sets."""
    reasons = unavailable(store.table(QualityRow), store.table(UnavailableRow))
    sets = sets_of(store)
    reasons |= {each.metric: each.reason for each in sets if each.reason}
    return [
        *(f"{name}: unavailable: {reason}" for name, reason in reasons.items()),
        *(_line(each) for each in sets if each.arms),
    ]


def unavailable(quality: Sequence[QualityRow], reasons: Sequence[UnavailableRow]) -> dict[str, str]:
    """Metric -> why the table ``quality`` does not hold it;
    ``reasons`` are the rows of the table ``unavailable``."""
    if not quality:
        return {}
    known = {row.metric: row.reason for row in reasons}
    missing = [name for name in METRICS if all(name not in row.values for row in quality)]
    return {
        name: known.get(name, "not measured when this run was judged; `attnshift evaluate` measures it")
        for name in missing
    }


def sets_of(store: Store) -> tuple[SetSummary, ...]:
    """Figures of the table ``sets``; none where it was measured on other images than the run has
    now."""
    return () if sets_are_outdated(store) else read_sets(store.table(SetRow))


def sets_are_outdated(store: Store) -> bool:
    """True if the table ``sets`` was measured on other images;
    a table without a digest does not say."""
    digests = ("", images_digest(row.id for row in store.table(ResultRow)))
    return any(row.digest not in digests for row in store.table(SetRow))


def read_sets(rows: Sequence[SetRow]) -> tuple[SetSummary, ...]:
    """The ``rows`` of the table ``sets``, those of each metric together."""
    summaries = []
    for metric in dict.fromkeys(row.metric for row in rows):
        own = [row for row in rows if row.metric == metric]
        first = own[0]
        figures = {row.arm: each for row in own if (each := _estimate(row)) is not None}
        summaries.append(
            SetSummary(
                metric,
                first.features,
                first.usual,
                first.images,
                {arm: figures[arm] for arm in ARMS if arm in figures},
                next((row.reason for row in own if row.reason), ""),
            )
        )
    return tuple(summaries)


def short(estimate: Estimate) -> str:
    """Three digits of the largest number: ``0.0132 [0.0101, 0.0163]``,
    or ``12.4`` where there is no interval.

    >>> short(Estimate(0.001, -0.21, 0.212, 500))
    '0.001 [-0.210, 0.212]'
    """
    largest = max(abs(each) for each in (estimate.value, estimate.low, estimate.high) if not math.isnan(each))
    digits = max(0, 2 - math.floor(math.log10(largest))) if largest else 0
    return f"{estimate.value:.{digits}f}" if math.isnan(estimate.low) else number(estimate, digits)


def _line(each: SetSummary) -> str:
    figures = ", ".join(f"{arm} {short(estimate)}" for arm, estimate in each.arms.items())
    what = f"{each.metric} to the clean set, {plural(each.images, 'image')}, features of {each.features}"
    return f"{what}: {figures}{each.comparable and f'; {each.comparable}'}"


def _estimate(row: SetRow) -> Estimate | None:
    if row.value is None or row.low is None or row.high is None:
        return None
    return Estimate(row.value, row.low, row.high, row.images)
