"""Logging of curves for TensorBoard."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from attnshift.errors import UserError
from attnshift.telemetry.events import Reason, RunBegun
from attnshift.telemetry.scalars import Points, ScalarTracker

__all__ = ["TensorBoard"]


class TensorBoard(ScalarTracker):
    """Log of each run's curves of ``Scalars`` in ``folder``/RECIPE-DIGEST.

    A continued run continues the same curves. Raises ``UserError`` if TensorBoard is not installed
    or the folder cannot be written.
    """

    def __init__(self, folder: Path):
        super().__init__()
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

    def _begin(self, event: RunBegun) -> None:
        # Other characters could name a folder elsewhere, or are not allowed.
        recipe = re.sub(r"[^\w.-]+", "_", event.recipe)
        self._writer = self._make(self._folder / f"{recipe}-{event.run}")

    def _add(self, points: Points) -> None:
        for name, value, step in points:
            self._writer.add_scalar(name, value, step)

    def _end(self, reason: Reason) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()
