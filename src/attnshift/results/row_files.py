"""Tables of typed rows in parquet files."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

import pyarrow
import pyarrow.parquet

from attnshift.errors import RunError
from attnshift.files import publish, temporary_name, writing
from attnshift.results.plan import parts
from attnshift.results.rows import Row

__all__ = ["AnyRow", "read_rows", "write_rows"]

AnyRow = TypeVar("AnyRow", bound=Row)

_ROWS = 1024
"""Rows that are in memory at once while a table is made."""


def write_rows(path: Path, schema: pyarrow.Schema, rows: Iterable[Row]) -> None:
    """Write a table in place of the one at ``path``, part by part: memory holds a few rows at a
    time."""
    temporary = temporary_name(path)
    with writing(path):
        try:
            with pyarrow.parquet.ParquetWriter(temporary, schema) as writer:
                for part in parts(rows, _ROWS):
                    records = [row.to_record() for row in part]
                    writer.write_table(pyarrow.Table.from_pylist(records, schema))
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            publish(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def read_rows(path: Path, kind: type[AnyRow]) -> list[AnyRow]:
    """Rows of the table at ``path``; a ``RunError`` where it is none of that ``kind``."""
    try:
        return [kind.from_record(record) for record in pyarrow.parquet.ParquetFile(path).read().to_pylist()]
    except pyarrow.ArrowException as error:
        raise RunError(f"{path} is no parquet file ({str(error).splitlines()[0]}); make it again") from None
    except RunError as error:
        raise RunError(f"{path}: {error}") from None
