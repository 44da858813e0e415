"""Progress of a run, read from its folder while other processes write to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from attnshift.files import reading
from attnshift.results.generations import generations_of
from attnshift.results.ledger import Span, read_history
from attnshift.results.locks import is_active
from attnshift.results.plan import Generation, read_plan
from attnshift.results.store import Store

__all__ = ["FailedImage", "Status", "read_status"]

_RECENT = 32
"""Micro-batches over which the rate is taken."""


@dataclass(frozen=True)
class FailedImage:
    """An image that could not be attacked."""

    id: str
    file: str
    reason: str


@dataclass(frozen=True)
class Status:
    """Progress: of ``images`` some are ``done``, some have ``failed``, and the others are left.

    ``troubled`` are those left that have ended a worker before, and how often. ``rate`` is in
    images a second over the last micro-batches, None before the first. ``working`` is true while a
    process works on the run.
    """

    run: str
    recipe: str
    images: int
    done: int
    failed: tuple[FailedImage, ...]
    troubled: dict[str, int]
    rate: float | None
    working: bool
    generations: tuple[Generation, ...]
    """The lists of images that the run was given; all counts are of the last one."""

    @property
    def left(self) -> int:
        return self.images - self.done - len(self.failed)

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the run ends at the recent rate; None without a rate."""
        return self.left / self.rate if self.rate else None


def read_status(folder: Path) -> Status:
    """Progress of the run in ``folder``, of which nothing is written.

    Raises ``RunError`` if it holds no run, or if a part of it cannot be read.
    """
    with reading(folder):
        return _status(folder)


def _status(folder: Path) -> Status:
    store = Store.open(folder)
    spec, history = store.spec(), read_history(folder)
    images, failed, troubled = 0, [], {}
    for item in read_plan(store.plan_path):
        images += 1
        if item.id not in history.failed and item.id not in history.deaths:
            continue
        if store.is_finished(item.id):
            continue
        if item.id in history.failed:
            failed.append(FailedImage(item.id, item.file, history.failed[item.id].reason))
        else:
            troubled[item.file] = history.deaths[item.id]
    working = is_active(folder)
    return Status(
        run=spec.digest,
        recipe=spec.recipe.name,
        images=images,
        done=store.count(),
        failed=tuple(failed),
        # An item that is attacked at this moment looks like one that never ended.
        troubled={file: count - working for file, count in troubled.items() if count > working},
        rate=_rate(history.spans),
        working=working,
        generations=generations_of(folder),
    )


def _rate(spans: Sequence[Span]) -> float | None:
    recent = sorted(sorted(spans, key=lambda span: span.ended)[-_RECENT:], key=lambda span: span.begun)
    # Time in which several processes work counts once; time in which none works does not count.
    seconds, until = 0.0, recent[0].begun if recent else None
    for span in recent:
        begun = max(span.begun, until or span.begun)
        until = max(span.ended, begun)
        seconds += (until - begun).total_seconds()
    return sum(span.items for span in recent) / seconds if seconds else None
