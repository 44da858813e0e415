"""Verdicts of a run, looked up by classifier, arm and image, and read together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from attnshift.results.rows import VerdictRow

__all__ = ["Verdicts", "answers_of", "fools_most", "indexed", "is_judged", "knows", "where_label_is_kept"]

Verdicts = Mapping[tuple[str, str, str], VerdictRow]
"""Classifier, arm, id of an image -> the verdict;
none on images whose class a classifier does not have."""


def indexed(verdicts: Sequence[VerdictRow]) -> Verdicts:
    return {(row.classifier, row.arm, row.id): row for row in verdicts}


def is_judged(name: str, id: str, verdicts: Verdicts) -> bool:
    return (name, "clean", id) in verdicts


def knows(name: str, id: str, verdicts: Verdicts) -> bool:
    """True if the classifier ``name`` has judged the clean image, and gets it right."""
    return is_judged(name, id, verdicts) and verdicts[name, "clean", id].correct


def answers_of(reference: str, verdicts: Verdicts) -> dict[tuple[str, str], bool]:
    """Arm, id of an image -> whether the classifier ``reference`` sees the true class in it."""
    return {(arm, id): row.correct for (name, arm, id), row in verdicts.items() if name == reference}


def where_label_is_kept(right: Mapping[tuple[str, str], bool], verdicts: Verdicts) -> Verdicts:
    """The same verdicts, without success of the attack on images in which the true class is lost.

    ``right`` says of an arm and the id of an image whether it still shows its class; what it does
    not name does not.

    Where a success is struck out, so are those of the control arms on the same image and
    classifier: what the attack gains over them becomes 0 and not less, and is never more than
    without the condition. Images that are not right when clean count as unknown to every
    classifier, since nobody can speak for them.
    """
    struck = {
        (name, id)
        for (name, arm, id), row in verdicts.items()
        if arm == "attack" and row.success and not right.get((arm, id), False)
    }
    return {
        (name, arm, id): replace(
            row,
            correct=row.correct and (arm != "clean" or right.get((arm, id), False)),
            success=None if row.success is None else row.success and (name, id) not in struck,
        )
        for (name, arm, id), row in verdicts.items()
    }


def fools_most(judges: Sequence[str], ids: Sequence[str], verdicts: Verdicts) -> dict[str, bool]:
    """Image -> whether the attack succeeds on at least half
    of the ``judges`` that know it when clean.

    Images that none of them knows are left out. On a judge that the reconstruction alone fools
    already, where there is one, the attack has no success of its own.
    """
    fooled: dict[str, bool] = {}
    for id in ids:
        known = [name for name in judges if knows(name, id, verdicts)]
        own = [_succeeds(name, "attack", id, verdicts) for name in known]
        lost = [_succeeds(name, "reconstruction", id, verdicts) for name in known]
        if known:
            gained = sum(attack and not control for attack, control in zip(own, lost, strict=True))
            fooled[id] = 2 * gained >= len(known)
    return fooled


def _succeeds(name: str, arm: str, id: str, verdicts: Verdicts) -> bool:
    row = verdicts.get((name, arm, id))
    return row is not None and bool(row.success)
