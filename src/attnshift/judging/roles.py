"""Roles of classifiers in a run. A classifier that an attack has seen,
or that speaks for the labels, never judges."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from attnshift.defences.names import same_classifier
from attnshift.errors import RunError, UserError
from attnshift.results.rows import VerdictRow
from attnshift.results.store import Store

__all__ = ["assign_roles", "check_judges", "check_reference"]


def assign_roles(
    store: Store,
    before: Sequence[VerdictRow],
    judges: Sequence[str],
    tuning: Sequence[str],
    reference: str | None,
) -> dict[str, str]:
    """Classifier -> role, for all classifiers that are shown the run;
    ``before`` are its verdicts so far.

    A ``RunError`` where one of them, behind a defence or not, has another role that excludes this
    one: surrogates and tuning classifiers never judge, and a reference has no other role.
    """
    spec = store.spec()
    seen = {*spec.surrogates, *tuning, *spec.recipe.tuned_on} | _with_role(before, "tuning")
    check_judges(judges, seen)
    attacked = same_classifier(tuning, spec.surrogates)
    if attacked:
        names = ", ".join(sorted(attacked))
        raise RunError(f"{names} cannot be a tuning classifier: it was a surrogate, behind a defence or not")
    if reference is None:
        _check_against(_with_role(before, "reference"), {"a judge": judges, "a tuning classifier": tuning})
    else:
        _check_reference(
            store, reference, seen, {*judges, *_with_role(before, "judge"), *_with_role(before, "defended")}
        )
    return (
        dict.fromkeys(spec.surrogates, "surrogate")
        | dict.fromkeys(tuning, "tuning")
        | ({reference: "reference"} if reference else {})
        | dict.fromkeys(judges, "judge")
    )


def check_judges(judges: Iterable[str], seen: Iterable[str], error: type[UserError] = RunError) -> None:
    """``error`` where one of ``judges`` is a classifier
    that was ``seen`` before, behind a defence or not."""
    names = same_classifier(judges, seen)
    if names:
        raise error(
            f"{', '.join(sorted(names))} cannot be a judge: it is a surrogate or was used for tuning, "
            "behind a defence or not"
        )


def check_reference(reference: str, seen: Iterable[str], error: type[UserError] = RunError) -> None:
    """``error`` where ``reference`` is a classifier that was ``seen`` before, behind a defence or
    not."""
    if same_classifier([reference], seen):
        raise error(
            f"{reference} cannot be the reference: it is a surrogate or was used for tuning, behind a defence or not; "
            "take a classifier that has no other part in this run"
        )


def _check_reference(store: Store, reference: str, seen: Iterable[str], judges: Iterable[str]) -> None:
    check_reference(reference, seen)
    judging = same_classifier(judges, [reference])
    if judging:
        raise RunError(
            f"{reference} cannot be the reference: {', '.join(sorted(judging))} judges this run; take another, or "
            f"remove {store.folder / 'verdicts.parquet'} and evaluate the run again"
        )


def _check_against(references: Iterable[str], roles: Mapping[str, Sequence[str]]) -> None:
    for role, names in roles.items():
        same = same_classifier(names, references)
        if same:
            raise RunError(
                f"{', '.join(sorted(same))} cannot be {role}: it is the run's reference, behind a defence or not; "
                "give another `reference` as well, or leave it out"
            )


def _with_role(verdicts: Sequence[VerdictRow], role: str) -> set[str]:
    return {row.classifier for row in verdicts if row.role == role}
