"""A recipe as a TOML file to start from: every key with its meaning, values and default."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from attnshift.baselines import BASELINES
from attnshift.diffusion import RECONSTRUCTIONS
from attnshift.ensemble import TRANSFORMS
from attnshift.errors import RecipeError
from attnshift.losses import CLASSIFICATION, TERMS
from attnshift.recipes.keys import REQUIRED, RecipeKey, keys_of, options_of
from attnshift.recipes.schema import (
    BaselineRecipe,
    BaselineSection,
    ClassificationSection,
    Recipe,
    ReconstructionSection,
    TermSection,
    TransformSection,
)
from attnshift.recipes.sections import OpenSection
from attnshift.recipes.toml_text import default_text, toml_key, toml_value
from attnshift.registry import load

__all__ = ["recipe_text"]

_WIDTH = 100
_HEAD = (
    "Recipe {name}, all of it. A key behind # is an option at its default. A file may also say "
    'extends = "strong", or another name, and hold what differs alone (docs/recipes.md).'
)


def recipe_text(recipe: Recipe | BaselineRecipe) -> str:
    """``recipe`` as TOML with a comment on each key. Read again, it gives an equal recipe."""
    return "\n".join([*_comment(_HEAD.format(name=recipe.name)), "", *_section((), recipe)]) + "\n"


def _about(key: RecipeKey) -> str:
    """Meaning, values and default of ``key`` as sentences."""
    allowed = key.allowed[:1].upper() + key.allowed[1:]
    if key.default is REQUIRED:
        allowed += "; required"
    elif not isinstance(key.default, Mapping):
        allowed += f"; default {default_text(key.default)}"
    return f"{key.meaning.rstrip('.')}. {allowed}."


def _section(path: tuple[str, ...], section: BaseModel) -> Iterator[str]:
    """Lines of ``section`` at ``path``, and of the sections within it."""
    own, inner = _split(section)
    known = (*keys_of(type(section)), *_options(path, section))
    for key in known:
        yield from _comment(_about(key))
        value = own.pop(key.name, None)
        if value is not None:
            yield f"{toml_key(key.name)} = {toml_value(value)}"
        elif key.default is None or key.default is REQUIRED:
            yield f"# {toml_key(key.name)} ="
        else:
            yield f"# {toml_key(key.name)} = {toml_value(key.default)}"
        yield ""
    # Options of which nothing is known.
    yield from (f"{toml_key(name)} = {toml_value(value)}" for name, value in own.items())
    for name, value in inner.items():
        yield from _inner((*path, name), value)


def _inner(path: tuple[str, ...], value: BaseModel | Mapping[str, BaseModel]) -> Iterator[str]:
    dotted = ".".join(map(toml_key, path))
    if isinstance(value, BaseModel):
        yield f"[{dotted}]"
        yield from _section(path, value)
        return
    if not value:
        yield from _comment(f"[{dotted}.NAME] is a section for each of {path[-1]} by name; here there is none.")
        yield ""
    for name, each in value.items():
        yield from _inner((*path, name), each)


def _split(section: BaseModel) -> tuple[dict[str, Any], dict[str, Any]]:
    """Values of ``section`` as JSON has them, and the sections within it."""
    values = {name: getattr(section, name) for name in type(section).model_fields}
    inner = {name: value for name, value in values.items() if _holds_sections(section, name)}
    own = {name: value for name, value in section.model_dump(mode="json").items() if name not in inner}
    return own, inner


def _holds_sections(section: BaseModel, name: str) -> bool:
    return name not in {key.name for key in keys_of(type(section))}


def _options(path: tuple[str, ...], section: BaseModel) -> tuple[RecipeKey, ...]:
    """Options of the part that an open ``section`` names."""
    if not isinstance(section, OpenSection):
        return ()
    match section:
        case ReconstructionSection():
            table, name = RECONSTRUCTIONS, section.method
        case ClassificationSection():
            table, name = CLASSIFICATION, section.loss
        case BaselineSection():
            table, name = BASELINES, section.attack
        case TermSection():
            table, name = TERMS, path[-1]
        case TransformSection():
            table, name = TRANSFORMS, path[-1]
        case _:
            raise AssertionError(type(section))
    keys = options_of(table, name)
    unknown = [each for each in section.options if each not in {key.name for key in keys}]
    # A part that a plain function makes does not say what it takes.
    if unknown and isinstance(load(table, name), type):
        raise RecipeError(f"{table.family} '{name}': {unknown[0]} is none of its options")
    return keys


def _comment(text: str) -> list[str]:
    return textwrap.wrap(
        text, _WIDTH, initial_indent="# ", subsequent_indent="# ", break_long_words=False, break_on_hyphens=False
    )
