"""Classifiers that decide in a study, and what else they may be."""

from __future__ import annotations

from collections.abc import Sequence

from attnshift.defences.names import same_classifier, undefended
from attnshift.errors import UserError

__all__ = ["check_tuning", "refuse_judge"]


def check_tuning(surrogates: Sequence[str], tuning: Sequence[str]) -> None:
    """Refuse a tuning classifier that is attacked, named twice, or one of the lab's judges."""
    for name in tuning:
        if same_classifier([name], surrogates):
            raise UserError(f"{name} cannot be a tuning classifier: it is a surrogate")
        if tuning.count(name) > 1:
            raise UserError(f"`tuning` names {name} twice, which would count twice; give it once")
        refuse_judge(name, "a tuning classifier")


def refuse_judge(name: str, role: str) -> None:
    """Raise ``UserError`` where ``name`` is one of the lab's judges, which decide nothing before an
    evaluation; ``role`` is what it would be."""
    from attnshift.lab.classifiers import RECIPES

    source, _, model = undefended(name).partition(":")
    if source == "lab" and model in RECIPES and RECIPES[model].role == "judge":
        raise UserError(f"{name} cannot be {role}: it is one of the lab's judges; use lab:mobilenet")
