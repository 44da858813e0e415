"""Images that a run was to attack and that none of its figures count: those that failed and those that are left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from attnshift.results.store import Store

__all__ = ["Missing", "missing"]


@dataclass(frozen=True)
class Missing:
    """``failed`` are rows of the run's table of that name: id, file, label, reason."""

    planned: int
    failed: tuple[Mapping[str, Any], ...]
    left: int

    @property
    def line(self) -> str:
        """A sentence without its full stop; nothing where every image was attacked."""
        parts = [f"{len(self.failed)} failed"] if self.failed else []
        parts += [f"{self.left} {'is' if self.left == 1 else 'are'} not attacked yet"] if self.left else []
        return f"of {self.planned} images {' and '.join(parts)}; no figure counts them" if parts else ""


def missing(store: Store) -> Missing:
    failed = tuple(store.table("failed"))
    return Missing(store.planned(), failed, store.planned() - len(failed) - len(store.table("results")))
