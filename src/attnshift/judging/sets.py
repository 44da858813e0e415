"""How natural the images of a run look as a set: each arm's distance to the clean images, where there are enough."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from attnshift.classifiers import load_classifier
from attnshift.errors import UnavailableError
from attnshift.judging.saved import finished_rows, read_arm
from attnshift.metrics import FEATURES, SETS
from attnshift.metrics.features import Features, classifier_features
from attnshift.metrics.sets import SetMetric
from attnshift.metrics.statistics import Estimate
from attnshift.results.store import Store

__all__ = ["evaluate_sets", "features_of"]


@torch.no_grad()
def features_of(classifier: str) -> Features:
    """What the last layer of ``classifier`` (source:name) reads; whether the attack has seen it does not matter."""
    return classifier_features(load_classifier(classifier))


@torch.no_grad()
def evaluate_sets(store: Store, chosen: Features | None = None, batch: int = 32) -> None:
    """Write the table ``sets`` of the run, anew: one row per metric and arm, with a value or the reason why not.

    Features are those that each metric was published with (``usual``) or, for all of them, the ``chosen`` ones.
    """
    ids = [row["id"] for row in finished_rows(store)]
    spec = store.spec()
    published = cache(lambda name: FEATURES[name].load()())
    vectors = cache(lambda features, arm: _vectors(store, spec.size, features, arm, ids, batch))
    rows = []
    for name, entry in SETS.items():
        metric: SetMetric = entry.load()()
        features: Features = chosen or published(metric.features)
        for arm in (arm for arm in spec.arms if arm != "clean"):
            row = {"metric": name, "arm": arm, "features": features.name, "usual": chosen is None, "images": len(ids)}
            try:
                _check_count(metric, features, len(ids))
                estimate = metric(vectors(features, "clean"), vectors(features, arm))
            except UnavailableError as error:
                rows.append(row | _figures(None, str(error)))
            else:
                rows.append(row | _figures(estimate, ""))
    store.write_table("sets", rows)


def _check_count(metric: SetMetric, features: Features, count: int) -> None:
    least = metric.least(features.width)
    if count < least:
        raise UnavailableError(
            f"needs at least {least} images with {features.width} features each, and here are {count}"
        )


def _vectors(store: Store, size: int, features: Features, arm: str, ids: Sequence[str], batch: int) -> Tensor:
    """Features [images,width] of all images of ``arm``."""
    parts = []
    for start in range(0, len(ids), batch):
        parts.append(features.extract(read_arm(store, size, ids[start : start + batch], arm)))
    vectors = torch.cat(parts)
    if not bool(vectors.isfinite().all()):
        raise UnavailableError(f"{features.name} gives features that are not finite")
    return vectors


def _figures(estimate: Estimate | None, reason: str) -> dict[str, Any]:
    limits = {name: getattr(estimate, name, None) for name in ("value", "low", "high")}
    return limits | {"reason": reason}
