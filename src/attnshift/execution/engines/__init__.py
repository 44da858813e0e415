"""Engines that carry micro-batches out: this process, or workers that Ray starts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from attnshift.data.datasets import Item
from attnshift.execution.worker import Failure, Result

__all__ = ["Assignment", "Engine", "Returned", "WorkerDied"]


@dataclass(frozen=True)
class Assignment:
    """``items`` of micro-batch ``number`` to attack together;
    results are ``wanted`` for these ids."""

    number: int
    items: tuple[Item, ...]
    wanted: tuple[str, ...]


@dataclass(frozen=True)
class WorkerDied:
    """The worker that had an assignment is gone, for the ``reason``."""

    reason: str


Returned = tuple[Assignment, Sequence[Result | Failure] | WorkerDied]


class Engine(Protocol):
    def __call__(self, assignments: Iterable[Assignment]) -> Iterator[Returned]:
        """Take ``assignments`` as fast as they can be worked on,
        and give each back once, in any order."""
        ...

    def close(self) -> None:
        """Also where an exception has ended the run."""
        ...
