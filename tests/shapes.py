"""Checks of the shapes that annotations give, in tests alone and where the environment has ``SHAPES=1``.

They make tests of small tensors slower, so ``make shapes`` runs them apart from ``make test``.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, get_args

from beartype import beartype
from jaxtyping import AbstractArray, install_import_hook

ROOMS = ("types", "losses", "attention", "ensemble", "diffusion", "metrics.haarpsi")


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` with a check of the arguments and results whose annotation holds a shape.

    Nothing else is checked: a double in a test need not be of the class that is annotated.
    """
    shaped = {name: hint for name, hint in function.__annotations__.items() if _holds_shape(hint)}
    if not shaped:
        return function
    function.__annotations__ = shaped
    return beartype(function)


def _holds_shape(hint: Any) -> bool:
    if isinstance(hint, type) and issubclass(hint, AbstractArray):
        return True
    return any(_holds_shape(part) for part in get_args(hint))


if os.environ.get("SHAPES") == "1":
    install_import_hook([f"attnshift.{room}" for room in ROOMS], "shapes.checked")
