"""The plan of a run: its items in their order, kept in a file and read a micro-batch at a time."""

from __future__ import annotations

import hashlib
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import groupby, islice
from pathlib import Path
from typing import Any, TypeVar

import pyarrow
import pyarrow.parquet

from attnshift.data.datasets import Item
from attnshift.files import writing
from attnshift.sizes import Size

__all__ = [
    "WHOLE",
    "Batch",
    "Generation",
    "Plan",
    "Shard",
    "in_batches_by_size",
    "parts",
    "read_generation",
    "read_places",
    "read_plan",
    "read_sizes",
]

Each = TypeVar("Each")

_COLUMNS = pyarrow.schema(
    [
        (name, pyarrow.string())
        for name in ("id", "file", "image", "mask", "class_name", "target_name", "size", "caption")
    ]
    + [(name, pyarrow.int64()) for name in ("label", "target")]
)
_PLACE = "place"
_ROWS = 1024
"""Most items in memory at once, but for a larger micro-batch."""


@dataclass(frozen=True)
class Generation:
    """A list of images that a run was given: its ``number``, from 0,
    and its difference to the list before."""

    number: int
    images: int
    added: int = 0
    removed: int = 0

    @property
    def line(self) -> str:
        """The difference in words."""
        counts = f"{self.added} {'image' if self.added == 1 else 'images'} added, {self.removed} removed"
        return f"generation {self.number} of the list of images: {counts}"


@dataclass(frozen=True)
class Batch:
    """A micro-batch: ``items`` that are attacked together;
    ``number`` is its place in the run, from 0."""

    number: int
    items: tuple[Item, ...]


@dataclass(frozen=True)
class Shard:
    """Every ``count``-th micro-batch from number ``index`` on, from 0:
    one part of a run of ``count`` commands."""

    index: int = 0
    count: int = 1

    def __contains__(self, batch: Batch) -> bool:
        return batch.number % self.count == self.index


WHOLE = Shard()


