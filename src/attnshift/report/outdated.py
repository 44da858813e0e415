"""Tables of an evaluation that were made of an earlier list of images; no figure counts them."""

from __future__ import annotations

from collections.abc import Iterator

from attnshift.report.naturalness import sets_are_outdated
from attnshift.results.rows import ResultRow, VisibilityRow
from attnshift.results.store import Store
from attnshift.terminal import plural

__all__ = ["outdated"]


def outdated(store: Store) -> list[str]:
    """A sentence without its full stop for each such table of the run."""
    return list(_lines(store))


def _lines(store: Store) -> Iterator[str]:
    ids = {row.id for row in store.table(ResultRow)}
    seen = {row.id for row in store.table(VisibilityRow)}
    if seen and ids - seen:
        yield (
            f"visibility.parquet lacks {len(ids - seen)} of {plural(len(ids), 'image')}, and no figure counts it; "
            "run attnshift evaluate again with `masks`"
        )
    if sets_are_outdated(store):
        yield (
            "sets.parquet is of an earlier list of images, and no figure counts it; "
            "run attnshift evaluate again with `sets`"
        )
