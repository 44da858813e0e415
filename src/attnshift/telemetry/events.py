"""Events of a running attack: frozen records of plain values. No result depends on them."""

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
"""Reason for the end of a run: all images were tried, a person stopped it, or an exception did."""
PerImage = dict[str, tuple[float, ...]]
"""Map from the name of a term or surrogate to one value for each image, in the order of ``ids``."""


@dataclass(frozen=True)
class RunBegun:
    """Start of a run.

    ``run`` is the digest of all that decides the result. Of its ``images``, ``done`` were finished
    before. ``batch`` images are attacked together, in at most ``iterations``; 0 stands for an
    attack on pixels, which sends no such events. ``name`` distinguishes several runs of one
    command, else it is empty. ``notes`` say what is unusual and does not stop the run.
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
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class BatchBegun:
    """Start of micro-batch number ``batch``, from 0."""

    batch: int
    ids: tuple[str, ...]


@dataclass(frozen=True)
class Iteration:
    """State of a micro-batch before the update of ``iteration``.

    ``ids`` are the images still attacked, ``losses`` are the weighted terms, ``margins`` the logits
    by which each surrogate still resists, and ``shares`` the weight of each surrogate in the
    direction. After the last update there are only margins.
    """

    batch: int
    ids: tuple[str, ...]
    iteration: int
    losses: PerImage
    margins: PerImage
    shares: PerImage

    @classmethod
    def of(cls, batch: int, ids: Sequence[str], surrogates: Sequence[str], snapshot: Snapshot) -> Iteration:
        """Event from a ``snapshot``. ``ids`` are those of the whole micro-batch, in order."""
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
    """Finished image.

    ``seconds`` is its share of the time of its micro-batch. ``iteration`` is the kept iterate of
    the ``evaluated`` ones; both are 0 in an attack on pixels. ``margins`` are those of the saved
    file, by surrogate. ``unknown`` are the surrogates that saw another class before the attack, on
    which it cannot succeed. ``fooled`` is true if it succeeds on every surrogate. ``idle_terms``
    are lines on terms that never acted.
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
    unknown: tuple[str, ...] = ()
    idle_terms: tuple[str, ...] = ()

    @property
    def succeeds_on(self) -> int:
        """Number of surrogates on which the attack succeeds."""
        return sum(margin < 0 and name not in self.unknown for name, margin in self.margins.items())

    @classmethod
    def of(cls, row: ResultRow) -> ImageDone:
        """From the ``row`` that a run keeps of an image."""
        margins = dict(zip(row.surrogates, row.margins["attack"], strict=True))
        unknown = tuple(name for name, known in zip(row.surrogates, row.knows, strict=True) if not known)
        return cls(
            id=row.id,
            file=row.file,
            class_name=row.class_name,
            target_name=None if row.target is None else row.target_name,
            seconds=row.seconds,
            iteration=row.iteration,
            evaluated=row.evaluated,
            margins=margins,
            fooled=not unknown and all(each < 0 for each in margins.values()),
            unknown=unknown,
            idle_terms=row.idle_terms,
        )


@dataclass(frozen=True)
class ImageFailed:
    """Image that could not be attacked, after ``attempts``."""

    id: str
    file: str
    reason: str
    attempts: int = 1


@dataclass(frozen=True)
class RunEnded:
    """End of a run, with the numbers of ``done`` and ``failed`` images since its start."""

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
"""Names of events in files."""


def _by_surrogate(surrogates: Sequence[str], values: Sequence[Sequence[float]]) -> PerImage:
    return {name: tuple(each) for name, each in zip(surrogates, values, strict=True)}
