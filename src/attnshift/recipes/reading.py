"""Recipes by name or from a file, with settings applied;
of attacks on latents and on pixels alike."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import date, time
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from attnshift.baselines import BASELINES
from attnshift.baselines.diffusion import DiffusionBaseline
from attnshift.baselines.kinds import Baseline, BudgetBaseline
from attnshift.errors import RecipeError
from attnshift.metrics import budget_metric
from attnshift.recipes.presets import preset_names, preset_text
from attnshift.recipes.schema import BaselineRecipe, BaselineSection, Recipe
from attnshift.registry import build, describe, suggest

__all__ = [
    "baseline_of",
    "load_latent_recipe",
    "load_recipe",
    "override",
    "parse_recipe",
    "read_recipe_file",
    "recipe_of",
]

_DEEPEST = 12
"""Tables and lists of a recipe that may lie within each other;
libraries follow deeper ones until the stack ends."""
_LARGEST = 2**20
"""Bytes of a recipe file."""

_Recipe = TypeVar("_Recipe", bound=BaseModel)


def load_recipe(source: str, settings: Iterable[str] = ()) -> Recipe | BaselineRecipe:
    """The preset or baseline called ``source``, or the TOML file at that path, with
    ``key.path=value`` settings.

    A file with a section ``[baseline]`` describes a baseline;
    its recipe comes back with all of its options.
    """
    if source in BASELINES:
        values = {"name": source, "summary": BASELINES[source].summary, "baseline": {"attack": source}}
    elif source.endswith(".toml"):
        values = read_recipe_file(source)
    elif source in preset_names():
        values = _parsed(preset_text(source), source)
    else:
        raise _unknown_recipe(source)
    return recipe_of(override(values, settings), source)


def load_latent_recipe(source: str, settings: Iterable[str] = ()) -> Recipe:
    """As ``load_recipe``, for what attacks latents alone:
    a recipe of an attack on pixels is a ``RecipeError``."""
    recipe = load_recipe(source, settings)
    if isinstance(recipe, BaselineRecipe):
        raise RecipeError(f"recipe {source} attacks pixels, and a recipe of an attack on latents is wanted here")
    return recipe


def recipe_of(values: Mapping[str, Any], source: str) -> Recipe | BaselineRecipe:
    """``values`` as a recipe of the kind that they describe;
    ``source`` says in errors where they come from."""
    if "peer" in values and "baseline" not in values:
        raise RecipeError(f"recipe {source}: the section [peer] is called [baseline] now; rename it")
    if "baseline" not in values:
        return parse_recipe(values, source, Recipe)
    recipe = parse_recipe(values, source, BaselineRecipe)
    baseline = build(BASELINES, recipe.baseline.attack, recipe.baseline.options, ("attack",))
    complete = BaselineSection(attack=recipe.baseline.attack, **asdict(baseline))
    return recipe.model_copy(update={"baseline": complete})


def baseline_of(recipe: BaselineRecipe) -> Baseline | DiffusionBaseline:
    """The attack that ``recipe`` describes; a ``RecipeError`` where its budget is none for it."""
    name, budget = recipe.baseline.attack, recipe.budget
    baseline: Baseline | DiffusionBaseline = build(BASELINES, name, recipe.baseline.options, ("attack",))
    if isinstance(baseline, BudgetBaseline):
        if not budget.given:
            raise RecipeError(
                f"baseline '{name}' optimises a budget, and recipe {recipe.name} has none; "
                "give it one, such as ssim = 0.95"
            )
        flat = [metric for metric in budget.limits if not budget_metric(metric).differentiable]
        if flat:
            raise RecipeError(
                f"baseline '{name}' follows the gradient of its budget, and {flat[0]} has no useful one; "
                "take another metric, such as ssim"
            )
    return baseline


def read_recipe_file(source: str) -> dict[str, Any]:
    """What the TOML file at the path ``source`` holds, not checked yet."""
    path = Path(source)
    try:
        if not path.is_file():
            found = " is a folder" if path.is_dir() else ": no such recipe file"
            raise RecipeError(f"{source}{found}; give a preset's name or the path of a TOML file")
        if path.stat().st_size > _LARGEST:
            raise RecipeError(f"{source} holds more than {_LARGEST} bytes; a recipe is a small TOML file")
        return _parsed(path.read_text(encoding="utf-8-sig"), source)
    except UnicodeDecodeError:
        raise RecipeError(f"{source} is not UTF-8 text; save it as UTF-8") from None
    except OSError as error:
        raise RecipeError(f"{source:.200} cannot be read: {error.strerror}; give the path of a TOML file") from None


def _unknown_recipe(name: str) -> RecipeError:
    known = [*preset_names(), *BASELINES]
    return RecipeError(f"unknown preset '{name}'{suggest(name, known)}; known: {', '.join(known)}, or a .toml file")


def parse_recipe(values: Mapping[str, Any], source: str, kind: type[_Recipe] = Recipe) -> _Recipe:
    """``values`` as a recipe of that ``kind``,
    or a ``RecipeError`` that says where they are none."""
    _check_depth(values, f"recipe {source}")
    try:
        # JSON mode: arrays may become tuples, everything else stays strict.
        return kind.model_validate_json(json.dumps(values))
    except ValidationError as error:
        raise RecipeError(f"recipe {source}: {describe(error, kind)}") from None
    except TypeError:
        # TOML knows one kind of value that JSON does not.
        raise RecipeError(f"recipe {source}: {_date(values)}: a recipe cannot hold dates or times") from None


def _parsed(text: str, source: str) -> dict[str, Any]:
    try:
        values = tomllib.loads(text)
    except ValueError as error:
        # Among them a number of more digits than Python reads.
        raise RecipeError(f"{source}: not valid TOML: {error}") from None
    except RecursionError:
        raise _too_deep(source) from None
    _check_depth(values, source)
    return values


def _check_depth(values: Mapping[str, Any], where: str) -> None:
    """Level by level, since a function that calls itself would end where the check is needed."""
    level: list[Any] = [values]
    for _ in range(_DEEPEST):
        inside = (each.values() if isinstance(each, Mapping) else each for each in level)
        level = [inner for each in inside for inner in each if isinstance(inner, Mapping | list)]
        if not level:
            return
    raise _too_deep(where)


def _too_deep(where: str) -> RecipeError:
    return RecipeError(f"{where}: more than {_DEEPEST} tables or lists lie within each other; no recipe needs that")


def _date(values: Mapping[str, Any]) -> str:
    """Dotted key of the first date or time in ``values``, or nothing."""
    for key, value in values.items():
        if isinstance(value, date | time):
            return key
        inner = dict(enumerate(value)) if isinstance(value, list) else value
        if isinstance(inner, Mapping) and (below := _date({str(part): each for part, each in inner.items()})):
            return f"{key}.{below}"
    return ""


def override(values: Mapping[str, Any], settings: Iterable[str]) -> dict[str, Any]:
    """Apply ``optimiser.iterations=10``-like settings; a value is read as TOML,
    and as text where it is none.

    >>> override({"optimiser": {"iterations": 30}}, ["optimiser.iterations=10"])
    {'optimiser': {'iterations': 10}}
    """
    changed = _copied(values)
    for setting in settings:
        key, separator, value = setting.partition("=")
        *parents, last = (part.strip() for part in key.split("."))
        if not separator or not all((*parents, last)):
            raise RecipeError(f"`changes` {setting}: expected key=value, as in optimiser.iterations=10")
        if len(parents) >= _DEEPEST:
            raise _too_deep(f"`changes` {setting:.80}")
        if not _is_unicode(setting):
            raise RecipeError(f"`changes` {setting}: this is not UTF-8 text")
        place = changed
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise RecipeError(f"`changes` {setting}: {parent} is a value, not a section")
        place[last] = _read(value.strip())
    return changed


def _copied(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _copied(value) if isinstance(value, Mapping) else value for key, value in values.items()}


def _read(value: str) -> Any:
    if value == "{}":
        # A prompt that is nothing but the class name; an empty table would say nothing.
        return value
    try:
        read = tomllib.loads(f"value = {value}")
    except (ValueError, RecursionError):
        return value
    # A line break could start another key.
    return read["value"] if len(read) == 1 else value


def _is_unicode(text: str) -> bool:
    """Whether ``text`` can be written: bytes of a command line that are not UTF-8 come
    as halves of a surrogate."""
    return not any("\ud800" <= character <= "\udfff" for character in text)
