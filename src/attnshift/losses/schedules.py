"""Schedules of a weight, or of a learning rate, over the optimisation."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import TypeAdapter, ValidationError

from attnshift.errors import RecipeError
from attnshift.registry import STRICT, describe

__all__ = ["Schedule", "schedule_of"]


@dataclass(frozen=True)
class Schedule:
    """Factor on a weight as a function of the progress u
    in (0,1]: from ``start`` to ``end`` inside ``window``.

    ``step`` jumps from ``start`` to ``end`` in the middle
    of the window. Outside the window the factor is 0.

    >>> Schedule("linear", 1.0, 0.4)(0.5)
    0.7
    """

    __pydantic_config__ = STRICT
    acts_with: ClassVar[Mapping[str, tuple[str, ...]]] = {"end": ("shape", "linear", "cosine", "step")}
    shape: Literal["constant", "linear", "cosine", "step"] = "constant"
    """Way from ``start`` to ``end``; ``constant`` stays at ``start``."""
    start: float = 1.0
    """Factor where the window begins."""
    end: float = 1.0
    """Factor where the window ends."""
    window: tuple[float, float] = (0.0, 1.0)
    """Part of the iterations, from 0 to 1, in which the factor is not 0."""

    def __call__(self, progress: float) -> float:
        first, last = self.window
        if not first <= progress <= last:
            return 0.0
        passed = (progress - first) / (last - first) if last > first else 1.0
        eased = {
            "constant": 0.0,
            "linear": passed,
            "cosine": (1 - math.cos(math.pi * passed)) / 2,
            "step": float(passed >= 0.5),
        }[self.shape]
        return self.start + (self.end - self.start) * eased


_SCHEDULE = TypeAdapter(Schedule)


def schedule_of(values: Mapping[str, Any], name: str) -> Schedule:
    """The schedule that a recipe describes by ``values``; a ``RecipeError`` says where it is none.

    ``name`` says what follows it.
    """
    try:
        return _SCHEDULE.validate_json(json.dumps(dict(values)))
    except ValidationError as error:
        raise RecipeError(f"schedule of {name}: {describe(error, Schedule)}") from None
