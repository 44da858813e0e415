"""A few images of a comparison as each of its runs changed them, for the same rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from attnshift.report.shared_images import RunTables
from attnshift.report.verdicts import knows
from attnshift.results.store import Store

__all__ = ["ChangedImage", "SharedImage", "shared_images"]

_SHOWN = 6
"""Images that a page shows."""


@dataclass(frozen=True)
class ChangedImage:
    """The file that a run made of an image: ``fooled`` of the judges that have ``known`` it when
    clean see ``seen`` most often, which is empty where none is fooled."""

    path: Path
    fooled: int
    known: int
    seen: str
    ssim: float


@dataclass(frozen=True)
class SharedImage:
    """An image of class ``name`` before, and after the attack of each run, by the run's name."""

    file: str
    name: str
    clean: Path
    changed: Mapping[str, ChangedImage]


def shared_images(runs: Mapping[str, tuple[Store, RunTables]], judges: Sequence[str]) -> tuple[SharedImage, ...]:
    """Images evenly spaced over the list that all ``runs`` have in one order: they are not chosen
    by what became of them. The clean image is that of the first run."""
    first, tables = next(iter(runs.values()))
    count = len(tables.results)
    places = sorted({place * count // _SHOWN for place in range(_SHOWN)}) if count else []
    return tuple(
        SharedImage(
            tables.results[place].file,
            tables.results[place].class_name,
            first.image_path(tables.results[place].id, "clean"),
            {name: _changed(store, own, place, judges) for name, (store, own) in runs.items()},
        )
        for place in places
    )


def _changed(store: Store, tables: RunTables, place: int, judges: Sequence[str]) -> ChangedImage:
    id = tables.results[place].id
    verdicts = [tables.seen[name, "attack", id] for name in judges if knows(name, id, tables.seen)]
    seen = [each.predicted_name for each in verdicts if each.success]
    return ChangedImage(
        store.image_path(id, "attack"),
        len(seen),
        len(verdicts),
        max(seen, key=seen.count) if seen else "",
        next(row.values["ssim"] for row in tables.quality if (row.id, row.arm) == (id, "attack")),
    )
