"""Figures from the tables of a run: success for each classifier and arm,
and naturalness, with intervals."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from statistics import fmean
from typing import TypeVar

from attnshift.errors import RunError
from attnshift.metrics import METRICS, VISIBILITY
from attnshift.metrics.statistics import Estimate, bootstrap, wilson
from attnshift.report.verdicts import Verdicts, answers_of, indexed, is_judged, knows, where_label_is_kept
from attnshift.results.arms import ARMS
from attnshift.results.roles import counted_judges, judges_by_defence, roles_in
from attnshift.results.rows import QualityRow, ResultRow, VerdictRow, VisibilityRow
from attnshift.results.store import Store
from attnshift.terminal import plural

__all__ = [
    "ClassifierSummary",
    "LabelSummary",
    "Summary",
    "judge_gains",
    "judges_together",
    "summarise",
    "summarise_run",
]

_Judged = TypeVar("_Judged", VerdictRow, QualityRow, VisibilityRow)


@dataclass(frozen=True)
class ClassifierSummary:
    """Success on one classifier, or on the mean of several judges.

    ``success`` per arm is over the images that the classifier gets right when clean: the share that
    it gets wrong in that arm, or in a targeted attack takes for the target. ``attributable`` is
    attack minus reconstruction on the same images; an attack on pixels reconstructs nothing, and
    all of its success is its own.

    ``accuracy`` is over the images that the classifier has judged: those whose class it has.
    """

    name: str
    role: str
    accuracy: Estimate
    success: Mapping[str, Estimate]
    attributable: Estimate


@dataclass(frozen=True)
class LabelSummary:
    """How often the reference, the classifier that was declared to speak
    for the label, still sees the true class.

    A reference can be fooled like any classifier, and then misses a label that a person still sees:
    the figures are too low rather than too high.

    ``kept`` per arm is over the images that the reference gets right when clean: the share that it
    still gets right. ``judges`` are each judge and the means of several, on those same images, an
    attack whose label is not kept being no success (``verdicts.where_label_is_kept``); the last one
    is ``together``, all judges as in ``Summary.judges``.
    """

    reference: str
    accuracy: Estimate
    kept: Mapping[str, Estimate]
    judges: tuple[ClassifierSummary, ...]

    @property
    def together(self) -> ClassifierSummary | None:
        return self.judges[-1] if self.judges else None


@dataclass(frozen=True)
class Summary:
    classifiers: tuple[ClassifierSummary, ...]
    judges: ClassifierSummary | None
    """All judges together: each image counts with its mean over the judges that know it when clean.

    Judges behind a defence are no part of it, unless there are no others.
    """
    defended: tuple[ClassifierSummary, ...]
    """The same for the judges behind each defence that at least two judges have."""
    label: LabelSummary | None
    """None where no reference was declared."""
    visibility: Mapping[str, Mapping[str, Estimate]]
    """Arm -> entry of ``VISIBILITY`` -> mean over the images
    in which it can be measured; empty without masks."""
    quality: Mapping[str, Mapping[str, Estimate]]
    """Arm -> metric -> mean over images, of the metrics that could be taken; images equal to the
    clean one have no finite PSNR and are left out of it."""
    spending: Mapping[str, Estimate]
    """What the change spends: the share of the budget, and that of pixels added to what the latents
    show; each where there is one."""
    shares: Mapping[str, tuple[float, ...]]
    """Surrogate -> its share of the fused direction in each iteration,
    averaged over the images still attacked."""
    movement: Mapping[str, tuple[Estimate, Estimate]]
    """Phrase and path -> its mass after the attack as a share of before, and the total variation
    distance of its map, over all layers; empty for a baseline."""
    pulls: Mapping[str, tuple[float, ...]]
    """Term -> its pull in each measured iteration, relative to the classification's, averaged over
    images."""
    idle_terms: Mapping[str, int]
    """Line on a term that never acted -> the number of images of which it is said."""
    effective_models: Estimate
    """1 / sum of squared shares, averaged over iterations and images."""
    seconds: Estimate
    images: int
    targets: tuple[str, ...]
    """Names of the classes that images shall be seen as, each once;
    none in an untargeted attack."""

    @property
    def partly(self) -> bool:
        """True if a classifier has not judged all images."""
        return any(each.accuracy.count < self.images for each in self.classifiers)

    @property
    def aim(self) -> str:
        """``, targeted at mug``, or ``, targeted per image``; nothing for an untargeted attack."""
        if not self.targets:
            return ""
        return f", targeted at {self.targets[0]}" if len(self.targets) == 1 else ", targeted per image"


def summarise_run(store: Store) -> Summary:
    """The figures of a run from the tables that its folder holds."""
    return summarise(
        store.table(ResultRow), store.table(VerdictRow), store.table(QualityRow), store.table(VisibilityRow)
    )


def summarise(
    results: Sequence[ResultRow],
    verdicts: Sequence[VerdictRow],
    quality: Sequence[QualityRow],
    visibility: Sequence[VisibilityRow] = (),
) -> Summary:
    """The figures of a run from its tables; ``verdicts``,
    ``quality`` and ``visibility`` may be empty.

    What they say of images that have left the run since does not count. A ``RunError`` where
    ``verdicts`` or ``quality`` lack images; a ``visibility`` that does is of an earlier list of
    images and does not count.
    """
    ids = [row.id for row in results]
    verdicts, quality, visibility = _of(ids, verdicts), _of(ids, quality), _of(ids, visibility)
    if {row.id for row in visibility} != set(ids):
        visibility = []
    for rows in (verdicts, quality):
        _check_complete(ids, rows)
    roles = roles_in(verdicts)
    seen = indexed(verdicts)
    return Summary(
        tuple(_classifier(name, roles[name], ids, seen) for name in roles),
        judges_together(roles, ids, seen),
        _defended_judges(roles, ids, seen),
        _label(roles, ids, seen),
        {
            arm: {
                name: bootstrap([row.values.get(name, math.nan) for row in visibility if row.arm == arm], (arm, name))
                for name in VISIBILITY
            }
            for arm in ARMS
            if any(row.arm == arm for row in visibility)
        },
        {
            arm: {metric: _mean(arm, metric, rows) for metric in METRICS if any(metric in row for row in rows)}
            for arm, rows in ((arm, [row.values for row in quality if row.arm == arm]) for arm in ARMS)
            if rows
        },
        _spending(results),
        _shares_of_surrogates(results),
        _movement(results),
        _pulls(results),
        Counter(line for row in results for line in row.idle_terms),
        bootstrap([_nan(row.effective_models) for row in results], ("effective models",)),
        bootstrap([row.seconds for row in results], ("seconds",)),
        len(results),
        tuple({row.target: row.target_name for row in results if row.target is not None}.values()),
    )


def _of(ids: Sequence[str], rows: Sequence[_Judged]) -> list[_Judged]:
    """Those of ``rows`` that are about ``ids``."""
    held = set(ids)
    return [row for row in rows if row.id in held]


def _check_complete(ids: Sequence[str], rows: Sequence[VerdictRow] | Sequence[QualityRow]) -> None:
    """Raise a ``RunError`` where there are ``rows``, but not about all ``ids``."""
    lacking = len(set(ids) - {row.id for row in rows}) if rows else 0
    if lacking:
        raise RunError(
            f"{rows[0].TABLE}.parquet lacks {lacking} of {len(ids)} images, which were finished after the evaluation; "
            "run `attnshift evaluate` again with its judges"
        )


def _classifier(name: str, role: str, ids: Sequence[str], verdicts: Verdicts) -> ClassifierSummary:
    known = [id for id in ids if knows(name, id, verdicts)]
    reached = {arm: [bool(verdicts[name, arm, each].success) for each in known] for arm in _arms(verdicts)}
    control = reached.get("reconstruction", [False] * len(known))
    gained = [int(attack) - int(before) for attack, before in zip(reached["attack"], control, strict=True)]
    return ClassifierSummary(
        name,
        role,
        wilson(len(known), sum(is_judged(name, id, verdicts) for id in ids)),
        {arm: wilson(sum(values), len(values)) for arm, values in reached.items()},
        bootstrap(gained, ("attributable", name)),
    )


def judges_together(roles: Mapping[str, str], ids: Sequence[str], verdicts: Verdicts) -> ClassifierSummary | None:
    """Success on all judges that are counted together, over the images ``ids``; None without
    judges."""
    judges = counted_judges(roles)
    if not judges:
        return None
    role = roles[judges[0]]
    called = f"mean of {plural(len(judges), 'judge' if role == 'judge' else 'defended judge')}"
    for defence, names in judges_by_defence(roles).items():
        if names == judges:
            called = f"mean of {plural(len(judges), 'judge')} behind {defence}"
    return _mean_judge(called, role, judges, ids, verdicts)


def _defended_judges(roles: Mapping[str, str], ids: Sequence[str], verdicts: Verdicts) -> tuple[ClassifierSummary, ...]:
    return tuple(
        _mean_judge(f"mean of {plural(len(names), 'judge')} behind {defence}", "defended", names, ids, verdicts)
        for defence, names in judges_by_defence(roles).items()
        # They may be all judges there are.
        if names != counted_judges(roles)
    )


def _label(roles: Mapping[str, str], ids: Sequence[str], verdicts: Verdicts) -> LabelSummary | None:
    references = [name for name, role in roles.items() if role == "reference"]
    if not references:
        return None
    reference = references[0]
    kept = where_label_is_kept(answers_of(reference, verdicts), verdicts)
    together = judges_together(roles, ids, kept)
    known = [id for id in ids if knows(reference, id, verdicts)]
    right = {arm: sum(verdicts[reference, arm, each].correct for each in known) for arm in _arms(verdicts)}
    return LabelSummary(
        reference,
        wilson(len(known), sum(is_judged(reference, id, verdicts) for id in ids)),
        {arm: wilson(count, len(known)) for arm, count in right.items()},
        (
            *(_classifier(name, role, ids, kept) for name, role in roles.items() if role in ("judge", "defended")),
            *_defended_judges(roles, ids, kept),
            *([together] if together else []),
        ),
    )


def _mean_judge(
    called: str, role: str, judges: Sequence[str], ids: Sequence[str], verdicts: Verdicts
) -> ClassifierSummary:
    """Resamples images, not verdicts: the judges' verdicts on one image are not independent."""
    asked = [[name for name in judges if is_judged(name, id, verdicts)] for id in ids]
    clean = [
        sum(knows(name, id, verdicts) for name in names) / len(names) if names else math.nan
        for id, names in zip(ids, asked, strict=True)
    ]
    return ClassifierSummary(
        called,
        role,
        bootstrap(clean, ("clean",)),
        {arm: bootstrap(_shares(judges, ids, verdicts, arm), ("success", arm)) for arm in _arms(verdicts)},
        bootstrap(judge_gains(judges, ids, verdicts), ("attributable",)),
    )


