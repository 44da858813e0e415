"""Recipes that are compared, and what can be said against them before anything is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from attnshift.errors import UserError
from attnshift.execution.early import check_surrogates
from attnshift.judging.roles import check_judges
from attnshift.recipes.reading import load_recipe
from attnshift.recipes.schema import BaselineRecipe, Recipe

__all__ = ["Entrant", "check_asked", "read_entrants"]


@dataclass(frozen=True)
class Entrant:
    """A recipe that is compared, an attack in latents or on pixels,
    at each of its ``strengths``."""

    name: str
    recipe: Recipe | BaselineRecipe
    strengths: tuple[float, ...]


def read_entrants(sources: Sequence[str], strengths: Sequence[float]) -> tuple[Entrant, ...]:
    """Presets, baselines and recipe files, each ``SOURCE`` or ``SOURCE@STRENGTH,…``,
    named without the file's ending.

    Those without strengths of their own are compared at ``strengths``.
    """
    entrants: dict[str, Entrant] = {}
    for given in sources:
        source, own = _split(given)
        name = Path(source).name.removesuffix(".toml")
        if name in entrants:
            raise UserError(f"`recipes`, {given}: two recipes are called {name}; give it once, or rename a file")
        entrants[name] = Entrant(name, load_recipe(source), own or tuple(strengths))
    return tuple(entrants.values())


def _split(given: str) -> tuple[str, tuple[float, ...]]:
    source, _, listed = given.rpartition("@")
    try:
        return source or given, tuple(float(each) for each in listed.split(",")) if source else ()
    except ValueError:
        # An @ of the file's own name.
        return given, ()


def check_asked(surrogates: Sequence[str], judges: Sequence[str], entrants: Sequence[Entrant]) -> None:
    """Raise ``UserError`` for names and strengths that no comparison can be made of."""
    check_surrogates(surrogates)
    if not judges:
        raise UserError("no classifier judges; give at least one in `judges`, such as timm:vit_base_patch16_224")
    if not entrants:
        raise UserError("no recipe to compare; give at least one in `recipes`, such as fast or mifgsm")
    for entrant in entrants:
        if not entrant.strengths:
            raise UserError("no strength to attack with; give at least one in `strengths`, such as 1")
        for strength in entrant.strengths:
            if not 0.001 <= strength <= 1000:
                given = f"`strengths` of {entrant.name}: {strength:g}"
                raise UserError(f"{given}; it must lie between 0.001 and 1000, and 1 changes nothing")
        _once(f"`strengths` of {entrant.name}", [f"{each:g}" for each in entrant.strengths])
    _once("`judges`", judges)
    tuned_on = {name for entrant in entrants for name in entrant.recipe.tuned_on}
    check_judges(judges, {*surrogates, *tuned_on}, UserError)


def _once(what: str, given: Sequence[str]) -> None:
    twice = [each for each in given if given.count(each) > 1]
    if twice:
        raise UserError(f"{what}: {twice[0]} is given twice; give it once")
