"""Naturalness of the images of a run as a set: the distance of each arm to the clean images."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from attnshift.classifiers import load_classifier
from attnshift.errors import UnavailableError
from attnshift.judging.saved import by_size, parts_of_one_size, read_arm
from attnshift.metrics import FEATURES, SETS
from attnshift.metrics.features import Features, classifier_features
from attnshift.metrics.sets import SetMetric
from attnshift.metrics.statistics import Estimate
from attnshift.results.rows import ResultRow, SetRow, images_digest
from attnshift.results.store import Store

__all__ = ["evaluate_sets", "features_of"]


@torch.no_grad()
def features_of(classifier: str) -> Features:
    """Features that the last layer of ``classifier`` (source:name) reads;
    it may be one that the attack has seen."""
    return classifier_features(load_classifier(classifier))


@torch.no_grad()
def evaluate_sets(store: Store, chosen: Features | None = None, batch: int = 32) -> None:
    """Write the table ``sets`` of the run: one row for each metric and arm,
    with a value or a reason for none.

    Features are the ``chosen`` ones, or those that each metric was published with (``usual``).
    """
    rows_of_run = by_size(store)
    ids = [row.id for row in rows_of_run]
    spec = store.spec()
    published = cache(lambda name: FEATURES[name].load()())
    vectors = cache(lambda features, arm: _vectors(store, features, arm, rows_of_run, batch))
    rows = []
    for name, entry in SETS.items():
        metric: SetMetric = entry.load()()
        features: Features = chosen or published(metric.features)
        for arm in (arm for arm in spec.arms if arm != "clean"):
            estimate, reason = None, ""
            try:
                _check_count(metric, features, len(ids))
                estimate = metric(vectors(features, "clean"), vectors(features, arm))
            except UnavailableError as error:
                reason = str(error)
            limits = _limits(estimate)
            rows.append(SetRow(name, arm, features.name, chosen is None, len(ids), *limits, reason, images_digest(ids)))
    store.write_table(SetRow, rows)


def _check_count(metric: SetMetric, features: Features, count: int) -> None:
    least = metric.least(features.width)
    if count < least:
        raise UnavailableError(
            f"needs at least {least} images with {features.width} features each, and here are {count}"
        )


def _vectors(store: Store, features: Features, arm: str, rows: Sequence[ResultRow], batch: int) -> Tensor:
    """Features [images,width] of all images of ``arm``."""
    parts = []
    for part in parts_of_one_size(store, rows, batch):
        parts.append(features.extract(read_arm(store, [row.id for row in part], arm)))
    vectors = torch.cat(parts)
    if not bool(vectors.isfinite().all()):
        raise UnavailableError(f"{features.name} gives features that are not finite")
    return vectors


def _limits(estimate: Estimate | None) -> tuple[float | None, float | None, float | None]:
    return (None, None, None) if estimate is None else (estimate.value, estimate.low, estimate.high)
