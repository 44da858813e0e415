"""Tables of a run as plain columns, as any reader of parquet sees them, and typed rows made of plain columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow.parquet

from attnshift.report import summary
from attnshift.results.rows import ROW_TYPES, QualityRow, ResultRow, Row, VerdictRow, VisibilityRow

if TYPE_CHECKING:
    from attnshift.results.store import Store

Kind = TypeVar("Kind", bound=Row)
Record = Mapping[str, Any]


def records(store: Store, name: str) -> list[dict[str, Any]]:
    """Rows of the table ``name``, none if it has not been written."""
    path = store.table_path(ROW_TYPES[name])
    return pyarrow.parquet.read_table(path).to_pylist() if path.exists() else []


def untimed(store: Store) -> list[dict[str, Any]]:
    """Rows of the table results without the columns that no two runs have alike."""
    return [
        {key: value for key, value in row.items() if not key.endswith("seconds")} for row in records(store, "results")
    ]


def write_records(store: Store, name: str, rows: Sequence[Record]) -> None:
    store.write_table(ROW_TYPES[name], typed(ROW_TYPES[name], rows))


def typed(kind: type[Kind], rows: Sequence[Record]) -> list[Kind]:
    return [kind.from_record(row) for row in rows]


def summarise(
    results: Sequence[Record],
    verdicts: Sequence[Record],
    quality: Sequence[Record],
    visibility: Sequence[Record] = (),
) -> summary.Summary:
    return summary.summarise(
        typed(ResultRow, results),
        typed(VerdictRow, verdicts),
        typed(QualityRow, quality),
        typed(VisibilityRow, visibility),
    )
