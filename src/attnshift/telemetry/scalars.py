"""Events as curves, for trackers that store one number for each step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from attnshift.telemetry.events import Event, ImageDone, Iteration, Reason, RunBegun, RunEnded

__all__ = ["Points", "ScalarTracker", "Scalars"]

Points = list[tuple[str, float, int]]
"""Points of curves: name, value and step."""


@dataclass
class Scalars:
    """Curves of the run that has ``begun``, as points (name, value, step).

    A value of an iteration is a mean over the images of a micro-batch that are still attacked. Its
    step is the micro-batch's number * (iterations + 1) + iteration. The step depends on the plan
    alone, so a run that is continued, or shared by several processes, gives the same curve. The
    step of a finished image is the number of images done.
    """

    begun: RunBegun
    done: int = 0

    def __post_init__(self) -> None:
        self.done = self.begun.done

    def iteration(self, event: Iteration) -> Points:
        """Points of an iteration: losses, margins and shares."""
        step = event.batch * (self.begun.iterations + 1) + event.iteration
        curves = {"loss": event.losses, "margin": event.margins, "share": event.shares}
        # fmean raises if infinities of both signs meet.
        return [
            (f"{family}/{name}", sum(values) / len(values), step)
            for family, curve in curves.items()
            for name, values in curve.items()
        ]

    def image(self, event: ImageDone) -> Points:
        """Points of a finished image: seconds, and 1 or 0 for fooled."""
        self.done += 1
        return [("image/seconds", event.seconds, self.done), ("image/fooled", float(event.fooled), self.done)]


class ScalarTracker(ABC):
    """Consumer that keeps the curves of ``Scalars`` of one run after the other."""

    iterations = True

    def __init__(self) -> None:
        self._scalars: Scalars | None = None

    def __call__(self, event: Event) -> None:
        if isinstance(event, RunBegun):
            self.close()
            self._begin(event)
            self._scalars = Scalars(event)
        elif self._scalars is None:
            return
        elif isinstance(event, Iteration):
            self._add(self._scalars.iteration(event))
        elif isinstance(event, ImageDone):
            self._add(self._scalars.image(event))
        elif isinstance(event, RunEnded):
            self._close(event.reason)

    def close(self) -> None:
        self._close("interrupted")

    def _close(self, reason: Reason) -> None:
        self._end(reason)
        self._scalars = None

    @abstractmethod
    def _begin(self, event: RunBegun) -> None:
        """Open what keeps the run's curves."""

    @abstractmethod
    def _add(self, points: Points) -> None:
        """Take in ``points`` of one event, which have one step."""

    @abstractmethod
    def _end(self, reason: Reason) -> None:
        """Close what ``_begin`` has opened, if it is open."""