def judge_gains(judges: Sequence[str], ids: Sequence[str], verdicts: Verdicts) -> list[float]:
    """Per image: the share of the judges that know it when clean on which the attack succeeds, less
    the reconstruction's share, where there is one; nan where no judge knows it."""
    attack = _shares(judges, ids, verdicts, "attack")
    if "reconstruction" not in _arms(verdicts):
        return attack
    return [a - c for a, c in zip(attack, _shares(judges, ids, verdicts, "reconstruction"), strict=True)]


def _arms(verdicts: Verdicts) -> list[str]:
    """The arms that were judged, but for the clean one, in the order of ``ARMS``."""
    seen = {arm for _, arm, _ in verdicts}
    return [arm for arm in ARMS if arm in seen and arm != "clean"]


def _shares(judges: Sequence[str], ids: Sequence[str], verdicts: Verdicts, arm: str) -> list[float]:
    per_image = []
    for id in ids:
        known = [name for name in judges if knows(name, id, verdicts)]
        reached = [bool(verdicts[name, arm, id].success) for name in known]
        per_image.append(sum(reached) / len(reached) if reached else math.nan)
    return per_image


def _mean(arm: str, metric: str, rows: Sequence[Mapping[str, float]]) -> Estimate:
    values = [row[metric] for row in rows if metric in row]
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return Estimate(math.inf, math.inf, math.inf, 0)
    return bootstrap(finite, (arm, metric))


