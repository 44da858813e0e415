"""Logging of curves for TensorBoard."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from attnshift.errors import UserError
from attnshift.telemetry.events import Event, ImageDone, Iteration, RunBegun, RunEnded
from attnshift.telemetry.scalars import Scalars

__all__ = ["TensorBoard"]


class TensorBoard:
    """Log of each run's curves of ``Scalars`` in ``folder``/RECIPE-DIGEST.

    A continued run continues the same curves. Raises ``UserError`` if TensorBoard is not installed
    or the folder cannot be written.
    """

    iterations = True

    def __init__(self, folder: Path):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise UserError(
                "`tensorboard` needs TensorBoard, which is not installed: pip install 'attnshift[tensorboard]'"
            ) from None
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"`tensorboard` {folder} cannot be written: {error.strerror}; choose another folder"
            ) from None
        self._make, self._folder = SummaryWriter, folder
        self._writer: Any = None
        self._scalars: Scalars | None = None

    def __call__(self, event: Event) -> None:
        if isinstance(event, RunBegun):
            self.close()
            # Other characters could name a folder elsewhere, or are not allowed.
            recipe = re.sub(r"[^\w.-]+", "_", event.recipe)
            self._writer, self._scalars = self._make(self._folder / f"{recipe}-{event.run}"), Scalars(event)
        elif self._scalars is None:
            return
        elif isinstance(event, Iteration):
            self._add(self._scalars.iteration(event))
        elif isinstance(event, ImageDone):
            self._add(self._scalars.image(event))
        elif isinstance(event, RunEnded):
            self.close()

    def close(self) -> None:
        writer, self._writer, self._scalars = self._writer, None, None
        if writer is not None:
            writer.close()

    def _add(self, points: list[tuple[str, float, int]]) -> None:
        for name, value, step in points:
            self._writer.add_scalar(name, value, step)
