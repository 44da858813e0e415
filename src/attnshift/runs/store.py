"""A run folder: what is finished in it, written so that it is there whole or not at all.

run.json              what the run is (RunSpec)
recipe.toml           the recipe, complete, to read and to use again
images/ID.ARM.png     what each control arm and the attack look like
items/ID.json         one finished image; its presence is what "finished" means
results.parquet       one row per finished image, in the order of the plan
verdicts.parquet      one row per image, arm and classifier (written by evaluate)
quality.parquet       one row per image and arm, one column per metric (written by evaluate)
unavailable.parquet   one row per metric that could not be measured, with the reason (written by evaluate)
visibility.parquet    one row per image and arm: is the object still seen (written by evaluate --masks)
sets.parquet          one row per set metric and arm, with its value or the reason (written by evaluate --sets)
report.html
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import tomli_w
from pydantic import ValidationError

from attnshift.errors import RunError
from attnshift.runs.spec import RunSpec
from attnshift.tables import describe

__all__ = ["Store", "atomic_write"]


class Store:
    """Reads and writes one run folder."""

    def __init__(self, folder: Path):
        self.folder = folder

    @classmethod
    def start(cls, folder: Path, spec: RunSpec) -> Store:
        """Open ``folder`` for ``spec``: new, empty, or holding the same run. Anything else is a ``RunError``."""
        store = cls(folder)
        if (folder / "run.json").exists():
            changed = spec.differences(store.spec())
            if changed:
                raise RunError(
                    f"{folder} holds another run; this one differs in {'; '.join(changed[:4])}. "
                    "Use another --out, or the settings of that run"
                )
            return store
        if folder.exists() and not _fresh(folder):
            raise RunError(f"{folder} exists and is not a run; choose another --out")
        try:
            for part in (folder, folder / "images", folder / "items"):
                part.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"cannot write to {folder}: {error.strerror}; choose another --out") from None
        atomic_write(folder / "recipe.toml", tomli_w.dumps(_without_none(spec.recipe.model_dump(mode="json"))).encode())
        atomic_write(folder / "run.json", (spec.model_dump_json(indent=1) + "\n").encode())
        return store

    @classmethod
    def open(cls, folder: Path) -> Store:
        """Open a folder that holds a run of the format that we read."""
        if not (folder / "run.json").is_file():
            raise RunError(
                f"{folder} is not a run: it holds no run.json; `attnshift attack … --out {folder}` makes one"
            )
        store = cls(folder)
        store.spec()
        return store

    def spec(self) -> RunSpec:
        try:
            return RunSpec.model_validate_json((self.folder / "run.json").read_bytes())
        except ValidationError as error:
            raise RunError(f"{self.folder / 'run.json'}: {describe(error)}") from None

    def image_path(self, identity: str, arm: str) -> Path:
        return self.folder / "images" / f"{identity}.{arm}.png"

    def finished(self) -> set[str]:
        return {path.stem for path in (self.folder / "items").glob("*.json")}

    def finish(self, identity: str, row: Mapping[str, Any]) -> None:
        """Declare an item finished; its images must have been written before."""
        atomic_write(self.folder / "items" / f"{identity}.json", json.dumps(row).encode())

    def compact(self, order: Sequence[str]) -> int:
        """Write results.parquet from all finished items, in ``order``; return how many there are."""
        rows = [
            json.loads(path.read_text())
            for path in (self.folder / "items" / f"{identity}.json" for identity in order)
            if path.exists()
        ]
        if rows:
            self.write_table("results", rows)
        return len(rows)

    def write_table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        path = self.folder / f"{name}.parquet"
        temporary = path.with_name(f".{path.name}.partial")
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist([dict(row) for row in rows]), temporary)
        _publish(temporary, path)

    def table(self, name: str) -> list[dict[str, Any]]:
        """Rows of a table, none if it has not been written."""
        path = self.folder / f"{name}.parquet"
        return pyarrow.parquet.read_table(path).to_pylist() if path.exists() else []


def _fresh(folder: Path) -> bool:
    """Whether ``folder`` is empty, or holds no more than a run that stopped before it was declared."""
    if not folder.is_dir():
        return False
    held = [path for path in folder.rglob("*") if not path.is_dir()]
    return all(path.name == "recipe.toml" or path.name.endswith(".partial") for path in held) and all(
        path.name in ("images", "items") for path in folder.iterdir() if path.is_dir()
    )


def atomic_write(path: Path, content: bytes) -> None:
    """Write ``content`` so that ``path`` is there whole or not at all, also after a power cut."""
    temporary = path.with_name(f".{path.name}.partial")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        _publish(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _publish(temporary: Path, path: Path) -> None:
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(each) for key, each in value.items() if each is not None}
    return value
