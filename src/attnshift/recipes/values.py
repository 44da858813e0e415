"""Plain values of a recipe, by its name or from its file, with those of the recipes that it
extends; not checked yet."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attnshift.baselines import BASELINES
from attnshift.errors import RecipeError
from attnshift.recipes.presets import preset_names, preset_text
from attnshift.registry import suggest

__all__ = ["DEEPEST", "check_depth", "read_values", "too_deep"]

DEEPEST = 12
"""Tables and lists of a recipe that may lie within each other;
libraries follow deeper ones until the stack ends."""
_LARGEST = 2**20
"""Bytes of a recipe file."""
_OWN = ("name", "summary")
"""Keys that say what a recipe is, and which one that extends it does not take over."""


def read_values(source: str) -> dict[str, Any]:
    """Values of the preset or baseline called ``source``, or of the TOML file at that path.

    A file whose ``extends`` names another recipe has that one's values where it has none itself,
    table by table; lists count as a whole. ``tuned_on`` alone is added up: the numbers of both were
    chosen by all of these classifiers. A path in ``extends`` starts at the file's own folder, and
    never leads out of the folder of ``source``.
    """
    layers: list[dict[str, Any]] = []
    chain: dict[str, str] = {}
    at: str | None = source
    while at is not None:
        values = _read(at)
        identity = os.path.realpath(at) if at.endswith(".toml") else at
        if identity in chain:
            way = " -> ".join([*chain.values(), at])
            raise RecipeError(f"{source}: the recipe extends itself: {way}; one of them must extend nothing")
        chain[identity] = at
        layers.append(values)
        at = _extended(values.pop("extends"), at, Path(source).parent) if "extends" in values else None
    complete: dict[str, Any] = {}
    for values in reversed(layers):
        complete = _laid_over({key: each for key, each in complete.items() if key not in _OWN}, values)
    return complete


def _read(source: str) -> dict[str, Any]:
    if source in BASELINES:
        return {"name": source, "summary": BASELINES[source].summary, "baseline": {"attack": source}}
    if source.endswith(".toml"):
        return _read_file(source)
    if source in preset_names():
        return _parsed(preset_text(source), source)
    raise RecipeError(_unknown(source))


def _extended(name: object, source: str, top: Path) -> str:
    """The recipe that ``source`` extends by ``name``; a path lies within the folder ``top``."""
    if not isinstance(name, str):
        raise RecipeError(f"{source}: extends is {name!r:.80}; give a preset's name or the path of a TOML file")
    if not name.endswith(".toml"):
        if name in BASELINES or name in preset_names():
            return name
        raise RecipeError(f"{source}: extends: {_unknown(name)}")
    if "\0" in name:
        raise RecipeError(f"{source}: extends is {name!r:.80}, which is no path; give the path of a TOML file")
    path = Path(source).parent / name
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(top)):
        raise RecipeError(
            f"{source}: extends is {name:.200}, outside of the folder {top}; copy that file into the folder"
        )
    return str(path)


def _laid_over(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Values of ``over``, and those of ``under`` where it has none."""
    merged = dict(under)
    for key, value in over.items():
        below = under.get(key)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            merged[key] = _laid_over(below, value)
        elif key == "tuned_on" and isinstance(below, list) and isinstance(value, list):
            merged[key] = below + [each for each in value if each not in below]
        else:
            merged[key] = value
    return merged


def _read_file(source: str) -> dict[str, Any]:
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


def _unknown(name: str) -> str:
    known = [*preset_names(), *BASELINES]
    return f"unknown preset '{name}'{suggest(name, known)}; known: {', '.join(known)}, or a .toml file"


def _parsed(text: str, source: str) -> dict[str, Any]:
    try:
        values = tomllib.loads(text)
    except ValueError as error:
        # Among them a number of more digits than Python reads.
        raise RecipeError(f"{source}: not valid TOML: {error}") from None
    except RecursionError:
        raise too_deep(source) from None
    check_depth(values, source)
    return values


def check_depth(values: Mapping[str, Any], where: str) -> None:
    """Raise ``RecipeError`` for ``values`` whose tables and lists lie too deep within each other.

    It goes level by level, since a function that calls itself would end where the check is needed.
    """
    level: list[Any] = [values]
    for _ in range(DEEPEST):
        inside = (each.values() if isinstance(each, Mapping) else each for each in level)
        level = [inner for each in inside for inner in each if isinstance(inner, Mapping | list)]
        if not level:
            return
    raise too_deep(where)


def too_deep(where: str) -> RecipeError:
    return RecipeError(f"{where}: more than {DEEPEST} tables or lists lie within each other; no recipe needs that")
