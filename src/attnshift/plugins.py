"""Plug-ins: what installed packages add through entry points,
and whether an object fits a protocol."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

__all__ = ["Plugin", "installed_plugins", "misfit"]


@dataclass(frozen=True)
class Plugin:
    """An entry point: ``package`` is the name and version of what brings it,
    ``target`` its ``module:attribute``."""

    package: str
    summary: str
    target: str


@cache
def installed_plugins() -> Mapping[str, Mapping[str, tuple[Plugin, ...]]]:
    """Plug-ins of all installed packages by group and name. Reads their metadata once
    and imports none of them."""
    found: dict[str, dict[str, tuple[Plugin, ...]]] = {}
    points = entry_points()
    for group in (group for group in points.groups if group.startswith("attnshift.")):
        for point in points.select(group=group):
            names = found.setdefault(group, {})
            names[point.name] = (*names.get(point.name, ()), _plugin(point))
    return found


def _plugin(point: EntryPoint) -> Plugin:
    package = point.dist
    assert package is not None, "entry_points() reads them from packages"
    return Plugin(
        f"{package.name} {package.version}", str(package.metadata.json.get("summary", "a plug-in")), point.value
    )


def misfit(made: object, contract: str) -> str:
    """Why ``made`` does not fit the protocol
    or base class ``module:attribute``; empty where it does.

    A member that is called must take as many positional arguments as the protocol's has.
    """
    module, _, attribute = contract.partition(":")
    wanted = getattr(importlib.import_module(module), attribute)
    if not getattr(wanted, "_is_protocol", False):
        return "" if isinstance(made, wanted) else f"does not extend {module}.{attribute}"
    for name in _members(wanted):
        member = inspect.getattr_static(wanted, name, None)
        if not inspect.isfunction(member):
            if not hasattr(made, name):
                return f"lacks {name}"
            continue
        parameters = [*inspect.signature(member).parameters][1:]
        written = f"{name}({', '.join(parameters)})"
        # Every class can be called, and that makes an object of it.
        if not callable(getattr(made, name, None)) or (name == "__call__" and isinstance(made, type)):
            return f"lacks {written}"
        if not _takes(getattr(made, name), len(parameters)):
            return f"has {name} with other arguments than {written}"
    return ""


def _members(protocol: type) -> list[str]:
    """Names that a protocol and the protocols that it extends ask for, in their order."""
    names: dict[str, None] = {}
    for base in reversed(protocol.__mro__):
        if getattr(base, "_is_protocol", False) and base.__module__ != "typing":
            names |= dict.fromkeys([*inspect.get_annotations(base), *vars(base)])
    return [name for name in names if name == "__call__" or not name.startswith("_")]


def _takes(called: Callable[..., Any], count: int) -> bool:
    try:
        inspect.signature(called).bind(*[None] * count)
    except TypeError:
        return False
    except ValueError:
        # Functions written in C do not say what they take.
        return True
    return True
