"""Planned images of a run that no figure counts: those that failed and those that are left."""

from __future__ import annotations

from dataclasses import dataclass

from attnshift.results.rows import FailedRow, ResultRow
from attnshift.results.store import Store
from attnshift.terminal import plural

__all__ = ["Missing", "missing"]


@dataclass(frozen=True)
class Missing:
    """``planned`` images, those that have ``failed``, and how many are ``left`` to attack."""

    planned: int
    failed: tuple[FailedRow, ...]
    left: int

    @property
    def line(self) -> str:
        """A sentence without its full stop; nothing where every image was attacked."""
        parts = [f"{len(self.failed)} failed"] if self.failed else []
        parts += [f"{self.left} {'is' if self.left == 1 else 'are'} not attacked yet"] if self.left else []
        return f"of {plural(self.planned, 'image')} {' and '.join(parts)}; no figure counts them" if parts else ""


def missing(store: Store) -> Missing:
    failed = tuple(store.table(FailedRow))
    # The tables may be older than a list from which images were removed.
    left = max(0, store.planned() - len(failed) - len(store.table(ResultRow)))
    return Missing(store.planned(), failed, left)
