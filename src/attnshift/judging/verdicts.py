"""Verdicts on a finished run, on the 8-bit files that it saved."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial

import torch
from torch import Tensor

from attnshift.classifiers.classifier import Classifier, KnowsFiles, in_order_of, vocabulary
from attnshift.classifiers.names import NAMES_FILE
from attnshift.defences.defended import DefenceCache, Defended
from attnshift.defences.names import load_defended
from attnshift.diffusion import load_pipeline
from attnshift.errors import RunError, UserError
from attnshift.judging.quality import measurable, measure_quality
from attnshift.judging.roles import assign_roles
from attnshift.judging.saved import by_size, parts_of_one_size, read_arm, smallest_size
from attnshift.metrics.clean_accuracy import LEAST, suspicion
from attnshift.results.rows import QualityRow, ResultRow, UnavailableRow, VerdictRow
from attnshift.results.store import Store
from attnshift.types import Goals

__all__ = ["evaluate_run", "in_run_order"]

_Channels = tuple[float, float, float]


@torch.no_grad()
def evaluate_run(
    store: Store,
    judges: Sequence[str | Classifier],
    tuning: Sequence[str | Classifier] = (),
    batch: int = 32,
    report: Callable[[int, int], None] = lambda done, count: None,
    min_clean_accuracy: float = LEAST,
    reference: str | Classifier | None = None,
) -> tuple[str, ...]:
    """Add verdicts of ``judges`` (and of classifiers used for tuning) to the run,
    beside those of its surrogates.

    ``reference`` is a classifier that speaks for the label: an image in which it no longer sees the
    true class shows no weakness. It has no other role. A run has one reference; a new one replaces
    it.

    Verdicts of other classifiers from an earlier evaluation stay. A judge that the attack has seen
    is refused with a ``RunError``. So is a judge that is plainly wrong about the clean images:
    ``metrics.clean_accuracy`` says when, and ``min_clean_accuracy`` is its share of the best
    classifier's accuracy, in [0,1]; with 0 no judge is refused. ``report`` is called with the
    images that are done and their number, after every ``batch``.

    Logits are brought to the class order of the run by name (``in_run_order``). A classifier gets
    no verdict on an image whose class, or target, it does not have.

    Returns sentences: remarks on surrogates (never refused, since they have been attacked already),
    remarks on judges that were not refused, and classifiers that have not seen all images.
    """
    references = [] if reference is None else [reference]
    given = {each.name: each for each in (*judges, *tuning, *references) if isinstance(each, Classifier)}
    judged, tuned, referred = (
        [each if isinstance(each, str) else each.name for each in names] for names in (judges, tuning, references)
    )
    spec = store.spec()
    before = store.table(VerdictRow)
    roles = assign_roles(store, before, judged, tuned, referred[0] if referred else None)
    rows = by_size(store)
    pipeline = cache(lambda: load_pipeline(spec.pipeline))
    classifiers = {name: given[name] if name in given else load_defended(name, pipeline) for name in roles}
    roles |= {name: "defended" for name in judged if isinstance(classifiers[name], Defended)}
    surrogates = [classifiers[name] for name in spec.surrogates]
    classes = [(row.label, row.target) for row in rows]
    classifiers = {name: in_run_order(each, surrogates, classes) for name, each in classifiers.items()}
    replaced = "reference" if referred else ""
    others = [row for row in before if row.classifier not in roles and row.role != replaced]
    verdicts, outdated = _up_to_date(others, rows)
    read = partial(_read, store)
    parts = [*parts_of_one_size(store, rows, batch)]
    for part in parts:
        verdicts += _verdicts(classifiers, roles, {"clean": read(part, "clean")}, part)
    remarks = _suspicions(store, rows, verdicts, classifiers, batch, min_clean_accuracy)
    for name, line in remarks.items():
        if min_clean_accuracy and roles[name] != "surrogate":
            raise RunError(f"{line}; mend it, or set `min_clean_accuracy` to 0 to admit it")
    quality: list[QualityRow] = []
    metrics, reasons = measurable(smallest_size(store))
    done = 0
    for part in parts:
        arms = {arm: read(part, arm) for arm in spec.arms}
        edited = {arm: images for arm, images in arms.items() if arm != "clean"}
        verdicts += _verdicts(classifiers, roles, edited, part)
        quality += measure_quality(metrics, arms, [row.id for row in part])
        done += len(part)
        report(done, len(rows))
    store.write_table(VerdictRow, _without_unknown(verdicts))
    store.write_table(QualityRow, quality)
    store.write_table(UnavailableRow, [UnavailableRow(name, reason) for name, reason in reasons.items()])
    return (*remarks.values(), *_partial(classifiers, classes), *outdated)


def _without_unknown(verdicts: Sequence[VerdictRow]) -> list[VerdictRow]:
    """The ``verdicts``, without success where the classifier is wrong about the clean image: no arm
    has fooled it."""
    known = {(row.classifier, row.id) for row in verdicts if row.arm == "clean" and row.correct}
    return [row if (row.classifier, row.id) in known else replace(row, success=None) for row in verdicts]


def in_run_order(
    classifier: Classifier,
    surrogates: Sequence[Classifier],
    classes: Sequence[tuple[int, int | None]],
    error: type[UserError] = RunError,
) -> Classifier:
    """``classifier`` with logits in the class order of a run:
    that of the first of ``surrogates`` that has names.

    ``classes`` are label and target of each image. Without names, classes go by number. Raises
    ``error`` for a classifier that can judge none of the images, and for one that goes by number
    and has other classes.
    """
    names = vocabulary(surrogates)
    ordered = in_order_of(names, classifier)
    if ordered.order is None:
        highest = max(each for pair in classes for each in pair if each is not None)
        if ordered.classes <= highest:
            raise error(f"{classifier.name} has {classifier.classes} classes and cannot judge class {highest}")
        if ordered.classes != surrogates[0].classes:
            raise error(
                f"{classifier.name} has {classifier.classes} classes, the surrogates have {surrogates[0].classes}, and "
                f"names are missing that tell which are the same; give them in {NAMES_FILE} beside the weights"
            )
    elif not any(_can_judge(ordered, *pair) for pair in classes):
        raise error(f"{classifier.name} has no class called '{names[classes[0][0]]}', and cannot judge any image")
    return ordered


def _can_judge(classifier: Classifier, label: int, target: int | None) -> bool:
    return classifier.knows(label) and (target is None or classifier.knows(target))


def _partial(classifiers: Mapping[str, Classifier], classes: Sequence[tuple[int, int | None]]) -> list[str]:
    """A sentence about each of ``classifiers`` that cannot judge all images."""
    counts = {name: sum(_can_judge(each, *pair) for pair in classes) for name, each in classifiers.items()}
    return [
        f"{name} judges {count} of {len(classes)} images; it has no class of the same name for the others"
        for name, count in counts.items()
        if count < len(classes)
    ]


def _up_to_date(verdicts: Sequence[VerdictRow], images: Sequence[ResultRow]) -> tuple[list[VerdictRow], list[str]]:
    """The ``verdicts`` of classifiers that have seen all ``images``,
    and a sentence about each that has not.

    A classifier that has seen no image of a class may not have that class, and is not asked for it.
    """
    rows = {row.id: row for row in images}
    seen: dict[str, set[str]] = {}
    for row in verdicts:
        seen.setdefault(row.classifier, set()).add(row.id)
    lacking: dict[str, int] = {}
    for name, ids in seen.items():
        known = [rows[id] for id in ids if id in rows]
        labels, targets = {row.label for row in known}, {row.target for row in known}
        missed = [row for row in images if row.id not in ids and row.label in labels and row.target in targets]
        if missed or not known:
            lacking[name] = len(missed) or len(rows)
    kept = [row for row in verdicts if row.classifier not in lacking and row.id in rows]
    sentences = [
        f"{name} has not seen {count} of the {len(images)} images, which the run has got since; name it again"
        for name, count in lacking.items()
    ]
    return kept, sentences


def _read(store: Store, rows: Sequence[ResultRow], arm: str) -> Tensor:
    return read_arm(store, [row.id for row in rows], arm)


def _suspicions(
    store: Store,
    rows: Sequence[ResultRow],
    verdicts: Sequence[VerdictRow],
    classifiers: Mapping[str, Classifier],
    batch: int,
    least: float,
) -> dict[str, str]:
    """Classifier -> what the ``verdicts`` on the clean images of this
    and of earlier evaluations say against it."""
    right: dict[str, list[bool]] = {}
    for row in verdicts:
        if row.arm == "clean":
            right.setdefault(row.classifier, []).append(row.correct)

    def retry(classifier: Classifier, mean: _Channels, std: _Channels) -> list[bool]:
        tried = replace(classifier, preprocessing=replace(classifier.preprocessing, mean=mean, std=std))
        judged = [row for row in rows if _can_judge(classifier, row.label, row.target)]
        parts = parts_of_one_size(store, judged, batch)
        seen = (each for part in parts for each in tried(_read(store, part, "clean")).argmax(1).tolist())
        return [number == row.label for number, row in zip(seen, judged, strict=True)]

    lines: dict[str, str | None] = {}
    for name, classifier in classifiers.items():
        # What a defence costs is a result, not a wrong normalisation.
        other = None if isinstance(classifier, Defended) else partial(retry, classifier)
        lines[name] = suspicion(name, right, other, least)
    return {name: line for name, line in lines.items() if line}


def _verdicts(
    classifiers: Mapping[str, Classifier],
    roles: Mapping[str, str],
    arms: Mapping[str, Tensor],
    rows: Sequence[ResultRow],
) -> list[VerdictRow]:
    goals = Goals.of([row.label for row in rows], [row.target for row in rows])
    shown = {arm: DefenceCache(images) for arm, images in arms.items()}
    files = [row.file for row in rows]
    asked = {name: each.of_files(files) if isinstance(each, KnowsFiles) else each for name, each in classifiers.items()}
    return [
        verdict
        for name, classifier in asked.items()
        for arm in arms
        for verdict in _verdicts_on(classifier, name, roles[name], arm, rows, goals, shown[arm].to(classifier))
    ]


def _verdicts_on(
    classifier: Classifier, name: str, role: str, arm: str, rows: Sequence[ResultRow], goals: Goals, logits: Tensor
) -> list[VerdictRow]:
    shares = logits.softmax(1)
    achieved = goals.achieved(shares.argmax(1)).tolist()
    verdicts = []
    for row, values, success in zip(rows, shares, achieved, strict=True):
        if not _can_judge(classifier, row.label, row.target):
            continue
        predicted = int(values.argmax())
        verdicts.append(
            VerdictRow(
                id=row.id,
                arm=arm,
                classifier=name,
                role=role,
                predicted=predicted,
                predicted_name=(classifier.class_names[predicted] if classifier.class_names else "") or str(predicted),
                correct=predicted == row.label,
                success=success,
                true_probability=float(values[row.label]),
                predicted_probability=float(values[predicted]),
            )
        )
    return verdicts
