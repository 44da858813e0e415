"""What the tables of a run say: success per classifier and arm, and naturalness, with intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from attnshift.evaluation import ARMS, METRICS
from attnshift.evaluation.statistics import Estimate, bootstrap, wilson

__all__ = ["ROLES", "ClassifierSummary", "Correct", "Summary", "judge_gains", "summarise"]

ROLES = ("surrogate", "tuning", "judge")


@dataclass(frozen=True)
class ClassifierSummary:
    """Success on one classifier, or on the mean of all judges.

    ``success`` per arm is the share of the images that the classifier gets right when clean and wrong in that arm;
    ``attributable`` is attack minus reconstruction on the same images.
    """

    name: str
    role: str
    accuracy: Estimate
    success: Mapping[str, Estimate]
    attributable: Estimate


@dataclass(frozen=True)
class Summary:
    classifiers: tuple[ClassifierSummary, ...]
    judges: ClassifierSummary | None
    """All judges together: each image counts with its mean over the judges that know it when clean."""
    quality: Mapping[str, Mapping[str, Estimate]]
    """Arm -> metric -> mean over images; images equal to the clean one have no finite PSNR and are left out of it."""
    seconds: Estimate
    images: int


def summarise(
    results: Sequence[Mapping[str, Any]], verdicts: Sequence[Mapping[str, Any]], quality: Sequence[Mapping[str, Any]]
) -> Summary:
    roles = {row["classifier"]: row["role"] for row in verdicts}
    names = sorted(roles, key=lambda name: ROLES.index(roles[name]))
    correct = {(row["classifier"], row["arm"], row["id"]): bool(row["correct"]) for row in verdicts}
    ids = [row["id"] for row in results]
    judges = [name for name in names if roles[name] == "judge"]
    return Summary(
        tuple(_classifier(name, roles[name], ids, correct) for name in names),
        _mean_judge(judges, ids, correct) if judges else None,
        {
            arm: {metric: _mean(arm, metric, quality) for metric in METRICS}
            for arm in ARMS
            if any(row["arm"] == arm for row in quality)
        },
        bootstrap([row["seconds"] for row in results], ("seconds",)),
        len(results),
    )


Correct = Mapping[tuple[str, str, str], bool]
"""Classifier, arm, image -> whether it is right."""


def _classifier(name: str, role: str, ids: Sequence[str], correct: Correct) -> ClassifierSummary:
    known = [identity for identity in ids if correct[name, "clean", identity]]
    fooled = {arm: [not correct[name, arm, identity] for identity in known] for arm in ARMS if arm != "clean"}
    gained = [
        int(attack) - int(control) for attack, control in zip(fooled["attack"], fooled["reconstruction"], strict=True)
    ]
    return ClassifierSummary(
        name,
        role,
        wilson(len(known), len(ids)),
        {arm: wilson(sum(values), len(values)) for arm, values in fooled.items()},
        bootstrap(gained, ("attributable", name)),
    )


def _mean_judge(judges: Sequence[str], ids: Sequence[str], correct: Correct) -> ClassifierSummary:
    """Resamples images, not verdicts: the judges' verdicts on one image are not independent."""

    clean = [sum(correct[name, "clean", identity] for name in judges) / len(judges) for identity in ids]
    return ClassifierSummary(
        f"mean of {len(judges)} judges",
        "judge",
        bootstrap(clean, ("clean",)),
        {arm: bootstrap(_shares(judges, ids, correct, arm), ("success", arm)) for arm in ARMS if arm != "clean"},
        bootstrap(judge_gains(judges, ids, correct), ("attributable",)),
    )


def judge_gains(judges: Sequence[str], ids: Sequence[str], correct: Correct) -> list[float]:
    """Per image: the share of the judges that know it when clean which the attack fools, less the reconstruction's
    share; nan where no judge knows it."""
    attack, control = (_shares(judges, ids, correct, arm) for arm in ("attack", "reconstruction"))
    return [a - c for a, c in zip(attack, control, strict=True)]


def _shares(judges: Sequence[str], ids: Sequence[str], correct: Correct, arm: str) -> list[float]:
    per_image = []
    for identity in ids:
        known = [name for name in judges if correct[name, "clean", identity]]
        fooled = [not correct[name, arm, identity] for name in known]
        per_image.append(sum(fooled) / len(fooled) if fooled else math.nan)
    return per_image


def _mean(arm: str, metric: str, quality: Sequence[Mapping[str, Any]]) -> Estimate:
    values = [row[metric] for row in quality if row["arm"] == arm]
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return Estimate(math.inf, math.inf, math.inf, 0)
    return bootstrap(finite, (arm, metric))