def _nan(value: float | None) -> float:
    return math.nan if value is None else value


_MOVED = {
    "class, saved file": "class_on_file",
    "class, own path": "class_on_path",
    "interference, saved file": "interference_on_file",
    "interference, own path": "interference_on_path",
}
"""Phrase and path -> the field of a ``ResultRow``."""


def _movement(results: Sequence[ResultRow]) -> dict[str, tuple[Estimate, Estimate]]:
    movement = {}
    for name, column in _MOVED.items():
        figures = [each["all"] for row in results if (each := getattr(row, column))]
        if figures:
            shares = [after / before if before else math.nan for before, after, _ in figures]
            distances = [distance for *_, distance in figures]
            movement[name] = bootstrap(shares, ("mass", name)), bootstrap(distances, ("distance", name))
    return movement


def _spending(results: Sequence[ResultRow]) -> dict[str, Estimate]:
    columns = {"budget": [row.spent for row in results], "added pixels": [row.pixel_share for row in results]}
    return {
        name: bootstrap([_nan(each) for each in values], (name,))
        for name, values in columns.items()
        if any(each is not None for each in values)
    }


def _pulls(results: Sequence[ResultRow]) -> dict[str, tuple[float, ...]]:
    """Images whose classification had no gradient in an iteration do not count there."""
    ratios: dict[str, dict[int, list[float]]] = {}
    for row in results:
        for name, values in row.pulls.items():
            if name != "classification":
                triples = zip(row.measured, values, row.pulls["classification"], strict=True)
                for iteration, pull, unit in ((at, each, unit) for at, each, unit in triples if unit):
                    ratios.setdefault(name, {}).setdefault(iteration, []).append(pull / unit)
    return {name: tuple(fmean(by[at]) for at in sorted(by)) for name, by in ratios.items()}


def _shares_of_surrogates(results: Sequence[ResultRow]) -> dict[str, tuple[float, ...]]:
    images: dict[str, list[Sequence[float]]] = {}
    for row in results:
        for name, values in row.shares.items():
            images.setdefault(name, []).append(values)
    # Images that left early have shorter rows.
    return {
        name: tuple(fmean(share for share in shares if share is not None) for shares in zip_longest(*rows))
        for name, rows in images.items()
    }
