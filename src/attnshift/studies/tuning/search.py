"""Search spaces: the values that keys of a recipe may take, and the recipe's own values in them."""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import BaseModel, Field, PlainValidator, ValidationError, model_validator

from attnshift.errors import RecipeError
from attnshift.recipes.schema import Recipe
from attnshift.registry import STRICT, describe

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

__all__ = ["Choices", "Range", "Search", "Value", "own_values", "read_search", "standing_values"]

Value = bool | int | float | str

_UNSEARCHABLE = {"name", "summary", "seed", "tuned_on"}


def _number(value: object) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError("must be a finite number")
    return value


def _value(value: object) -> Value:
    if isinstance(value, bool | str):
        return value
    try:
        return _number(value)
    except ValueError:
        raise ValueError("must be a text, a finite number, true or false") from None


# Checked here, because pydantic complains of a union once for each member.
_Number = Annotated[int | float, PlainValidator(_number)]
_Value = Annotated[Value, PlainValidator(_value)]


class Range(BaseModel):
    """Numbers from ``low`` to ``high``, both included.

    If both are whole, only whole numbers in steps of ``step``.
    """

    model_config = STRICT

    low: _Number
    high: _Number
    log: bool = False
    step: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if self.low >= self.high:
            raise ValueError("low must lie below high; a value that stays belongs in `changes`")
        if self.log and self.low <= 0:
            raise ValueError("low must lie above 0 where log = true")
        if self.step and (self.log or not self.whole or (self.high - self.low) % self.step):
            raise ValueError("step must divide high - low, both whole numbers, and excludes log = true")
        return self

    @property
    def whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)

    @property
    def ends(self) -> tuple[Value, ...]:
        return self.low, self.high

    def place(self, value: object) -> Value | None:
        """``value`` as a trial would hold it; None if it lies outside.

        >>> Range(low=1, high=20).place(10.0)
        10
        """
        if isinstance(value, bool) or not isinstance(value, int | float) or not self.low <= value <= self.high:
            return None
        if not self.whole:
            return float(value)
        return None if value % 1 or (value - self.low) % (self.step or 1) else int(value)

    def distribution(self) -> BaseDistribution:
        from optuna.distributions import FloatDistribution, IntDistribution

        if self.whole:
            return IntDistribution(int(self.low), int(self.high), log=self.log, step=self.step or 1)
        return FloatDistribution(float(self.low), float(self.high), log=self.log)


class Choices(BaseModel):
    """Any of ``choices``."""

    model_config = STRICT

    choices: tuple[_Value, ...] = Field(min_length=2)

    @model_validator(mode="after")
    def _are_different(self) -> Self:
        if len(set(self.choices)) < len(self.choices):
            raise ValueError("choices must differ")
        return self

    @property
    def ends(self) -> tuple[Value, ...]:
        return self.choices

    def place(self, value: object) -> Value | None:
        """``value`` as a trial would hold it; None if it is no choice."""
        same = (each for each in self.choices if each == value and isinstance(each, bool) == isinstance(value, bool))
        return next(same, None)

    def distribution(self) -> BaseDistribution:
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution(self.choices)


Search = Mapping[str, Range | Choices]
"""Search space: dotted key of a recipe, as in ``changes`` -> the values that it may take."""


def read_search(path: Path) -> Search:
    """Search space in the TOML file ``path``, with its keys in alphabetical order.

    Raises ``RecipeError`` if the file is no search space. The study checks at its start that a
    recipe takes the values.
    """
    if not path.is_file():
        raise RecipeError(f"{path}: no such search space file")
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise RecipeError(f"{path} is not UTF-8 text; save it as UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{path}: not valid TOML: {error}") from None
    if not tables:
        raise RecipeError(f'{path} names no key to search; write tables such as ["terms.entropy.weight"]')
    # They are sorted so that the order of the file does not decide which draw a key gets.
    return {key: _read_space(tables[key], key, path) for key in sorted(tables)}


def own_values(recipe: Recipe, search: Search) -> dict[str, Value] | None:
    """Values of ``recipe`` at the searched keys; None if one of them lies outside the space."""
    values = {key: space.place(_own_value(recipe, key)) for key, space in search.items()}
    own = {key: value for key, value in values.items() if value is not None}
    return own if len(own) == len(values) else None


def standing_values(recipe: Recipe, search: Search) -> dict[str, Value]:
    """The recipe's own values that lie in the space, ends of the space for the others.

    Every weight is at its highest: a term of weight 0 is not built, and its options would go
    unchecked.
    """
    standing: dict[str, Value] = {}
    for key, space in search.items():
        own = None if key.endswith(".weight") else space.place(_own_value(recipe, key))
        standing[key] = (space.ends[-1] if key.endswith(".weight") else space.ends[0]) if own is None else own
    return standing


def _read_space(table: object, key: str, path: Path) -> Range | Choices:
    if not re.fullmatch(r"[\w-]+(\.[\w-]+)*", key):
        raise RecipeError(f"{path}: {key!r} is not a dotted key of a recipe, such as terms.entropy.weight")
    if key in _UNSEARCHABLE:
        raise RecipeError(f"{path}: {key} is no part of the method and cannot be searched")
    if not isinstance(table, dict):
        raise RecipeError(f"{path}: {key} is {table!r:.80}; expected a table with low and high, or with choices")
    if any(isinstance(value, dict) for value in table.values()):
        raise RecipeError(f'{path}: [{key}.…] is a table in a table; write the whole key in quotes: ["{key}.…"]')
    try:
        return (Choices if "choices" in table else Range).model_validate_json(json.dumps(table))
    except ValidationError as error:
        raise RecipeError(f"{path}: {key}: {describe(error)}") from None
    except TypeError:
        # TOML knows one kind of value that JSON does not.
        raise RecipeError(f"{path}: {key}: a recipe cannot hold dates or times") from None


def _own_value(recipe: Recipe, key: str) -> object:
    """Value of ``recipe`` at a dotted key, else None; a term that is not there has weight 0."""
    place: Any = recipe.model_dump(mode="json")
    for part in key.split("."):
        place = place.get(part) if isinstance(place, Mapping) else None
    if place is None and re.fullmatch(r"terms\.[^.]+\.weight", key):
        return 0.0
    return place
