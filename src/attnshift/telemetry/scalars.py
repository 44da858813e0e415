"""Events as curves, for trackers that store one number for each step."""

from __future__ import annotations

from dataclasses import dataclass

from attnshift.telemetry.events import ImageDone, Iteration, RunBegun

__all__ = ["Scalars"]


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

    def iteration(self, event: Iteration) -> list[tuple[str, float, int]]:
        """Points of an iteration: losses, margins and shares."""
        step = event.batch * (self.begun.iterations + 1) + event.iteration
        curves = {"loss": event.losses, "margin": event.margins, "share": event.shares}
        # fmean raises if infinities of both signs meet.
        return [
            (f"{family}/{name}", sum(values) / len(values), step)
            for family, curve in curves.items()
            for name, values in curve.items()
        ]

    def image(self, event: ImageDone) -> list[tuple[str, float, int]]:
        """Points of a finished image: seconds, and 1 or 0 for fooled."""
        self.done += 1
        return [("image/seconds", event.seconds, self.done), ("image/fooled", float(event.fooled), self.done)]
