"""From a name in a recipe or on the command line to an object.

Every family of the package (terms, rules, sources, metrics, ...) is one ``Table`` of names and
entries. An entry says in words what it is and where it comes from, and names its implementation as
``module:attribute``, which is imported only when it is used: listing the tables imports nothing
heavy.

Installed packages add entries to a table through entry points (docs/extending.md). Their metadata
is read when a name is asked for that is not one of ours, and their code is imported when the entry
is used. Nothing else is ever imported: no path that a recipe names, and no package that is not
installed.
"""

from __future__ import annotations

import difflib
import importlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from operator import attrgetter
from types import MappingProxyType
from typing import Any, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, PydanticUserError, TypeAdapter, ValidationError

from attnshift.errors import PluginError, RecipeError
from attnshift.plugins import Plugin, installed_plugins, misfit

__all__ = ["STRICT", "Entry", "Table", "build", "check", "check_known", "describe", "load", "look_up", "suggest"]

STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)
"""Rules for every recipe and every option: no unknown keys,
no silent conversions, no infinities."""


@dataclass(frozen=True)
class Entry:
    summary: str
    reference: str
    target: str
    package: str = ""
    """The installed package that adds the entry, with its version;
    empty for entries of attnshift."""

    def load(self) -> Any:
        """Import the implementation. ``PluginError`` for a plug-in that cannot be imported."""
        module, _, attribute = self.target.partition(":")
        try:
            return attrgetter(attribute)(importlib.import_module(module))
        # The module of a plug-in is code of others, which can raise anything.
        except Exception as error:
            if not self.package:
                raise
            raise PluginError(
                f"package {self.package}: {self.target} cannot be imported ({type(error).__name__}: {error}); "
                "mend the package, or uninstall it"
            ) from error


class Table(Mapping[str, Entry]):
    """Entries by name: our ``own``, and behind them those of installed packages.

    ``family`` is what messages call an entry. ``group`` is the group of entry points that adds
    entries; a table without one is closed. ``contract`` names the protocols (``module:attribute``)
    of which an entry must fit one: the object that ``build`` makes, or the implementation itself in
    tables that ``look_up`` reads.

    A plug-in never replaces one of our entries, so that a recipe means the same wherever it is
    read. A name that two packages have is in the table and cannot be loaded. Nor can one that is
    ``reserved``, which maps it to the reason.
    """

    def __init__(
        self,
        family: str,
        own: Mapping[str, Entry],
        group: str = "",
        contract: Sequence[str] = (),
        reserved: Mapping[str, str] = MappingProxyType({}),
    ):
        self.family, self.group, self.contract, self.reserved = family, group, tuple(contract), reserved
        self._own = dict(own)

    @property
    def own(self) -> tuple[str, ...]:
        """Names of our entries, without those of installed packages."""
        return tuple(self._own)

    @property
    def _plugins(self) -> Mapping[str, tuple[Plugin, ...]]:
        return installed_plugins().get(self.group, {})

    def __getitem__(self, name: str) -> Entry:
        # Our names are answered without a search for packages.
        return self._own[name] if name in self._own else self._added(name)

    def __iter__(self) -> Iterator[str]:
        yield from self._own
        yield from sorted(self._plugins.keys() - self._own.keys())

    def __len__(self) -> int:
        return len(self._own.keys() | self._plugins.keys())

    def clashes(self) -> list[str]:
        """One line for each plug-in that has the name of one of our entries
        and is therefore not used."""
        return [
            f"{self.family} '{name}' of package {plugin.package} is not used: attnshift has one of that name"
            for name in sorted(self._plugins.keys() & self._own.keys())
            for plugin in self._plugins[name]
        ]

    def _added(self, name: str) -> Entry:
        """The entry that packages add under ``name``."""
        first, *others = self._plugins[name]
        packages = " and ".join(plugin.package for plugin in (first, *others))
        if others:
            complaint = f"{packages} both have a {self.family} '{name}'; uninstall one of them"
        elif name in self.reserved:
            reason = self.reserved[name]
            complaint = f"package {packages}: a {self.family} cannot be called '{name}', {reason}; rename it"
        else:
            return Entry(first.summary, first.package, first.target, first.package)
        return _Unusable(complaint, packages, "", packages)


class _Unusable(Entry):
    def load(self) -> Any:
        raise PluginError(self.summary)


def look_up(table: Table, name: str) -> Any:
    """The implementation called ``name``, once it fits the table's contract.

    ``RecipeError`` where there is no such name, with the nearest one;
    ``PluginError`` where a plug-in does not fit.
    """
    return check(table, name, load(table, name))


