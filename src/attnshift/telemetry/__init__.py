"""Who is told how an attack goes on: files, trackers and the terminal. Nothing here changes a result."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TextIO

from attnshift.registry import Entry, Table
from attnshift.telemetry.events import (
    EVENTS,
    BatchBegun,
    Event,
    ImageDone,
    ImageFailed,
    Iteration,
    RunBegun,
    RunEnded,
)
from attnshift.telemetry.fan_out import Consumer, Telemetry, Watch

__all__ = [
    "EVENTS",
    "TELEMETRY",
    "BatchBegun",
    "Consumer",
    "Event",
    "ImageDone",
    "ImageFailed",
    "Iteration",
    "RunBegun",
    "RunEnded",
    "Telemetry",
    "Watch",
    "open_telemetry",
]

TELEMETRY: Table = {
    "jsonl": Entry(
        "every event as a line of JSON in a file", "docs/telemetry.md", "attnshift.telemetry.json_lines:JsonLines"
    ),
    "tensorboard": Entry(
        "losses, margins and shares as curves (extra tensorboard)",
        "docs/telemetry.md",
        "attnshift.telemetry.tensorboard_log:TensorBoard",
    ),
    "mlflow": Entry(
        "a run with its parameters and curves in an experiment (extra mlflow)",
        "docs/telemetry.md",
        "attnshift.telemetry.mlflow_log:MLflow",
    ),
    "rich": Entry("a bar, and a line for each image", "docs/telemetry.md", "attnshift.telemetry.terminal:Bar"),
    "plain": Entry("a line for each image", "docs/telemetry.md", "attnshift.telemetry.terminal:Lines"),
}
"""The consumers of events, each made from where it writes to."""


def open_telemetry(
    log: Path | None = None,
    tensorboard: Path | None = None,
    mlflow: str | None = None,
    terminal: bool = False,
    stream: TextIO | None = None,
) -> Telemetry:
    """Those that the options ask for, and a bar on ``stream`` if it is a ``terminal``, else lines; the default is
    standard error. A ``UserError`` where one cannot be had."""
    wanted = {"jsonl": log, "tensorboard": tensorboard, "mlflow": mlflow}
    consumers: list[Consumer] = [TELEMETRY[name].load()(to) for name, to in wanted.items() if to is not None]
    consumers.append(TELEMETRY["rich" if terminal else "plain"].load()(stream or sys.stderr))
    return Telemetry(consumers)
