"""Events as curves, for trackers that keep one number a step."""

from __future__ import annotations

from dataclasses import dataclass

from attnshift.telemetry.events import ImageDone, Iteration, RunBegun

__all__ = ["Scalars"]


@dataclass
class Scalars:
    """The curves of the run that has ``begun``: points as (name, value, step).

    What iterations tell is a mean over the images of a micro-batch that are still attacked, and its step is the
    micro-batch's number * (iterations + 1) + iteration: it hangs on the plan alone, so a run that is continued, or
    shared by several processes, draws the same curve. What finished images tell has the step images done.
    """

    begun: RunBegun
    done: int = 0

    def __post_init__(self) -> None:
        self.done = self.begun.done

    def iteration(self, event: Iteration) -> list[tuple[str, float, int]]:
        step = event.batch * (self.begun.iterations + 1) + event.iteration
        curves = {"loss": event.losses, "margin": event.margins, "share": event.shares}
        # Not fmean, which raises where infinities meet.
        return [
            (f"{family}/{name}", sum(values) / len(values), step)
            for family, curve in curves.items()
            for name, values in curve.items()
        ]

    def image(self, event: ImageDone) -> list[tuple[str, float, int]]:
        self.done += 1
        return [("image/seconds", event.seconds, self.done), ("image/fooled", float(event.fooled), self.done)]
