"""What a run that was judged before still lacks."""

from __future__ import annotations

from collections.abc import Sequence

from attnshift.results.rows import QualityRow, ResultRow, VerdictRow
from attnshift.results.store import Store

__all__ = ["missing_reference", "unjudged"]


def unjudged(store: Store, judges: Sequence[str]) -> list[str]:
    """Those of ``judges`` that have not seen all finished images of the run; all of them where its
    quality was not measured on each."""
    images = {row.id for row in store.table(ResultRow)}
    if not images <= {row.id for row in store.table(QualityRow)}:
        return list(judges)
    seen = {(row.classifier, row.id) for row in store.table(VerdictRow) if row.role in ("judge", "defended")}
    return [judge for judge in judges if not {(judge, each) for each in images} <= seen]


def missing_reference(store: Store, reference: str) -> str:
    """``reference``, if it has not seen all finished images of the run; else nothing."""
    seen = {row.id for row in store.table(VerdictRow) if (row.role, row.classifier) == ("reference", reference)}
    return reference if {row.id for row in store.table(ResultRow)} - seen else ""