@dataclass(frozen=True)
class Plan:
    """Items in a parquet file; memory holds a few at a time.

    ``digest`` hashes their ids in the order of their list. ``examples`` hold one item for each
    class, target and caption, which are all that a recipe can depend on; ``sizes`` are the items'
    own, the smallest area first. The place of an item in the run is its number in the file, unless
    the file has a column ``place``.
    """

    path: Path
    generation: Generation
    digest: str
    examples: tuple[Item, ...]
    sizes: tuple[Size, ...] = ()

    @classmethod
    def draw(cls, items: Iterable[Item]) -> Plan:
        """Write ``items`` into a temporary file, which lasts as long as the plan."""
        digest, count, examples, sizes = hashlib.sha256(), 0, {}, set[Size]()
        with _temporary_file() as (path, remove):
            with writing(path), pyarrow.parquet.ParquetWriter(path, _COLUMNS) as writer:
                for part in parts(items, _ROWS):
                    writer.write_table(pyarrow.Table.from_pylist([item.to_row() for item in part], _COLUMNS))
                    for item in part:
                        digest.update(f"{chr(10) if count else ''}{item.id}".encode())
                        examples.setdefault((item.label, item.class_name, item.target, item.caption), item)
                        sizes |= set() if item.size is None else {item.size}
                        count += 1
            ordered = tuple(sorted(sizes, key=lambda size: (size.area, size)))
            plan = cls(path, Generation(0, count), digest.hexdigest()[:16], tuple(examples.values()), ordered)
            weakref.finalize(plan, remove)
        return plan

    def arranged(self, places: Mapping[str, int], generation: Generation) -> Plan:
        """The same items as part of a run
        in which they have ``places`` (id -> place), in that order.

        Memory holds the whole list once.
        """
        table = pyarrow.parquet.read_table(self.path)
        column = pyarrow.array([places[each] for each in table["id"].to_pylist()], pyarrow.int64())
        metadata = {key: str(value) for key, value in asdict(generation).items()}
        table = table.append_column(_PLACE, column).sort_by(_PLACE).replace_schema_metadata(metadata)
        with _temporary_file() as (path, remove):
            with writing(path):
                pyarrow.parquet.write_table(table, path, row_group_size=_ROWS)
            plan = replace(self, path=path, generation=generation)
            weakref.finalize(plan, remove)
        return plan

    def in_equal_sizes(self, batch: int) -> Plan:
        """The same items, with places by which each micro-batch of ``batch`` has images of one
        size."""
        if len(self.sizes) < 2:
            return self
        return self.arranged(in_batches_by_size(read_sizes(self.path), batch), self.generation)

    def extremes(self, common: Size | None) -> tuple[Size, ...]:
        """The smallest and the largest size of an image, where ``common`` is the one that the run
        has."""
        return (common,) if common else tuple(dict.fromkeys((self.sizes[0], self.sizes[-1])))

    def __len__(self) -> int:
        return self.generation.images

    def __iter__(self) -> Iterator[Item]:
        # A generator of its own keeps the plan, and with it the file, until it ends.
        yield from read_plan(self.path)

    def batches(self, size: int) -> Iterator[Batch]:
        """The micro-batches: ``size`` consecutive places, which the plan alone decides. Places of
        items that have left the run stay empty."""
        for number, held in groupby(_placed(self.path), lambda each: each[0] // size):
            yield Batch(number, tuple(item for _, item in held))


def parts(items: Iterable[Each], size: int) -> Iterator[tuple[Each, ...]]:
    """``items`` in order, ``size`` at a time; the last part may be shorter."""
    remaining = iter(items)
    return iter(lambda: tuple(islice(remaining, size)), ())


def in_batches_by_size(sizes: Iterable[tuple[str, str | None]], batch: int, begin: int = 0) -> dict[str, int]:
    """Identity -> place, from ``begin`` on, of images of these ids and ``sizes``.

    A micro-batch, ``batch`` places, has images of one size; the last of a size may have empty
    places.

    >>> in_batches_by_size([("a", "64"), ("b", "96x64"), ("c", "64"), ("d", "64")], 2)
    {'a': 0, 'b': 2, 'c': 1, 'd': 4}
    """
    places: dict[str, int] = {}
    free: dict[str | None, int] = {}
    for id, size in sizes:
        place = free.get(size, 0)
        if place % batch == 0:
            place, begin = begin, begin + batch
        places[id] = place
        free[size] = place + 1
    return places


def read_plan(path: Path) -> Iterator[Item]:
    return (item for _, item in _placed(path))


def read_places(path: Path) -> Iterator[tuple[str, int]]:
    """Identity and place of each item of the plan at ``path``."""
    for number, row in enumerate(_rows(path, ["id", _PLACE])):
        yield row["id"], row.get(_PLACE, number)


def read_sizes(path: Path) -> Iterator[tuple[str, str | None]]:
    """Identity and own size of each item of the plan at ``path``."""
    return ((row["id"], row.get("size")) for row in _rows(path, ["id", "size"]))


def read_generation(path: Path) -> Generation:
    """The generation whose plan is at ``path``."""
    file = pyarrow.parquet.read_metadata(path)
    kept = file.metadata or {}
    numbers = {name: int(kept.get(name.encode(), 0)) for name in ("number", "added", "removed")}
    return Generation(images=file.num_rows, **numbers)


def _placed(path: Path) -> Iterator[tuple[int, Item]]:
    for number, row in enumerate(_rows(path)):
        yield row.get(_PLACE, number), Item.from_row(row)


def _rows(path: Path, columns: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """Rows of the file; of ``columns``, where they are given, those that it has."""
    with pyarrow.parquet.ParquetFile(path) as file:
        held = columns and [name for name in columns if name in file.schema_arrow.names]
        for part in file.iter_batches(_ROWS, columns=held):
            yield from part.to_pylist()


@contextmanager
def _temporary_file() -> Iterator[tuple[Path, Callable[[], None]]]:
    """A file to write, and what removes it; it is removed where the block ends with an error."""
    kept = tempfile.TemporaryDirectory(prefix="attnshift-plan-")
    try:
        yield Path(kept.name) / "plan.parquet", kept.cleanup
    except BaseException:
        kept.cleanup()
        raise