def build(table: Table, name: str, options: Mapping[str, object], beside: Iterable[str] = ()) -> Any:
    """Look ``name`` up and construct it with ``options``, checked against the types of its fields.

    ``beside`` are keys that stand beside the options where they are written, for advice on a key
    that is unknown. ``RecipeError`` for a name or an option that does not exist, ``PluginError``
    where a plug-in does not fit.
    """
    implementation = load(table, name)
    try:
        adapter = _adapter(implementation) if isinstance(implementation, type) else TypeAdapter(implementation)
        _check_strict(table, name, implementation)
        made = adapter.validate_json(json.dumps(dict(options)))
    except ValidationError as error:
        raise RecipeError(f"{table.family} '{name}': {describe(error, implementation, beside)}") from None
    except PydanticUserError as error:
        raise _refused(table, name, f"is no dataclass whose fields are its options ({error.code})") from error
    return check(table, name, made)


@cache
def _adapter(implementation: type) -> TypeAdapter[Any]:
    return TypeAdapter(implementation)


def check(table: Table, name: str, made: Any) -> Any:
    """``made``, once it fits the contract of ``table``.

    The error says which member it lacks: a ``PluginError`` for a plug-in, and a ``RecipeError`` for
    an object that the caller made.
    """
    complaints = [misfit(made, contract) for contract in table.contract]
    if complaints and all(complaints):
        raise _refused(table, name, complaints[0])
    return made


def load(table: Table, name: str) -> Any:
    """The implementation called ``name``, not checked; ``RecipeError``
    where there is none, with the nearest name."""
    check_known(table, name)
    return table[name].load()


def check_known(table: Table, name: str) -> None:
    """Raise ``RecipeError`` where ``table`` has no such name,
    with the nearest one; nothing is imported."""
    if name not in table:
        raise RecipeError(f"unknown {table.family} '{name}'{suggest(name, table)}; known: {', '.join(table)}")


def _refused(table: Table, name: str, complaint: str) -> PluginError | RecipeError:
    package = table[name].package if name in table else ""
    if package:
        return PluginError(f"{table.family} '{name}' of package {package} {complaint}")
    return RecipeError(f"{table.family} '{name}' {complaint}")


def _check_strict(table: Table, name: str, implementation: Any) -> None:
    """Unknown options must be refused; pydantic ignores them unless a class says otherwise."""
    if not isinstance(implementation, type):
        return
    config = getattr(implementation, "model_config", getattr(implementation, "__pydantic_config__", {}))
    if config.get("extra") != "forbid":
        raise _refused(table, name, "lacks __pydantic_config__ = attnshift.STRICT")


def suggest(name: str, known: Mapping[str, Any] | list[str]) -> str:
    """``; did you mean 'y'`` where something near is known, else nothing.

    >>> suggest("varience", ["variance", "entropy"])
    "; did you mean 'variance'?"
    """
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean '{near[0]}'?" if near else ""


def describe(error: ValidationError, kind: Any = None, beside: Iterable[str] = ()) -> str:
    """The first complaint of a validation, as ``where: what (got ...)`` on one line.

    With the ``kind`` of object that was to be made, a key that it does not have is compared with
    those that it has and those ``beside`` it; where none is near, all are named.
    """
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"]) or "value"
    got = "" if first["type"] == "missing" else f" (got {first['input']!r:.80})"
    hint = ""
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        *parents, key = first["loc"]
        own = _keys(_within(kind, parents))
        known = [*own, *(each for each in beside if not parents and each not in own)]
        hint = suggest(str(key), known) or (f"; known: {', '.join(known)}" if known else "")
    elif first["type"] == "missing" and isinstance(first["input"], dict):
        near = difflib.get_close_matches(str(first["loc"][-1]), list(first["input"]), n=1)
        hint = f"; is '{near[0]}' meant for it?" if near else ""
    more = f", and {error.error_count() - 1} more" if error.error_count() > 1 else ""
    return f"{where}: {first['msg']}{got}{hint.removesuffix('?') if more else hint}{more}"


def _within(kind: Any, parents: Sequence[object]) -> Any:
    """The type that stands at the keys ``parents`` of ``kind``,
    or ``None`` where it is not as simple as that."""
    for part in parents:
        kind = get_args(kind)[-1] if get_origin(kind) is dict else _keys(kind).get(str(part))
    return kind


def _keys(kind: Any) -> dict[str, Any]:
    """Fields of a model or a dataclass, with their types."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return {name: field.annotation for name, field in kind.model_fields.items()}
    if not (isinstance(kind, type) and is_dataclass(kind)):
        return {}
    hints = get_type_hints(kind)
    return {each.name: hints[each.name] for each in fields(kind)}
