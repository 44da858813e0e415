"""Judging a finished run on the 8-bit files that it saved."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from attnshift.classifiers.classifier import Classifier
from attnshift.data.images import read_image
from attnshift.defences.defended import Defended
from attnshift.defences.names import load_defended, relatives
from attnshift.diffusion import load_pipeline
from attnshift.errors import RunError, UserError
from attnshift.evaluation import ARMS, METRICS
from attnshift.evaluation.clean_accuracy import LEAST, doubt
from attnshift.runs.store import Store
from attnshift.types import Goals

__all__ = ["check_classes", "check_judges", "evaluate_run"]

_Channels = tuple[float, float, float]


@torch.no_grad()
def evaluate_run(
    store: Store,
    judges: Sequence[str | Classifier],
    tuning: Sequence[str | Classifier] = (),
    batch: int = 32,
    report: Callable[[int, int], None] = lambda done, count: None,
    min_clean_accuracy: float = LEAST,
) -> tuple[str, ...]:
    """Add verdicts of ``judges`` (and of classifiers used for tuning) to the run, beside those of its surrogates.

    Verdicts of other classifiers that an earlier evaluation added stay. A judge that the attack has seen is refused,
    and so is a judge or tuning classifier that is plainly wrong about the clean images: ``evaluation.clean_accuracy``
    says when, and ``min_clean_accuracy`` is its share of the best classifier's accuracy. Surrogates have been attacked
    already: what would speak against them is returned in sentences. With 0 nobody is refused and all is returned.
    """
    given = {each.name: each for each in (*judges, *tuning) if isinstance(each, Classifier)}
    judged, tuned = ([each if isinstance(each, str) else each.name for each in names] for names in (judges, tuning))
    spec = store.spec()
    before = store.table("verdicts")
    seen = {*spec.surrogates, *tuned, *spec.recipe.tuned_on}
    seen |= {row["classifier"] for row in before if row["role"] == "tuning"}
    check_judges(judged, seen)
    attacked = relatives(tuned, spec.surrogates)
    if attacked:
        names = ", ".join(sorted(attacked))
        raise RunError(f"{names} cannot be a tuning classifier: it was a surrogate, behind a defence or not")
    rows = store.table("results")
    if not rows:
        raise RunError(f"{store.folder} has no finished images yet; run its attack command again to continue it")
    roles = (
        dict.fromkeys(spec.surrogates, "surrogate") | dict.fromkeys(tuned, "tuning") | dict.fromkeys(judged, "judge")
    )
    goals = Goals.of([row["label"] for row in rows], [row["target"] for row in rows])
    pipeline = cache(lambda: load_pipeline(spec.pipeline))
    classifiers = {name: given[name] if name in given else load_defended(name, pipeline) for name in roles}
    check_classes(classifiers.values(), (row[key] for row in rows for key in ("label", "target")))
    known = {row["id"] for row in rows}
    verdicts = [row for row in before if row["classifier"] not in roles and row["id"] in known]
    read = partial(_read, store, spec.size)
    spans = [slice(start, start + batch) for start in range(0, len(rows), batch)]
    for span in spans:
        clean = {"clean": read(rows[span], "clean")}
        verdicts += _verdicts(classifiers, roles, clean, rows[span], goals.rows(span))
    remarks = _doubts(read, rows, verdicts, classifiers, batch, min_clean_accuracy)
    for name, line in remarks.items():
        if min_clean_accuracy and roles[name] != "surrogate":
            raise RunError(f"{line}; mend it, or admit it with --min-clean-accuracy 0")
    quality: list[dict[str, Any]] = []
    metrics = {name: entry.load() for name, entry in METRICS.items()}
    for span in spans:
        part = rows[span]
        arms = {arm: read(part, arm) for arm in ARMS}
        others = {arm: images for arm, images in arms.items() if arm != "clean"}
        verdicts += _verdicts(classifiers, roles, others, part, goals.rows(span))
        quality += _quality(metrics, arms, part)
        report(min(span.stop, len(rows)), len(rows))
    store.write_table("verdicts", verdicts)
    store.write_table("quality", quality)
    return tuple(remarks.values())


def check_judges(judges: Iterable[str], seen: Iterable[str], error: type[UserError] = RunError) -> None:
    """``error`` where one of ``judges`` is a classifier that was ``seen`` before, behind a defence or not."""
    names = relatives(judges, seen)
    if names:
        raise error(
            f"{', '.join(sorted(names))} cannot be a judge: it is a surrogate or was used for tuning, "
            "behind a defence or not"
        )


def check_classes(
    classifiers: Iterable[Classifier], classes: Iterable[int | None], error: type[UserError] = RunError
) -> None:
    """``error`` where one of ``classifiers`` does not know all ``classes``: labels, and targets where there are any."""
    highest = max(each for each in classes if each is not None)
    for classifier in classifiers:
        if classifier.classes <= highest:
            raise error(f"{classifier.name} has {classifier.classes} classes and cannot judge class {highest}")


def _read(store: Store, size: int, rows: Sequence[dict[str, Any]], arm: str) -> Tensor:
    return torch.stack([read_image(store.image_path(row["id"], arm), size) for row in rows])


def _doubts(
    read: Callable[[Sequence[dict[str, Any]], str], Tensor],
    rows: Sequence[dict[str, Any]],
    verdicts: Sequence[dict[str, Any]],
    classifiers: Mapping[str, Classifier],
    batch: int,
    least: float,
) -> dict[str, str]:
    """Classifier -> what the ``verdicts`` on the clean images of this and of earlier evaluations say against it."""
    right: dict[str, list[bool]] = {}
    for row in verdicts:
        if row["arm"] == "clean":
            right.setdefault(row["classifier"], []).append(row["correct"])

    def retry(classifier: Classifier, mean: _Channels, std: _Channels) -> list[bool]:
        tried = replace(classifier, preprocessing=replace(classifier.preprocessing, mean=mean, std=std))
        parts = (rows[start : start + batch] for start in range(0, len(rows), batch))
        seen = (each for part in parts for each in tried(read(part, "clean")).argmax(1).tolist())
        return [number == row["label"] for number, row in zip(seen, rows, strict=True)]

    lines: dict[str, str | None] = {}
    for name, classifier in classifiers.items():
        # What a defence costs is a result, not a wrong normalisation.
        other = None if isinstance(classifier, Defended) else partial(retry, classifier)
        lines[name] = doubt(name, right, other, least)
    return {name: line for name, line in lines.items() if line}


def _verdicts(
    classifiers: Mapping[str, Classifier],
    roles: Mapping[str, str],
    arms: Mapping[str, Tensor],
    rows: Sequence[dict[str, Any]],
    goals: Goals,
) -> list[dict[str, Any]]:
    return [
        verdict
        for name, classifier in classifiers.items()
        for arm, images in arms.items()
        for verdict in _verdicts_on(classifier, name, roles[name], arm, rows, goals, images)
    ]


def _verdicts_on(
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
