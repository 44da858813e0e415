"""Judging a finished run on the 8-bit files that it saved."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from attnshift.classifiers import load_classifier
from attnshift.classifiers.classifier import Classifier
from attnshift.data.images import read_image
from attnshift.errors import RunError
from attnshift.evaluation import ARMS, METRICS
from attnshift.runs.store import Store
from attnshift.types import Goals

__all__ = ["evaluate_run"]


@torch.no_grad()
def evaluate_run(
    store: Store,
    judges: Sequence[str],
    tuning: Sequence[str] = (),
    batch: int = 32,
    report: Callable[[int, int], None] = lambda done, count: None,
) -> None:
    """Add verdicts of ``judges`` (and of classifiers used for tuning) to the run, beside those of its surrogates.

    Verdicts of other classifiers that an earlier evaluation added stay. A judge that the attack has seen is refused.
    """
    spec = store.spec()
    before = {row["classifier"]: row["role"] for row in store.table("verdicts")}
    seen = {*spec.surrogates, *tuning, *spec.recipe.tuned_on}
    seen |= {name for name, role in before.items() if role == "tuning"}
    _refuse(set(judges) & seen, "a judge: it was a surrogate or used for tuning")
    _refuse(set(tuning) & set(spec.surrogates), "a tuning classifier: it was a surrogate")
    rows = store.table("results")
    if not rows:
        raise RunError(f"{store.folder} has no finished images yet; run its attack command again to continue it")
    roles = (
        dict.fromkeys(spec.surrogates, "surrogate") | dict.fromkeys(tuning, "tuning") | dict.fromkeys(judges, "judge")
    )
    goals = Goals.of([row["label"] for row in rows], [row["target"] for row in rows])
    classifiers = {name: load_classifier(name) for name in roles}
    for classifier in classifiers.values():
        _check(classifier, max(int(each.max()) for each in (goals.labels, goals.targets) if each is not None))
    known = {row["id"] for row in rows}
    verdicts = [row for row in store.table("verdicts") if row["classifier"] not in roles and row["id"] in known]
    quality: list[dict[str, Any]] = []
    metrics = {name: entry.load() for name, entry in METRICS.items()}
    for start in range(0, len(rows), batch):
        span = slice(start, start + batch)
        part = rows[span]
        arms = {
            arm: torch.stack([read_image(store.image_path(row["id"], arm), spec.size) for row in part]) for arm in ARMS
        }
        for name, classifier in classifiers.items():
            for arm, images in arms.items():
                verdicts += _verdicts(classifier, name, roles[name], arm, part, goals.rows(span), images)
        quality += _quality(metrics, arms, part)
        report(min(start + batch, len(rows)), len(rows))
    store.write_table("verdicts", verdicts)
    store.write_table("quality", quality)


def _refuse(names: set[str], role: str) -> None:
    if names:
        raise RunError(f"{', '.join(sorted(names))} cannot be {role}")


def _check(classifier: Classifier, highest: int) -> None:
    if classifier.classes <= highest:
        raise RunError(f"{classifier.name} has {classifier.classes} classes and cannot judge class {highest}")


def _verdicts(
    classifier: Classifier, name: str, role: str, arm: str, rows: Sequence[dict[str, Any]], goals: Goals, images: Tensor
) -> list[dict[str, Any]]:
    shares = classifier(images).softmax(1)
    reached = goals.reached(shares.argmax(1)).tolist()
    verdicts = []
    for row, values, success in zip(rows, shares, reached, strict=True):
        predicted = int(values.argmax())
        verdicts.append(
            {
                "id": row["id"],
                "arm": arm,
                "classifier": name,
                "role": role,
                "predicted": predicted,
                "predicted_name": classifier.class_names[predicted] if classifier.class_names else str(predicted),
                "correct": predicted == row["label"],
                "success": success,
                "true_probability": float(values[row["label"]]),
                "predicted_probability": float(values[predicted]),
            }
        )
    return verdicts


def _quality(
    metrics: Mapping[str, Callable[[Tensor, Tensor], Tensor]],
    arms: Mapping[str, Tensor],
    rows: Sequence[dict[str, Any]],
) -> list[dict[str, Any]]:
    quality = []
    for arm in (arm for arm in arms if arm != "clean"):
        values = {name: metric(arms["clean"], arms[arm]).tolist() for name, metric in metrics.items()}
        quality += [
            {"id": row["id"], "arm": arm} | {name: values[name][place] for name in metrics}
            for place, row in enumerate(rows)
        ]
    return quality
