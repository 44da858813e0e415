"""A run folder. Every file in it is written whole or not at all.

run.json              the identity of the run (RunSpec)
recipe.toml           the recipe, complete, to read and to use again
plan.parquet          the images in their order (Plan)
plan.N.parquet        the same after a change of the list (generations)
images/ID.ARM.png     the image of each arm
items/ID.json         the row of one finished image; an image is finished once the file exists
ledger/PROCESS.jsonl  events of one process: begun, ended, failed (Ledger)
locks/                files by which processes claim what they work on (Claims)
results.parquet       one row per finished image, in the order of the plan
failed.parquet        one row per image that failed, with the reason; absent where none did
verdicts.parquet      one row per image, arm and classifier (written by evaluate)
quality.parquet       one row per image and arm, one column per metric (written by evaluate)
unavailable.parquet   one row per metric that could not be measured, with the reason (evaluate)
visibility.parquet    one row per image and arm, one column per measure (evaluate with masks)
sets.parquet          one row per set metric and arm: its value or the reason (evaluate with sets)
grad_cam.parquet      one row per image, clean and attacked: places that speak (evaluate)
report.html           the page (written by report)
report/*.js           what the page reads when an image is opened
rate.html             the page that asks people (written by rate)
ratings/*.json        what each of them said (RatingFile)

Columns of the tables: docs/results-format.md, made from attnshift.results.rows.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import compress
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
from pydantic import ValidationError

from attnshift.errors import RunError
from attnshift.files import atomic_write, writing
from attnshift.recipes.writing import recipe_toml
from attnshift.registry import describe
from attnshift.results.generations import FIRST_PLAN, newest_plan, take_in
from attnshift.results.locks import FOLDER as LOCKS
from attnshift.results.locks import Claims
from attnshift.results.plan import Plan, read_places, read_plan
from attnshift.results.row_files import AnyRow, read_rows, write_rows
from attnshift.results.rows import FailedRow, ResultRow, Row
from attnshift.results.spec import RunSpec
from attnshift.terminal import plural

__all__ = ["CROPPED", "Store", "finished_rows"]

CROPPED = "attnshift:cropped"
"""Text chunk of an image's PNG files: width and height, as 640x480, before its centre was cropped.
Images of which nothing was cropped have none."""


class Store:
    """Reads and writes one run folder."""

    def __init__(self, folder: Path):
        self.folder = folder

    @classmethod
    def start(cls, folder: Path, spec: RunSpec, plan: Plan) -> Store:
        """Open ``folder`` for ``spec``. It is new, empty, or holds the same run;
        anything else is a ``RunError``."""
        return cls.join(folder, spec, plan)[0]

    @classmethod
    def join(cls, folder: Path, spec: RunSpec, plan: Plan) -> tuple[Store, Plan]:
        """``start``, and the ``plan`` as part of the run,
        which takes in a list that has changed (``generations``)."""
        store = cls(folder)
        # In this order: another command may start a run there at this moment.
        used = folder.exists() and not _fresh(folder)
        declared = store.holds(spec)
        if declared and store.spec().items == plan.digest and store.plan_path == folder / FIRST_PLAN:
            return store, plan
        if used and not declared:
            raise RunError(f"{folder} exists and is not a run; choose another `out`")
        try:
            for part in (folder, folder / "images", folder / "items"):
                part.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"cannot write to {folder}: {error.strerror}; choose another `out`") from None
        with Claims(folder) as claims, claims.tables():
            # Another command may have started a run there since.
            if not store.holds(spec):
                store._declare(spec, plan)
                return store, plan
            return store, take_in(folder, plan, spec.batch, store.count(), claims.is_any_taken)

    @classmethod
    def open(cls, folder: Path) -> Store:
        """Open ``folder``; a ``RunError`` where it holds no run
        of the format that this version reads."""
        store = cls(folder)
        if not store._is_declared():
            raise RunError(
                f"{folder} is not a run: it holds no run.json; give a folder that `attnshift attack` has made"
            )
        store.spec()
        return store

    def holds(self, spec: RunSpec) -> bool:
        """Say if the folder holds a run like ``spec``, on any images;
        a ``RunError`` where it holds another one."""
        if not self._is_declared():
            return False
        changed = spec.differences(self.spec())
        if changed:
            raise RunError(
                f"{self.folder} holds another run; this one differs in {'; '.join(changed[:4])}. "
                "Use another `out`, or the settings of that run"
            )
        return True

    def spec(self) -> RunSpec:
        try:
            return RunSpec.model_validate_json((self.folder / "run.json").read_bytes())
        except ValidationError as error:
            raise RunError(f"{self.folder / 'run.json'}: {_complaint(error)}") from None

    def image_path(self, id: str, arm: str) -> Path:
        return self.folder / "images" / f"{id}.{arm}.png"

    @property
    def plan_path(self) -> Path:
        """The plan of the newest generation."""
        return newest_plan(self.folder)

    def is_finished(self, id: str) -> bool:
        return self._item_path(id).exists()

    def count(self) -> int:
        """Number of finished items of the newest generation."""
        names = (each.name for each in os.scandir(self.folder / "items"))
        finished = (name.removesuffix(".json") for name in names if name.endswith(".json"))
        path = self.plan_path
        if path == self.folder / FIRST_PLAN:
            return sum(1 for _ in finished)
        held = set(finished)
        return sum(id in held for id, _ in read_places(path))

    def planned(self) -> int:
        """Number of images in the plan."""
        return int(pyarrow.parquet.read_metadata(self.plan_path).num_rows)

    def finish(self, row: ResultRow, images: Mapping[str, bytes]) -> None:
        """Store a finished item: its PNG files by arm,
        then its ``row``, which makes it finished."""
        for arm, content in images.items():
            atomic_write(self.image_path(row.id, arm), content)
        atomic_write(self._item_path(row.id), json.dumps(row.to_record()).encode())

    def compact(self, failed: Mapping[str, str]) -> int:
        """Write results.parquet from all finished items, in the order of the plan, and
        failed.parquet from the other items that have ``failed`` (id -> reason). Return how many are
        finished."""
        # Decided once, since other processes may finish more items while the tables are written.
        plan = self.plan_path
        finished = bytes(self.is_finished(item.id) for item in read_plan(plan))
        if any(finished):
            write_rows(
                self.table_path(ResultRow), ResultRow.schema(keys=self.spec().arms), self._finished(plan, finished)
            )
        else:
            self._remove(ResultRow)
        lost = [
            FailedRow(item.id, item.file, item.label, failed[item.id])
            for item, done in zip(read_plan(plan), finished, strict=True)
            if item.id in failed and not done
        ]
        if lost:
            self.write_table(FailedRow, lost)
        else:
            self._remove(FailedRow)
        return sum(finished)

    def sweep(self) -> None:
        """Remove half-written files of killed processes. No other process may work on the run."""
        for folder in (self.folder, self.folder / "images", self.folder / "items"):
            for path in folder.glob(".*.partial"):
                with writing(path):
                    path.unlink(missing_ok=True)

    def table_path(self, kind: type[Row]) -> Path:
        return self.folder / f"{kind.TABLE}.parquet"

    def write_table(self, kind: type[AnyRow], rows: Sequence[AnyRow]) -> None:
        """Write the table of ``kind``, in place of the one that there may be."""
        write_rows(self.table_path(kind), kind.schema(rows), rows)

    def table(self, kind: type[AnyRow]) -> list[AnyRow]:
        """Rows of the table of ``kind``; none if it has not been written."""
        path = self.table_path(kind)
        if not path.exists():
            return []
        return read_rows(path, kind)

    def reading_once(self) -> Store:
        """The same run for a command that only reads it: each table is read once."""
        return _ReadOnce(self.folder)

    def _item_path(self, id: str) -> Path:
        return self.folder / "items" / f"{id}.json"

    def _is_declared(self) -> bool:
        return (self.folder / "run.json").is_file()

    def _remove(self, kind: type[Row]) -> None:
        path = self.table_path(kind)
        with writing(path):
            path.unlink(missing_ok=True)

    def _declare(self, spec: RunSpec, plan: Plan) -> None:
        atomic_write(self.folder / FIRST_PLAN, plan.path.read_bytes())
        atomic_write(self.folder / "recipe.toml", recipe_toml(spec.recipe).encode())
        atomic_write(self.folder / "run.json", (spec.model_dump_json(indent=1) + "\n").encode())

    def _finished(self, plan: Path, finished: bytes) -> Iterator[ResultRow]:
        for item in compress(read_plan(plan), finished):
            yield ResultRow.from_record(json.loads(self._item_path(item.id).read_bytes()))


class _ReadOnce(Store):
    def __init__(self, folder: Path):
        super().__init__(folder)
        self._tables: dict[type[Row], list[Any]] = {}

    def table(self, kind: type[AnyRow]) -> list[AnyRow]:
        if kind not in self._tables:
            self._tables[kind] = super().table(kind)
        return list(self._tables[kind])


def finished_rows(store: Store) -> list[ResultRow]:
    """Rows of the finished images, in the order of the plan;
    a ``RunError`` where no image is finished."""
    rows = store.table(ResultRow)
    if not rows:
        if store.table(FailedRow):
            raise RunError(f"all images of {store.folder} failed; attnshift status {store.folder} says why")
        done = plural(store.count(), "finished image")
        raise RunError(f"{store.folder} has {done} and no table of them yet; run its attack command again to the end")
    return rows


def _complaint(error: ValidationError) -> str:
    """The complaint about a run.json, in words for what an earlier version wrote."""
    if any(each["loc"][-1:] == ("peer",) for each in error.errors()):
        return "its recipe has the former section [peer], called [baseline] now; make the run again with another `out`"
    return describe(error)


def _fresh(folder: Path) -> bool:
    """Say if ``folder`` is empty, or holds no more than a run
    that stopped before run.json was written."""
    if not folder.is_dir():
        return False
    # One by one: a run may hold a million files, and the first ones tell.
    held = (path for path in folder.rglob("*") if not path.is_dir() and path.parent != folder / LOCKS)
    begun = ("recipe.toml", FIRST_PLAN)
    return all(path.name in begun or path.name.endswith(".partial") for path in held) and all(
        path.name in ("images", "items", LOCKS) for path in folder.iterdir() if path.is_dir()
    )
