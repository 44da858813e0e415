"""Success class by class, and what is taken for what."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean

from attnshift.metrics.statistics import Estimate, score_ends
from attnshift.report.verdicts import Verdicts, knows
from attnshift.results.roles import counted_judges
from attnshift.results.rows import QualityRow, ResultRow

__all__ = ["ClassFigures", "Confusion", "attacked_ssim", "class_figures", "confusion_of", "deciding"]

_Z = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True)
class ClassFigures:
    """One true class of a run. Shares are means over the images that a classifier knows when clean:
    each image counts with the share of those classifiers on which an arm succeeds.

    ``success`` is the attack's, with Wilson's interval for as many trials as images, and ``before``
    the reconstruction's, None where there is none; ``attributable`` is the one less the other, nan
    where no image is known. ``taken_for`` is the name of each other class
    that is seen instead -> the number of verdicts, the most frequent first. ``ssim`` is the mean
    over the images, nan where it was not measured.
    """

    label: int
    name: str
    images: int
    success: Estimate
    before: float | None
    taken_for: Mapping[str, int]
    ssim: float

    @property
    def attributable(self) -> float:
        return self.success.value - (self.before or 0.0)

    @property
    def at_least(self) -> float:
        """Lower end of Wilson's interval of what is attributable; below 0 where nothing is."""
        if not self.success.count:
            return -math.inf
        return min(self.attributable, score_ends(max(0.0, self.attributable), self.success.count, _Z)[0])


@dataclass(frozen=True)
class Confusion:
    """Verdicts on the attacked images, by true class and seen class: ``counts`` [rows][columns].

    The columns begin with the classes of the rows; then come classes that no image has.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]

    @property
    def pairs(self) -> list[tuple[str, str, int, float]]:
        """True class, the class that is seen instead, the verdicts, and their share of the true
        class's verdicts; the most verdicts first."""
        pairs = [
            (self.rows[row], self.columns[column], count, count / sum(counts))
            for row, counts in enumerate(self.counts)
            for column, count in enumerate(counts)
            if count and column != row
        ]
        return sorted(pairs, key=lambda each: -each[2])


def deciding(roles: Mapping[str, str]) -> list[str]:
    """The classifiers whose verdicts count for classes and images: the judges that are counted
    together, or the surrogates of a run without judges."""
    return counted_judges(roles) or [name for name, role in roles.items() if role == "surrogate"]


def attacked_ssim(quality: Sequence[QualityRow]) -> dict[str, float]:
    """Id of an image -> SSIM of its attacked form, where it was measured."""
    return {row.id: row.values["ssim"] for row in quality if row.arm == "attack" and "ssim" in row.values}


def class_figures(
    results: Sequence[ResultRow], names: Sequence[str], verdicts: Verdicts, ssim: Mapping[str, float]
) -> tuple[ClassFigures, ...]:
    """Figures of every class of ``results``, worst first, by ``at_least``.

    ``names`` are the classifiers that count, ``ssim`` has the attacked image's by its id. A class
    that none of them knows in any image stands last.
    """
    rows = defaultdict(list)
    for row in results:
        rows[row.label].append(row)
    figures = [_of_class(own, names, verdicts, ssim) for own in rows.values()]
    return tuple(sorted(figures, key=lambda each: (-each.at_least, -each.success.low, each.name, each.label)))


def _of_class(
    rows: Sequence[ResultRow], names: Sequence[str], verdicts: Verdicts, ssim: Mapping[str, float]
) -> ClassFigures:
    known = {row.id: own for row in rows if (own := [name for name in names if knows(name, row.id, verdicts)])}
    shares = {
        arm: [fmean(bool(verdicts[name, arm, id].success) for name in own) for id, own in known.items()]
        for arm in ("reconstruction", "attack")
        if all((name, arm, id) in verdicts for id, own in known.items() for name in own)
    }
    seen = Counter(
        verdict.predicted_name
        for id, own in known.items()
        for name in own
        if not (verdict := verdicts[name, "attack", id]).correct
    )
    held = [ssim[row.id] for row in rows if row.id in ssim]
    return ClassFigures(
        rows[0].label,
        rows[0].class_name,
        len(rows),
        _share(shares.get("attack", [])),
        fmean(shares["reconstruction"]) if shares.get("reconstruction") else None,
        dict(seen.most_common()),
        fmean(held) if held else math.nan,
    )


def _share(shares: Sequence[float]) -> Estimate:
    if not shares:
        return Estimate(math.nan, 0.0, 1.0, 0)
    return Estimate(fmean(shares), *score_ends(fmean(shares), len(shares), _Z), len(shares))


def confusion_of(results: Sequence[ResultRow], names: Sequence[str], verdicts: Verdicts) -> Confusion:
    """What the classifiers ``names`` see in the attacked images that they know when clean.

    Rows and columns go by class number. Two classes of one name stay two rows.
    """
    true = {row.label: row.class_name for row in sorted(results, key=lambda each: each.label)}
    counts: Counter[tuple[int, int]] = Counter()
    other: dict[int, str] = {}
    for row in results:
        for name in names:
            if knows(name, row.id, verdicts):
                seen = verdicts[name, "attack", row.id]
                counts[row.label, seen.predicted] += 1
                if seen.predicted not in true:
                    other[seen.predicted] = seen.predicted_name
    columns = true | dict(sorted(other.items()))
    return Confusion(
        tuple(true.values()),
        tuple(columns.values()),
        tuple(tuple(counts[row, column] for column in columns) for row in true),
    )
