"""Modules that are imported when one of their names is first used: collecting the tests imports no large library."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = ["later"]


def later(name: str) -> Any:
    """The module ``name``, whose names can be read, replaced and deleted as on the module itself."""
    return _Later(name)


class _Later:
    __slots__ = ("_name",)
    """Without ``__dict__``, for monkeypatch puts back what it finds there."""

    _mock_name = None
    """pytest asks everything that it finds in a file for this, and for ``__test__``."""

    def __init__(self, name: str):
        object.__setattr__(self, "_name", name)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(import_module(self._name), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(import_module(self._name), name, value)

    def __delattr__(self, name: str) -> None:
        delattr(import_module(self._name), name)
