"""The plan of a run: its items in their order, kept in a file and read a micro-batch at a time."""

from __future__ import annotations

import hashlib
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice, zip_longest
from pathlib import Path
from typing import TypeVar

import pyarrow
import pyarrow.parquet

from attnshift.data.datasets import Item
from attnshift.files import writing

__all__ = ["WHOLE", "Batch", "Plan", "Shard", "parts", "read_plan"]

Each = TypeVar("Each")

_COLUMNS = pyarrow.schema(
    [(name, pyarrow.string()) for name in ("identity", "file", "image", "mask", "class_name", "target_name")]
    + [(name, pyarrow.int64()) for name in ("label", "target")]
)
_ROWS = 1024
"""Most items in memory at once, but for a larger micro-batch."""


@dataclass(frozen=True)
class Batch:
    """A micro-batch: ``items`` that are attacked together; ``number`` is its place in the plan, from 0."""

    number: int
    items: tuple[Item, ...]


@dataclass(frozen=True)
class Shard:
    """Every ``count``-th micro-batch from number ``index`` on, from 0: one part of a run of ``count`` commands."""

    index: int = 0
    count: int = 1

    def __contains__(self, batch: Batch) -> bool:
        return batch.number % self.count == self.index


WHOLE = Shard()


@dataclass(frozen=True)
class Plan:
    """Items in a parquet file; memory holds a few at a time.

    ``digest`` hashes their identities in order. ``examples`` hold one item for each class and target, which are all
    that a recipe can depend on.
    """

    path: Path
    count: int
    digest: str
    examples: tuple[Item, ...]

    @classmethod
    def draw(cls, items: Iterable[Item]) -> Plan:
        """Write ``items`` into a temporary file, which lasts as long as the plan."""
        kept = tempfile.TemporaryDirectory(prefix="attnshift-plan-")
        path = Path(kept.name) / "plan.parquet"
        digest, count, examples = hashlib.sha256(), 0, {}
        with writing(path), pyarrow.parquet.ParquetWriter(path, _COLUMNS) as writer:
            for part in parts(items, _ROWS):
                writer.write_table(pyarrow.Table.from_pylist([item.to_row() for item in part], _COLUMNS))
                for item in part:
                    digest.update(f"{chr(10) if count else ''}{item.identity}".encode())
                    examples.setdefault((item.label, item.class_name, item.target), item)
                    count += 1
        plan = cls(path, count, digest.hexdigest()[:16], tuple(examples.values()))
        weakref.finalize(plan, kept.cleanup)
        return plan

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Item]:
        # A generator of its own keeps the plan, and with it the file, until it ends.
        yield from read_plan(self.path)

    def batches(self, size: int) -> Iterator[Batch]:
        """The micro-batches: consecutive items, which the plan alone decides."""
        return (Batch(number, part) for number, part in enumerate(parts(self, size)))

    def change(self, before: Path) -> str:
        """The first difference to the plan that was written at ``before``, in words."""
        for mine, theirs in zip_longest(self, read_plan(before)):
            if theirs is None:
                return f"{mine.file} is new"
            if mine is None:
                return f"{theirs.file} is missing"
            if mine.identity != theirs.identity:
                moved = f"{theirs.file} was where {mine.file} is now"
                return f"{mine.file} or its label has changed" if mine.file == theirs.file else moved
        return "nothing that its plan shows"


def parts(items: Iterable[Each], size: int) -> Iterator[tuple[Each, ...]]:
    """``items`` in order, ``size`` at a time; the last part may be shorter."""
    remaining = iter(items)
    return iter(lambda: tuple(islice(remaining, size)), ())


def read_plan(path: Path) -> Iterator[Item]:
    for part in pyarrow.parquet.ParquetFile(path).iter_batches(_ROWS):
        yield from map(Item.from_row, part.to_pylist())
