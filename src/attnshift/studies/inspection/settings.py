"""Settings of an inspection, and what can be said against them before anything is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from attnshift.defences.names import same_classifier
from attnshift.errors import UserError
from attnshift.execution.early import check_surrogates
from attnshift.execution.settings import Inputs, check_settings, settings_with
from attnshift.recipes.schema import Recipe
from attnshift.studies.inspection.probes import term_options
from attnshift.studies.tuning_roles import check_tuning, refuse_judge

__all__ = ["InspectionSettings", "check_inspection", "check_roles", "path_points"]


@dataclass(frozen=True, kw_only=True)
class InspectionSettings(Inputs):
    """Settings of an inspection.

    ``recipe`` is the attack whose path is followed, on the surrogates. ``tuning`` are the unseen
    classifiers whose descent is the measure; ``reference`` is the classifier whose Grad-CAM says
    where the object is, or nothing. ``terms`` are the terms to measure, each as NAME or
    NAME,key=value,…; none stands for all. ``at`` are shares of the path in [0,1]. ``heads`` also
    measures each head alone.
    """

    recipe: Recipe
    out: Path
    tuning: tuple[str, ...]
    reference: str = ""
    terms: tuple[str, ...] = ()
    at: tuple[float, ...] = (0.0, 1 / 3, 1.0)
    heads: bool = False


def check_inspection(settings: InspectionSettings) -> None:
    """Refuse numbers, roles, terms and points of the path that cannot be meant."""
    for share in settings.at:
        if not 0 <= share <= 1:
            raise UserError(f"`at` is {share}; it must lie between 0 and 1")
    if not settings.at:
        raise UserError("no point of the path is to be measured; give at least one in `at`, such as 0")
    check_surrogates(settings.surrogates)
    check_roles(settings.surrogates, settings.tuning, settings.reference)
    term_options(settings.terms, settings.recipe)
    check_settings(settings_with(settings, settings.recipe, settings.out))


def check_roles(surrogates: Sequence[str], tuning: Sequence[str], reference: str) -> None:
    """Refuse a classifier that would have two roles, and the lab's judges, which decide nothing
    before an evaluation."""
    if not tuning:
        raise UserError("no unseen classifier; give at least one in `tuning`, such as lab:mobilenet")
    check_tuning(surrogates, tuning)
    if reference:
        if same_classifier([reference], [*surrogates, *tuning]):
            raise UserError(f"{reference} cannot be the reference: it is a surrogate or a tuning classifier")
        refuse_judge(reference, "the reference")


def path_points(settings: InspectionSettings) -> tuple[int, ...]:
    """Iterations at which the path is measured, ascending, each once.

    A point inside the path is moved back to the iteration before it that shows the surrogates
    views, so that all points are measured alike.
    """
    iterations, every = settings.recipe.optimiser.iterations, settings.recipe.expectation.every
    shares = sorted(settings.at)
    inside = (round(share * iterations) for share in shares)
    return tuple(sorted({each if each == iterations else each - each % every for each in inside}))
