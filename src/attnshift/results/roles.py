"""Roles of the classifiers of a run, and which judges are counted together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attnshift.defences.names import undefended
from attnshift.results.rows import ROLES, VerdictRow

__all__ = ["counted_judges", "judges_by_defence", "roles_in"]


def roles_in(verdicts: Sequence[VerdictRow]) -> dict[str, str]:
    """Classifier -> its role, in the order of ``ROLES``."""
    roles = {row.classifier: row.role for row in verdicts}
    return dict(sorted(roles.items(), key=lambda each: ROLES.index(each[1])))


def counted_judges(roles: Mapping[str, str]) -> list[str]:
    """The judges that are counted together: those without a defence,
    or all of them where every one has a defence.

    A figure that says how often classifiers are fooled must not change with the worth of a defence.
    """
    plain, defended = ([name for name, role in roles.items() if role == kind] for kind in ("judge", "defended"))
    return plain or defended


def judges_by_defence(roles: Mapping[str, str]) -> dict[str, list[str]]:
    """Defences as they are written in front of a name -> the judges behind them, at least two.

    >>> names = ("jpeg+lab:coatnet", "median+lab:coatnet", "jpeg+lab:nfnet")
    >>> judges_by_defence(dict.fromkeys(names, "defended"))
    {'jpeg': ['jpeg+lab:coatnet', 'jpeg+lab:nfnet']}
    """
    groups: dict[str, list[str]] = {}
    for name, role in roles.items():
        if role == "defended":
            groups.setdefault(name.removesuffix(undefended(name)).removesuffix("+"), []).append(name)
    return {defence: names for defence, names in groups.items() if defence and len(names) > 1}
