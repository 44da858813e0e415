"""Recorded events of a small run: three images in two micro-batches; the last image fails."""

from __future__ import annotations

import math

from attnshift.telemetry import BatchBegun, Event, ImageDone, ImageFailed, Iteration, RunBegun, RunEnded

__all__ = ["RECORDED", "SURROGATES", "begun", "done", "iteration"]

SURROGATES = ("lab:resnet", "jpeg(quality=60)+lab:resnet")


def begun(**changes: object) -> RunBegun:
    values = {
        "run": "0123456789abcdef",
        "images": 4,
        "done": 1,
        "batch": 2,
        "iterations": 2,
        "recipe": "fast",
        "pipeline": "lab",
        "surrogates": SURROGATES,
        "software": {"attnshift": "0.1.0", "torch": "2.11.0"},
    }
    return RunBegun(**(values | changes))  # pyright: ignore[reportArgumentType]


def iteration(batch: int, number: int, *values: float) -> Iteration:
    """Two losses of ``values`` and their doubles, margins of ``values`` on both surrogates."""
    ids = tuple(f"id-{batch}-{place}" for place in range(len(values)))
    losses = {"classification": values, "structure": tuple(2 * each for each in values)}
    shares = {SURROGATES[0]: (0.25,) * len(values), SURROGATES[1]: (0.75,) * len(values)}
    last = number == 2
    return Iteration(
        batch, ids, number, {} if last else losses, dict.fromkeys(SURROGATES, values), {} if last else shares
    )


def done(id: str, *margins: float, target: str | None = None, evaluated: int = 3) -> ImageDone:
    by_name: dict[str, float] = dict(zip(SURROGATES, margins, strict=True))
    fooled = all(margin < 0 for margin in margins)
    kept = 1 if evaluated else 0
    return ImageDone(id, f"{id}.png", "mug", target, 1.5, kept, evaluated, by_name, fooled)


RECORDED: tuple[Event, ...] = (
    begun(),
    BatchBegun(0, ("id-0-0", "id-0-1")),
    iteration(0, 0, 1.0, 3.0),
    iteration(0, 1, 0.5, math.nan),
    iteration(0, 2, -1.0),
    done("id-0-0", -1.0, -2.0),
    done("id-0-1", -1.0, 0.5),
    BatchBegun(1, ("id-1-0",)),
    iteration(1, 0, math.inf),
    ImageFailed("id-1-0", "id-1-0.png", "the attack gave values\nthat are not finite", 3),
    RunEnded(2, 1, 12.5, "finished"),
)
