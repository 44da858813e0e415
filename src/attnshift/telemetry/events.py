"""What an attack tells while it runs: frozen records of plain values, which no result depends on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from attnshift.attack.loop import Snapshot
    from attnshift.results.rows import ResultRow

__all__ = [
    "EVENTS",
    "BatchBegun",
    "Event",
    "ImageDone",
    "ImageFailed",
    "Iteration",
    "Reason",
    "RunBegun",
    "RunEnded",
]

Reason = Literal["finished", "interrupted", "error"]
"""Why a run ended: all was tried; somebody stopped it; an exception did."""
PerImage = dict[str, tuple[float, ...]]
"""By the name of a term or of a surrogate: one value for each image, in the order of the event's ``ids``."""


@dataclass(frozen=True)
class RunBegun:
    """``run`` is the digest of what decides the result, ``images`` how many there are, and of these ``done`` were
    finished before; ``batch`` are attacked together, in at most ``iterations`` (0: an attack on pixels tells none).

    ``name`` tells apart the runs of one command; it is empty where there is a single one.
    """

    run: str
    images: int
    done: int
    batch: int
    iterations: int
    recipe: str
    pipeline: str
    surrogates: tuple[str, ...]
    software: dict[str, str]
    name: str = ""


@dataclass(frozen=True)
class BatchBegun:
    """The run's ``batch``-th micro-batch, from 0."""

    batch: int
    ids: tuple[str, ...]


@dataclass(frozen=True)
class Iteration:
    """What the images ``ids`` of a micro-batch, those that are still attacked, look like before ``iteration``'s update.

    ``losses`` are the weighted terms, ``margins`` the logits by which each surrogate still resists, and ``shares`` each
    surrogate's part in the direction. After the last update there are margins alone.
    """

    batch: int
    ids: tuple[str, ...]
    iteration: int
    losses: PerImage
    margins: PerImage
    shares: PerImage

    @classmethod
    def of(cls, batch: int, ids: Sequence[str], surrogates: Sequence[str], snapshot: Snapshot) -> Iteration:
        """``ids`` are those of the whole micro-batch, in order; the snapshot's rows say who is still there."""
        return cls(
            batch,
            tuple(ids[int(row)] for row in snapshot.rows),
            snapshot.iteration,
            {name: tuple(values.tolist()) for name, values in snapshot.losses.items()},
            _by_surrogate(surrogates, snapshot.margins.tolist()),
            _by_surrogate(surrogates, snapshot.weights.tolist()) if snapshot.losses else {},
        )


@dataclass(frozen=True)
class ImageDone:
    """A finished image. ``seconds`` are its part of its micro-batch's; ``iteration`` is the iterate that was kept of
    the ``evaluated`` ones, both 0 in an attack on pixels; ``margins`` are those of the saved file, by surrogate, and
    ``fooled`` says whether all of them are below 0.
    """

    id: str
    file: str
    class_name: str
    target_name: str | None
    seconds: float
    iteration: int
    evaluated: int
    margins: dict[str, float]
    fooled: bool

    @classmethod
    def of(cls, row: ResultRow) -> ImageDone:
        """From the ``row`` that a run keeps of an image."""
        margins = dict(zip(row.surrogates, row.margins["attack"], strict=True))
        return cls(
            id=row.id,
            file=row.file,
            class_name=row.class_name,
            target_name=None if row.target is None else row.target_name,
            seconds=row.seconds,
            iteration=row.iteration,
            evaluated=row.evaluated,
            margins=margins,
            fooled=all(each < 0 for each in margins.values()),
        )


@dataclass(frozen=True)
class ImageFailed:
    """An image that could not be attacked, after ``attempts``."""

    id: str
    file: str
    reason: str
    attempts: int = 1


@dataclass(frozen=True)
class RunEnded:
    """``done`` and ``failed`` images since the run began, in ``seconds``, and why it ended."""

    done: int
    failed: int
    seconds: float
    reason: Reason


Event = RunBegun | BatchBegun | Iteration | ImageDone | ImageFailed | RunEnded

EVENTS: dict[str, type[Event]] = {
    "run_begun": RunBegun,
    "batch_begun": BatchBegun,
    "iteration": Iteration,
    "image_done": ImageDone,
    "image_failed": ImageFailed,
    "run_ended": RunEnded,
}
"""What they are called in files."""


def _by_surrogate(surrogates: Sequence[str], values: Sequence[Sequence[float]]) -> PerImage:
    return {name: tuple(each) for name, each in zip(surrogates, values, strict=True)}
