"""The verdicts of a run: looked up by classifier, arm and image, and read together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attnshift.defences.names import undefended

__all__ = [
    "ROLES",
    "Verdicts",
    "counted_judges",
    "fools_most",
    "indexed",
    "judges_by_defence",
    "roles_in",
    "where_label_is_kept",
]

ROLES = ("surrogate", "tuning", "reference", "judge", "defended")
"""What a classifier is to a run, in the order in which they are shown. ``defended`` is a judge behind a defence."""

Verdicts = Mapping[tuple[str, str, str], Mapping[str, Any]]
"""Classifier, arm, image -> the row that says what was seen."""


def indexed(verdicts: Sequence[Mapping[str, Any]]) -> Verdicts:
    return {(row["classifier"], row["arm"], row["id"]): row for row in verdicts}


def roles_in(verdicts: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Classifier -> its role, in the order of ``ROLES``."""
    roles = {row["classifier"]: row["role"] for row in verdicts}
    return dict(sorted(roles.items(), key=lambda each: ROLES.index(each[1])))


def counted_judges(roles: Mapping[str, str]) -> list[str]:
    """The judges that are counted together: those without a defence, or else, where all have one, all of them.

    What a defence is worth must not move a figure that says how often classifiers are fooled.
    """
    plain, defended = ([name for name, role in roles.items() if role == kind] for kind in ("judge", "defended"))
    return plain or defended


def judges_by_defence(roles: Mapping[str, str]) -> dict[str, list[str]]:
    """Defences as they are written in front of a name -> the judges behind them, at least two.

    >>> behind(dict.fromkeys(["jpeg+lab:coatnet", "median+lab:coatnet", "jpeg+lab:nfnet"], "defended"))
    {'jpeg': ['jpeg+lab:coatnet', 'jpeg+lab:nfnet']}
    """
    groups: dict[str, list[str]] = {}
    for name, role in roles.items():
        if role == "defended":
            groups.setdefault(name.removesuffix(undefended(name)).removesuffix("+"), []).append(name)
    return {defence: names for defence, names in groups.items() if defence and len(names) > 1}


def where_label_is_kept(reference: str, verdicts: Verdicts) -> Verdicts:
    """The same verdicts, the attack having no success on images in which ``reference`` no longer sees the true class.

    Where that strikes out a success, those of the control arms on the same image and classifier go with it, so that
    what the attack gains over them becomes 0 and not less: it is never more than without the condition. Images that the
    reference does not know when clean are unknown to everyone; it cannot speak for them.
    """
    right = {(arm, identity): row["correct"] for (name, arm, identity), row in verdicts.items() if name == reference}
    struck = {
        (name, identity)
        for (name, arm, identity), row in verdicts.items()
        if arm == "attack" and row["success"] and not right[arm, identity]
    }
    return {
        (name, arm, identity): {
            **row,
            "correct": row["correct"] and (arm != "clean" or right[arm, identity]),
            "success": row["success"] and (name, identity) not in struck,
        }
        for (name, arm, identity), row in verdicts.items()
    }


def fools_most(judges: Sequence[str], ids: Sequence[str], verdicts: Verdicts) -> dict[str, bool]:
    """Image -> whether the attack succeeds on at least half of the ``judges`` that know it when clean.

    Images that none of them knows are left out. On a judge that the reconstruction alone fools already, where there is
    one, the attack has no success of its own.
    """
    fooled: dict[str, bool] = {}
    for identity in ids:
        known = [name for name in judges if verdicts[name, "clean", identity]["correct"]]
        own = [_succeeds(name, "attack", identity, verdicts) for name in known]
        lost = [_succeeds(name, "reconstruction", identity, verdicts) for name in known]
        if known:
            gained = sum(attack and not control for attack, control in zip(own, lost, strict=True))
            fooled[identity] = 2 * gained >= len(known)
    return fooled


def _succeeds(name: str, arm: str, identity: str, verdicts: Verdicts) -> bool:
    row = verdicts.get((name, arm, identity))
    return row is not None and row["success"]
