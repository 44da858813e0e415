"""Tables of several runs, cut down to the images that all of them have attacked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from attnshift.errors import RunError
from attnshift.report.verdicts import Verdicts, indexed
from attnshift.results.roles import counted_judges, roles_in
from attnshift.results.rows import QualityRow, ResultRow, VerdictRow
from attnshift.results.store import Store
from attnshift.terminal import plural

__all__ = ["RunTables", "lost_images", "shared_tables"]

_Image = tuple[str, int, int | None]
"""File, label and target."""


@dataclass(frozen=True)
class RunTables:
    results: list[ResultRow]
    verdicts: list[VerdictRow]
    quality: list[QualityRow]
    reference: list[VerdictRow]

    @property
    def images(self) -> list[_Image]:
        return [(row.file, row.label, row.target) for row in self.results]

    def only(self, images: Sequence[_Image]) -> RunTables:
        """Those of ``images``, in this order: that of the tables is another one in a run with
        several generations."""
        places = {image: place for place, image in enumerate(images)}
        held = [(places[image], row) for row, image in zip(self.results, self.images, strict=True) if image in places]
        results = [row for _, row in sorted(held, key=lambda each: each[0])]
        ids = {row.id for row in results}
        verdicts = [row for row in self.verdicts if row.id in ids]
        quality = [row for row in self.quality if row.id in ids]
        return RunTables(results, verdicts, quality, [row for row in self.reference if row.id in ids])

    @property
    def ids(self) -> list[str]:
        return [row.id for row in self.results]

    @property
    def label_kept(self) -> list[bool | None]:
        """For each image, whether the reference still sees the true class in the attacked one; None
        where it does not in the clean one, and without a reference."""
        right = {(row.arm, row.id): row.correct for row in self.reference}
        return [right["attack", id] if right.get(("clean", id)) else None for id in self.ids]

    @cached_property
    def seen(self) -> Verdicts:
        return indexed(self.verdicts)


def shared_tables(stores: Sequence[Store], judges: Sequence[str]) -> tuple[dict[Path, RunTables], list[str], list[str]]:
    """Tables of each of ``stores``, by its folder, on the images that all have, in one order; of
    ``judges`` those that count, and those set aside.

    Images are paired by file, label and target, since a recipe that is given masks has other ids
    for them. The judges without a defence count, or all of them where each has one. A ``RunError``
    where no image is left.
    """
    tables = {store.folder: _tables(store, judges) for store in stores}
    known = counted_judges(roles_in(tables[stores[0].folder].verdicts))
    chosen, aside = ([each for each in judges if (each in known) == counts] for counts in (True, False))
    shared = _shared(tables)
    return {folder: each.only(shared) for folder, each in tables.items()}, chosen, aside


def _shared(tables: Mapping[Path, RunTables]) -> list[_Image]:
    """Images that all runs have, in the order of the first."""
    shared = set.intersection(*(set(each.images) for each in tables.values()))
    if not shared:
        names = ", ".join(map(str, tables))
        raise RunError(f"no image was attacked by all of {names}; attnshift status says what failed")
    first = next(iter(tables.values()))
    return [image for image in dict.fromkeys(first.images) if image in shared]


def _tables(store: Store, judges: Sequence[str]) -> RunTables:
    rows, results = store.table(VerdictRow), store.table(ResultRow)
    verdicts = [row for row in rows if row.role in ("judge", "defended") and row.classifier in judges]
    if results and {row.classifier for row in verdicts} != set(judges):
        raise RunError(f"{store.folder} is not judged by all of {', '.join(judges)}; compare them again")
    return RunTables(results, verdicts, store.table(QualityRow), [row for row in rows if row.role == "reference"])


def lost_images(images: int, planned: int) -> str:
    """A sentence, without its full stop, on those of ``planned`` images that are not among the
    ``images`` that all runs have; nothing where all are."""
    lost = planned - images
    verb = "is" if lost == 1 else "are"
    what = f"{lost} of {plural(planned, 'image')} failed in at least one run and {verb} in no figure"
    return what if lost else ""
