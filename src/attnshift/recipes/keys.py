"""Keys of recipes with meaning, default and range, as the classes that read them state them.

A key's meaning is the docstring under its field, or else the sentence of its class's docstring that
names it.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from functools import cache
from itertools import pairwise
from typing import Any, get_type_hints

from pydantic import BaseModel, TypeAdapter
from pydantic_core import PydanticUndefined, to_jsonable_python

from attnshift.registry import Table, load

__all__ = ["REQUIRED", "RecipeKey", "keys_of", "options_of"]

REQUIRED = object()
"""The default of a key that has none."""


@dataclass(frozen=True)
class RecipeKey:
    """A key, its ``meaning``, the values that are ``allowed`` in words, and its ``default`` as JSON
    has it."""

    name: str
    meaning: str
    allowed: str
    default: Any


@cache
def keys_of(kind: type) -> tuple[RecipeKey, ...]:
    """Keys that a section or the options of a part have, in their order; ``kind`` is a model or a
    dataclass.

    Sections within ``kind`` are no keys of it.

    >>> from attnshift.recipes.schema import FinishSection
    >>> keys_of(FinishSection)[1].allowed, keys_of(FinishSection)[1].default
    ('number, 0 or more', 0.0)
    """
    properties = TypeAdapter(kind).json_schema().get("properties", {})
    defaults = _defaults(kind)
    return tuple(
        RecipeKey(name, _meaning(kind, name), _allowed(about), defaults[name])
        for name, about in properties.items()
        if not (issubclass(kind, BaseModel) and _is_section(about))
    )


def options_of(table: Table, name: str) -> tuple[RecipeKey, ...]:
    """Options of the part called ``name``, none where it is a plain function; its module is
    imported."""
    kind = load(table, name)
    return keys_of(kind) if isinstance(kind, type) else ()


def _defaults(kind: type) -> dict[str, Any]:
    """Field of ``kind`` -> default, as JSON has it; ``REQUIRED`` where there is none."""
    if issubclass(kind, BaseModel):
        found = {name: field.get_default(call_default_factory=True) for name, field in kind.model_fields.items()}
    else:
        found = {each.name: _default(each) for each in fields(kind)}
    absent = (PydanticUndefined, MISSING)
    return {name: REQUIRED if value in absent else to_jsonable_python(value) for name, value in found.items()}


def _default(field: Field[Any]) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def _is_section(about: Mapping[str, Any]) -> bool:
    """True for a section of its own, or a table of such sections by name."""
    inner = about.get("additionalProperties")
    return "$ref" in about or "allOf" in about or (isinstance(inner, Mapping) and "$ref" in inner)


def _allowed(about: Mapping[str, Any]) -> str:
    """Values that a JSON schema admits, in words."""
    if "anyOf" in about:
        return " or ".join(_allowed(each) for each in about["anyOf"])
    if "enum" in about or "const" in about:
        *others, last = (f"`{each}`" for each in about.get("enum", [about.get("const")]))
        return f"{', '.join(others)} or {last}" if others else last
    match about.get("type"):
        case "integer" | "number" as kind:
            noun = "whole number" if kind == "integer" else "number"
            return ", ".join(filter(None, [noun, _bounds(about)]))
        case "boolean":
            return "`true` or `false`"
        case "array":
            return _listed(about)
        case "object":
            return "table"
        case None if "$ref" in about:
            return "table"
        case "null":
            return "left out"
        case _:
            return "text"


def _bounds(about: Mapping[str, Any]) -> str:
    least, above = about.get("minimum"), about.get("exclusiveMinimum")
    most, below = about.get("maximum"), about.get("exclusiveMaximum")
    if least is not None and most is not None:
        return f"{_number(least)} to {_number(most)}"
    lower = f"{_number(least)} or more" if least is not None else f"above {_number(above)}" if above is not None else ""
    upper = f"at most {_number(most)}" if most is not None else f"below {_number(below)}" if below is not None else ""
    return ", ".join(filter(None, [lower, upper]))


def _number(value: float) -> str:
    """``value``, as a power of two where it is a large one."""
    whole = int(value)
    power = whole.bit_length() - 1
    return f"2^{power}" if power > 20 and whole == 2**power else f"{value:g}" if value < 1e6 else str(value)


def _listed(about: Mapping[str, Any]) -> str:
    if "prefixItems" in about:
        kinds = [_allowed(each) for each in about["prefixItems"]]
        return f"list of {len(kinds)}, each: {kinds[0]}" if len({*kinds}) == 1 else f"list: {'; '.join(kinds)}"
    return f"list, each: {_allowed(about.get('items', {}))}"


def _meaning(kind: type, name: str) -> str:
    for base in kind.__mro__:
        if base.__module__.startswith("pydantic") or base is object:
            continue
        if text := _attribute_docstrings(base).get(name):
            return _collapsed(text)
    for base in kind.__mro__:
        named = [each for each in _sentences(base) if f"``{name}``" in each]
        named.sort(key=lambda each: not each.startswith(f"``{name}``"))
        if named:
            return _collapsed(named[0])
    # Options that are a record of their own.
    inner = get_type_hints(kind).get(name)
    return _collapsed(_sentences(inner)[0]) if is_dataclass(inner) and isinstance(inner, type) else ""


def _sentences(kind: type) -> list[str]:
    return re.split(r"(?<=[.])\s+(?=[A-Z`])", " ".join((kind.__doc__ or "").split()))


def _collapsed(text: str) -> str:
    return " ".join(text.split()).replace("``", "`")


@cache
def _attribute_docstrings(kind: type) -> Mapping[str, str]:
    """Field -> the string that stands under it in the source of the class ``kind``."""
    found: dict[str, str] = {}
    for body in (each.body for each in _classes(kind.__module__) if each.name == kind.__name__):
        for field, below in pairwise(body):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                text = below.value if isinstance(below, ast.Expr) else None
                if isinstance(text, ast.Constant) and isinstance(text.value, str):
                    found[field.target.id] = text.value
    return found


@cache
def _classes(module: str) -> tuple[ast.ClassDef, ...]:
    """Classes at the top level of ``module``; none where its source is not there."""
    try:
        source = inspect.getsource(sys.modules[module])
    except OSError:
        return ()
    return tuple(each for each in ast.parse(source).body if isinstance(each, ast.ClassDef))
