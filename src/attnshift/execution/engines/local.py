"""The engine for one process: one micro-batch after the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from attnshift.execution.engines import Assignment, Returned
from attnshift.execution.worker import Worker
from attnshift.telemetry import Telemetry

__all__ = ["LocalEngine"]


@dataclass(frozen=True)
class LocalEngine:
    worker: Worker
    telemetry: Telemetry

    def __call__(self, assignments: Iterable[Assignment]) -> Iterator[Returned]:
        for each in assignments:
            watch = self.telemetry.watch(each.number, self.worker.spec.surrogates)
            yield each, self.worker.attack(each.items, each.wanted, watch)

    def close(self) -> None:
        pass
