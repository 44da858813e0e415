"""What the tables of a run say: success per classifier and arm, and naturalness, with intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from statistics import fmean
from typing import Any

from attnshift.evaluation import ARMS, METRICS
from attnshift.evaluation.statistics import Estimate, bootstrap, wilson

__all__ = ["ROLES", "ClassifierSummary", "Summary", "Verdicts", "indexed", "judge_gains", "summarise"]

ROLES = ("surrogate", "tuning", "judge")


@dataclass(frozen=True)
class ClassifierSummary:
    """Success on one classifier, or on the mean of all judges.

    ``success`` per arm is over the images that the classifier gets right when clean: the share that it gets wrong in
    that arm, or in a targeted attack takes for the target. ``attributable`` is attack minus reconstruction on the same
    images.
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
    shares: Mapping[str, tuple[float, ...]]
    """Surrogate -> its share of the fused direction in each iteration, averaged over the images still attacked."""
    effective_models: Estimate
    """1 / sum of squared shares, averaged over iterations and images."""
    seconds: Estimate
    images: int
    targets: tuple[str, ...]
    """Names of the classes that images shall be seen as, each once; none in an untargeted attack."""

    @property
    def aim(self) -> str:
        """``, targeted at mug``, or ``, targeted per image``; nothing for an untargeted attack."""
        if not self.targets:
            return ""
        return f", targeted at {self.targets[0]}" if len(self.targets) == 1 else ", targeted per image"


def summarise(
    results: Sequence[Mapping[str, Any]], verdicts: Sequence[Mapping[str, Any]], quality: Sequence[Mapping[str, Any]]
) -> Summary:
    roles = {row["classifier"]: row["role"] for row in verdicts}
    names = sorted(roles, key=lambda name: ROLES.index(roles[name]))
    seen = indexed(verdicts)
    ids = [row["id"] for row in results]
    judges = [name for name in names if roles[name] == "judge"]
    return Summary(
        tuple(_classifier(name, roles[name], ids, seen) for name in names),
        _mean_judge(judges, ids, seen) if judges else None,
        {
            arm: {metric: _mean(arm, metric, quality) for metric in METRICS}
            for arm in ARMS
            if any(row["arm"] == arm for row in quality)
        },
        _shares_of_surrogates(results),
        bootstrap([row["effective_models"] for row in results], ("effective models",)),
        bootstrap([row["seconds"] for row in results], ("seconds",)),
        len(results),
        tuple({row["target"]: row["target_name"] for row in results if row["target"] is not None}.values()),
    )


Verdicts = Mapping[tuple[str, str, str], Mapping[str, Any]]
"""Classifier, arm, image -> the row that says what was seen."""


def indexed(verdicts: Sequence[Mapping[str, Any]]) -> Verdicts:
    return {(row["classifier"], row["arm"], row["id"]): row for row in verdicts}


def _classifier(name: str, role: str, ids: Sequence[str], verdicts: Verdicts) -> ClassifierSummary:
    known = [identity for identity in ids if verdicts[name, "clean", identity]["correct"]]
    reached = {arm: [verdicts[name, arm, each]["success"] for each in known] for arm in ARMS if arm != "clean"}
    gained = [
        int(attack) - int(control) for attack, control in zip(reached["attack"], reached["reconstruction"], strict=True)
    ]
    return ClassifierSummary(
        name,
        role,
        wilson(len(known), len(ids)),
        {arm: wilson(sum(values), len(values)) for arm, values in reached.items()},
        bootstrap(gained, ("attributable", name)),
    )


def _mean_judge(judges: Sequence[str], ids: Sequence[str], verdicts: Verdicts) -> ClassifierSummary:
    """Resamples images, not verdicts: the judges' verdicts on one image are not independent."""

    clean = [sum(verdicts[name, "clean", identity]["correct"] for name in judges) / len(judges) for identity in ids]
    return ClassifierSummary(
        f"mean of {len(judges)} judges",
        "judge",
        bootstrap(clean, ("clean",)),
        {arm: bootstrap(_shares(judges, ids, verdicts, arm), ("success", arm)) for arm in ARMS if arm != "clean"},
        bootstrap(judge_gains(judges, ids, verdicts), ("attributable",)),
    )


def judge_gains(judges: Sequence[str], ids: Sequence[str], verdicts: Verdicts) -> list[float]:
    """Per image: the share of the judges that know it when clean on which the attack succeeds, less the
    reconstruction's share; nan where no judge knows it."""
    attack, control = (_shares(judges, ids, verdicts, arm) for arm in ("attack", "reconstruction"))
    return [a - c for a, c in zip(attack, control, strict=True)]


def _shares(judges: Sequence[str], ids: Sequence[str], verdicts: Verdicts, arm: str) -> list[float]:
    per_image = []
    for identity in ids:
        known = [name for name in judges if verdicts[name, "clean", identity]["correct"]]
        reached = [verdicts[name, arm, identity]["success"] for name in known]
        per_image.append(sum(reached) / len(reached) if reached else math.nan)
    return per_image


def _mean(arm: str, metric: str, quality: Sequence[Mapping[str, Any]]) -> Estimate:
    values = [row[metric] for row in quality if row["arm"] == arm]
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return Estimate(math.inf, math.inf, math.inf, 0)
    return bootstrap(finite, (arm, metric))


def _shares_of_surrogates(results: Sequence[Mapping[str, Any]]) -> dict[str, tuple[float, ...]]:
    images: dict[str, list[Sequence[float]]] = {}
    for row in results:
        for each in row["shares"]:
            images.setdefault(each["name"], []).append(each["values"])
    # Images that left early have shorter rows.
    return {
        name: tuple(fmean(share for share in shares if share is not None) for shares in zip_longest(*rows))
        for name, rows in images.items()
    }
