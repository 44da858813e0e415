"""Images in the rows of parquet files, with columns ``image`` and ``label`` as Hugging Face's."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

import pyarrow
from pyarrow import types
from pyarrow.parquet import ParquetFile

from attnshift.data.references import Reference, is_regular
from attnshift.data.samples import Sample, Samples
from attnshift.errors import ImageError, LabelError

__all__ = ["parquet_samples", "read_row"]

_ROWS = 8
"""Number of rows in memory at once."""

_BROKEN = (pyarrow.ArrowException, OSError, ValueError, KeyError)


def parquet_samples(files: Sequence[Path]) -> Samples:
    """Samples of the rows of ``files``, one file after the other."""
    for file in files:
        try:
            yield from _samples(file)
        except LabelError as error:
            yield error


def read_row(path: Path, number: int) -> bytes:
    """Encoded image in row ``number``, from 0.

    Rows read in their order are each read from disk once.
    """
    if not is_regular(path):
        raise ImageError(f"{path} row {number}: no such parquet file; put it back where it was found")
    changed = path.stat()
    try:
        content = _reader(path, changed.st_mtime_ns, changed.st_size).read(number)
    except _BROKEN as error:
        raise ImageError(f"{path} row {number}: cannot be read ({_line(error)}); copy the file again") from None
    if content is None:
        raise ImageError(f"{path} row {number}: it holds no image; has the file changed?")
    return content


def _samples(file: Path) -> Samples:
    try:
        with ParquetFile(file, pre_buffer=False, buffer_size=2**20) as parquet:
            columns = _Columns.of(file, parquet.schema_arrow)
            number = 0
            for batch in parquet.iter_batches(_ROWS, columns=columns.read):
                for row in batch.to_pylist():
                    yield _sample(file, number, row, columns)
                    number += 1
    except _BROKEN as error:
        raise LabelError(f"{file}: not a readable parquet file ({_line(error)}); copy it again") from None


def _sample(file: Path, number: int, row: dict[str, Any], columns: _Columns) -> Sample | LabelError:
    where, content = f"{file} row {number}", _bytes(row[columns.image])
    if content is None:
        return LabelError(f"{where}: no image bytes; a path alone is not followed: embed the images, or leave it out")
    reference = Reference("row", str(file.absolute()), number)
    values = {**row, "label": row[columns.label]}
    name = f"{file.name} row {number}"
    return Sample(where, name, reference, values, content=content, typed=True, own_names=columns.names)


@dataclass(frozen=True)
class _Columns:
    """Columns of a file, by their meaning. ``names`` are those that it states for its labels."""

    image: str
    label: str
    read: list[str]
    names: tuple[str, ...]

    @classmethod
    def of(cls, file: Path, schema: pyarrow.Schema) -> _Columns:
        """Columns that ``schema`` has. Raises ``LabelError`` for a column that does not fit."""
        for name in (*_IMAGE, *_LABEL, "class_name", "caption", "target"):
            if schema.names.count(name) > 1:
                raise LabelError(f"{file}: column {name} is there {schema.names.count(name)} times; keep one of them")
        image, label = _first(schema, _IMAGE), _first(schema, _LABEL)
        missing = [names[0] for names, found in ((_IMAGE, image), (_LABEL, label)) if not found]
        if missing:
            here = ", ".join(schema.names)[:200]
            raise LabelError(f"{file}: column {' and '.join(missing)} is missing; it has {here}")
        _check_types(file, schema, image, label)
        optional = [name for name in ("class_name", "caption", "target") if name in schema.names]
        return cls(image, label, [_image_column(schema), label, *optional], _stated_names(schema, label))


_IMAGE, _LABEL = ("image", "img"), ("label", "fine_label")
"""Names of the columns, the first one first; the others are those of CIFAR-10 and CIFAR-100."""


def _first(schema: pyarrow.Schema, names: Sequence[str]) -> str:
    return next((name for name in names if name in schema.names), "")


def _check_types(file: Path, schema: pyarrow.Schema, image: str, label: str) -> None:
    kind = schema.field(image).type
    if types.is_struct(kind):
        kind = kind.field("bytes").type if kind.get_field_index("bytes") >= 0 else kind
    if not _is_binary(kind):
        wanted = "bytes, or a struct of bytes and path"
        raise LabelError(f"{file}: column {image} is {_type(kind)}, not {wanted}; embed the images")
    kind = schema.field(label).type
    if not types.is_integer(kind) and not _is_text(kind):
        raise LabelError(f"{file}: column {label} is {_type(kind)}, not whole numbers; write the labels as numbers")
    for name, allowed in (("class_name", (_is_text,)), ("target", (_is_text, types.is_integer, types.is_null))):
        if name in schema.names and not any(each(schema.field(name).type) for each in allowed):
            what = f"column {name} is {_type(schema.field(name).type)}, which is no name"
            raise LabelError(f"{file}: {what}{' or number' if name == 'target' else ''}; convert or drop it")


def _stated_names(schema: pyarrow.Schema, label: str) -> tuple[str, ...]:
    """Names of the classes in label order, as Hugging Face's datasets state them
    in the schema; empty if it states none."""
    try:
        stated = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"][label]
        names = stated["names"] if stated["_type"] == "ClassLabel" else ()
    except (KeyError, TypeError, ValueError, RecursionError):
        return ()
    return tuple(names) if isinstance(names, list) and all(isinstance(each, str) for each in names) else ()


def _image_column(schema: pyarrow.Schema) -> str:
    """Column to read for the bytes of the images, which may lie within a struct."""
    name = _first(schema, _IMAGE)
    return f"{name}.bytes" if types.is_struct(schema.field(name).type) else name


def _bytes(value: Any) -> bytes | None:
    return value["bytes"] if isinstance(value, dict) else value


def _is_binary(kind: pyarrow.DataType) -> bool:
    return types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind)


def _is_text(kind: pyarrow.DataType) -> bool:
    if types.is_dictionary(kind):
        kind = kind.value_type
    return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)


def _type(kind: pyarrow.DataType) -> str:
    return str(kind) if len(str(kind)) <= 80 else f"{str(kind)[:80]}…"


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


@dataclass
class _Reader:
    """An open file and the place of the last read."""

    file: ParquetFile
    lock: Lock
    rows: Iterator[bytes | None] = field(default_factory=lambda: iter(()))
    following: int = -1
    """Number of the row that ``rows`` yields next; -1 if it yields no more."""

    def read(self, number: int) -> bytes | None:
        """Encoded image in row ``number``.

        It is read from the last place on, or from the start of its row group.
        """
        with self.lock:
            group, first = self._group_of(number)
            if not first <= self.following <= number:
                self.rows, self.following = self._from(group), first
            following, self.following = self.following, -1
            for place, content in enumerate(self.rows, following):
                if place == number:
                    self.following = number + 1
                    return content
            return None

    def _group_of(self, number: int) -> tuple[int, int]:
        """Row group of row ``number``, and the number of the group's first row."""
        first = 0
        for group in range(self.file.metadata.num_row_groups):
            count = self.file.metadata.row_group(group).num_rows
            if number < first + count:
                return group, first
            first += count
        raise ValueError(f"it has {first} rows")

    def _from(self, group: int) -> Iterator[bytes | None]:
        column, groups = _image_column(self.file.schema_arrow), range(group, self.file.metadata.num_row_groups)
        for batch in self.file.iter_batches(_ROWS, row_groups=list(groups), columns=[column]):
            yield from map(_bytes, batch.column(0).to_pylist())


@lru_cache(maxsize=2)
def _reader(path: Path, changed: int, size: int) -> _Reader:
    """Reader of one version of a file."""
    return _Reader(ParquetFile(path, pre_buffer=False, buffer_size=2**20), Lock())
