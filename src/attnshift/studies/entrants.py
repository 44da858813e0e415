"""Recipes that are compared, and what can be said against them before anything is loaded."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from attnshift.defences.names import names_of_defences
from attnshift.errors import UserError
from attnshift.execution.early import check_surrogates
from attnshift.judging.roles import check_judges
from attnshift.recipes.reading import load_recipe
from attnshift.recipes.schema import BaselineRecipe, Recipe
from attnshift.recipes.strength import at_strength, parse_budget, within_budget
from attnshift.recipes.toml_text import toml_value

__all__ = ["STRENGTHS", "Entrant", "Setting", "check_asked", "read_entrants"]

STRENGTHS = (0.5, 1.0, 2.0)
"""Strengths of a comparison that is given neither strengths nor budgets."""


@dataclass(frozen=True)
class Setting:
    """How far a recipe goes in one run of a comparison: a factor on its steps, or a budget.

    ``budget`` is written as METRIC=LIMIT, or empty. ``repeat`` counts runs with another seed, from
    0.
    """

    strength: float = 1.0
    budget: str = ""
    repeat: int = 0

    def __str__(self) -> str:
        again = f",seed+{self.repeat}" if self.repeat else ""
        return f"{self.budget or format(self.strength, 'g')}{again}"

    def of(self, recipe: Recipe | BaselineRecipe) -> Recipe | BaselineRecipe:
        """``recipe`` as this run takes it."""
        made = within_budget(recipe, parse_budget(self.budget)) if self.budget else at_strength(recipe, self.strength)
        return made.model_copy(update={"seed": made.seed + self.repeat}) if self.repeat else made


@dataclass(frozen=True)
class Entrant:
    """A recipe that is compared, an attack in latents or on pixels: at each of its
    ``strengths``, or where there are ``budgets`` within each of these, with so many ``seeds``.

    With a ``defence``, written as before a classifier's name, it knows that defence: its surrogates
    stand behind it.
    """

    name: str
    recipe: Recipe | BaselineRecipe
    strengths: tuple[float, ...] = ()
    budgets: tuple[str, ...] = ()
    seeds: int = 1
    defence: str = ""

    def surrogates(self, names: Sequence[str]) -> tuple[str, ...]:
        """``names`` of surrogates, as this entrant attacks them."""
        return tuple(f"{self.defence}+{name}" for name in names) if self.defence else tuple(names)

    @property
    def settings(self) -> tuple[Setting, ...]:
        repeats = range(self.seeds)
        return tuple(Setting(each) for each in self.strengths) or tuple(
            Setting(budget=each, repeat=repeat) for each in self.budgets for repeat in repeats
        )


def read_entrants(
    sources: Sequence[str],
    strengths: Sequence[float],
    budgets: Sequence[str] = (),
    seeds: int = 1,
    adaptive: Sequence[str] = (),
    changes: Sequence[str] = (),
    sweeps: Sequence[str] = (),
) -> tuple[Entrant, ...]:
    """Presets, baselines and recipe files, each ``SOURCE`` or ``SOURCE@STRENGTH,…``, named without
    the file's ending, with ``changes`` as ``load_recipe`` takes them.

    Those without strengths of their own are compared at ``strengths``; with ``budgets`` all within
    these, and none has strengths. Each of ``sweeps``, written as ``KEY=VALUE,…``, has every recipe
    stand there once for each value, as ``NAME,KEY=VALUE``; several make all combinations. Behind
    each recipe it stands once more for each defence in ``adaptive``, which it then knows, as
    ``NAME+DEFENCE``.
    """
    variants = [*product(*map(_values, sweeps))]
    entrants: dict[str, Entrant] = {}
    names: set[str] = set()
    for given in sources:
        source, own = _split(given)
        name = Path(source).name.removesuffix(".toml")
        if name in names:
            raise UserError(f"`recipes`, {given}: two recipes are called {name}; give it once, or rename a file")
        names.add(name)
        if budgets and own:
            raise UserError(f"`recipes`, {given}: within a budget no strength is chosen; write {source} alone")
        at = () if budgets else own or tuple(strengths)
        for values in variants:
            called = ",".join([name, *(each.name for each in values)])
            recipe = load_recipe(source, [*changes, *(each.setting for each in values)])
            if values:
                recipe = recipe.model_copy(update={"name": ",".join([recipe.name, *(each.name for each in values)])})
            static = Entrant(called, recipe, at, tuple(budgets), seeds)
            for each in (static, *_knowing(static, adaptive)):
                if each.name in entrants:
                    raise UserError(f"two recipes are called {each.name}; give each value and each defence once")
                entrants[each.name] = each
    return tuple(entrants.values())


def _knowing(static: Entrant, adaptive: Sequence[str]) -> list[Entrant]:
    """``static`` once more for each defence, which it knows."""
    return [
        replace(static, name="+".join([static.name, *names_of_defences(defence)]), defence=defence)
        for defence in adaptive
    ]


@dataclass(frozen=True)
class _Value:
    """A value of a key that is swept: its ``setting``, KEY=VALUE as TOML, and the same as a part of
    a file's name."""

    setting: str
    name: str


def _values(sweep: str) -> list[_Value]:
    """Values of ``KEY=VALUE,…``: a list of TOML without its brackets, or else plain texts."""
    key, separator, listed = (part.strip() for part in sweep.partition("="))
    try:
        values = [toml_value(each) for each in tomllib.loads(f"values = [{listed}]")["values"]]
    except ValueError:
        values = [each.strip() for each in listed.split(",")]
    if not (key and separator and values and all(values)):
        raise UserError(f"`sweeps` is {sweep}; expected KEY=VALUE,…, such as terms.contrast.weight=0,0.2,0.5")
    return [_Value(f"{key}={each}", f"{key}={_file_part(each)}") for each in values]


def _file_part(value: str) -> str:
    return re.sub(r"[^\w.+-]+", "-", re.sub(r"[\[\]{}\"' ]", "", value))


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
    makes = {entrant.recipe.generates: entrant.name for entrant in entrants}
    if len(makes) > 1:
        raise UserError(
            f"`recipes`: {makes[True]} makes images of its own, and {makes[False]} edits those that it is given; "
            "compare them apart"
        )
    for entrant in entrants:
        for budget in entrant.budgets:
            parse_budget(budget)
        _once("`budgets`", entrant.budgets)
        if not entrant.settings:
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
