"""From a name in a recipe or on the command line to an object.

Every family of the package (terms, rules, sources, metrics, ...) is one literal table ``name -> Entry``. An entry says
in words what it is and where it comes from, and names its implementation as ``module:attribute``, which is imported
only when it is used: listing the tables imports nothing heavy.
"""

from __future__ import annotations

import difflib
import importlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from typing import Any, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from attnshift.errors import RecipeError

__all__ = ["STRICT", "Entry", "Table", "build", "describe", "look_up", "suggest"]

STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)
"""What every recipe and every option obeys: no unknown keys, no silent conversions, no infinities."""


@dataclass(frozen=True)
class Entry:
    summary: str
    reference: str
    target: str

    def load(self) -> Any:
        module, _, attribute = self.target.partition(":")
        return getattr(importlib.import_module(module), attribute)


Table = Mapping[str, Entry]


def look_up(table: Table, family: str, name: str) -> Any:
    """The implementation called ``name``, or a ``RecipeError`` that suggests the nearest one."""
    if name not in table:
        raise RecipeError(f"unknown {family} '{name}'{suggest(name, table)}; known: {', '.join(table)}")
    return table[name].load()


def build(table: Table, family: str, name: str, options: Mapping[str, object]) -> Any:
    """Look ``name`` up and construct it with ``options``, checked against the types of its fields."""
    implementation = look_up(table, family, name)
    try:
        return TypeAdapter(implementation).validate_json(json.dumps(dict(options)))
    except ValidationError as error:
        raise RecipeError(f"{family} '{name}': {describe(error, implementation)}") from None


def suggest(name: str, known: Mapping[str, object] | list[str]) -> str:
    """``; did you mean 'y'`` where something near is known, else nothing.

    >>> suggest("varience", ["variance", "entropy"])
    "; did you mean 'variance'?"
    """
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean '{near[0]}'?" if near else ""


def describe(error: ValidationError, kind: Any = None) -> str:
    """The first complaint of a validation, as ``where: what (got ...)`` on one line.

    With the ``kind`` of object that was to be made, a key that it does not have is compared with those that it has.
    """
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"]) or "value"
    got = "" if first["type"] == "missing" else f" (got {first['input']!r:.80})"
    hint = ""
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        *parents, key = first["loc"]
        hint = suggest(str(key), list(_keys(_within(kind, parents))))
    more = f", and {error.error_count() - 1} more" if error.error_count() > 1 else ""
    return f"{where}: {first['msg']}{got}{hint.removesuffix('?') if more else hint}{more}"


def _within(kind: Any, parents: Sequence[object]) -> Any:
    """The type that stands at the keys ``parents`` of ``kind``, or ``None`` where it is not as simple as that."""
    for part in parents:
        kind = get_args(kind)[-1] if get_origin(kind) is dict else _keys(kind).get(str(part))
    return kind


def _keys(kind: Any) -> dict[str, Any]:
    """Fields of a model or a dataclass, with their types."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return {name: field.annotation for name, field in kind.model_fields.items()}
    return get_type_hints(kind) if isinstance(kind, type) and is_dataclass(kind) else {}
