"""Public names of a package, imported when they are first used:
listing and help start without torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

__all__ = ["lazy_names"]


def lazy_names(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` of ``package``,
    whose public names live in the modules that ``homes`` gives.

    >>> __getattr__, __dir__ = lazy_names("shapes", {"sqrt": "math"})
    >>> __getattr__("sqrt")(9.0), __dir__()
    (3.0, ['sqrt'])
    """

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(homes[name]), name)

    def names() -> list[str]:
        return sorted(homes)

    return get, names
