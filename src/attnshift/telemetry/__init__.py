"""Telemetry of attacks, for files, trackers and the terminal. Nothing here changes a result."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

from attnshift.registry import Entry, Table, check, load
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
from attnshift.telemetry.fan_out import Consumer, IterationCallback, Telemetry

__all__ = [
    "EVENTS",
    "TELEMETRY",
    "BatchBegun",
    "Consumer",
    "Event",
    "ImageDone",
    "ImageFailed",
    "Iteration",
    "IterationCallback",
    "RunBegun",
    "RunEnded",
    "Telemetry",
    "open_telemetry",
]

TELEMETRY = Table(
    "telemetry",
    {
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
        "wandb": Entry(
            "a run with its facts and curves in a project of Weights & Biases, or in files for it (extra wandb)",
            "docs/telemetry.md",
            "attnshift.telemetry.wandb_log:WeightsAndBiases",
        ),
        "rich": Entry(
            "a bar, and a line for each image", "docs/telemetry.md", "attnshift.telemetry.terminal:ProgressBar"
        ),
        "plain": Entry("a line for each image", "docs/telemetry.md", "attnshift.telemetry.terminal:ProgressLines"),
    },
    group="attnshift.telemetry",
    contract=("attnshift.telemetry.fan_out:Consumer",),
)
"""Consumers of events. Each is made from the place that it writes to."""


def open_telemetry(
    log: Path | TextIO | None = None,
    tensorboard: Path | None = None,
    mlflow: str | None = None,
    wandb: str | None = None,
    terminal: bool = False,
    stream: TextIO | None = None,
    others: Mapping[str, str] | None = None,
    quiet: bool = False,
) -> Telemetry:
    """Telemetry for the log ``log``, a file or an open stream, the folder ``tensorboard``, the
    experiment ``mlflow`` and the project ``wandb``.

    ``others`` maps names in ``TELEMETRY``, such as those of plug-ins, to the places that they write
    to. The result also writes to ``stream`` (default: standard error), as a bar if that is a
    ``terminal``, else as lines, unless it is ``quiet``. Raises ``UserError`` if a consumer cannot
    be opened.
    """
    wanted = {"jsonl": log, "tensorboard": tensorboard, "mlflow": mlflow, "wandb": wandb, **(others or {})}
    consumers = [_consumer(name, to) for name, to in wanted.items() if to is not None]
    if not quiet:
        consumers.append(_consumer("rich" if terminal else "plain", stream or sys.stderr))
    return Telemetry(consumers)


def _consumer(name: str, to: Path | str | TextIO) -> Consumer:
    return check(TELEMETRY, name, load(TELEMETRY, name)(to))
