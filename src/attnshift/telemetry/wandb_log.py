"""Logging of runs to Weights & Biases, or to files for it."""

from __future__ import annotations

import os
from typing import Any

from attnshift.errors import UserError
from attnshift.telemetry.events import Reason, RunBegun
from attnshift.telemetry.scalars import Points, ScalarTracker

__all__ = ["WeightsAndBiases"]

_STATUS = {"finished": 0, "interrupted": 130, "error": 1}
_AXES = {"loss": "iteration", "margin": "iteration", "share": "iteration", "image": "images done"}
"""Family of curves -> the quantity that it is drawn over."""


class WeightsAndBiases(ScalarTracker):
    """Log of runs in the project ``name`` of Weights & Biases.

    Facts about a run are its config, and the curves of ``Scalars`` are its history. Nothing leaves
    the machine unless WANDB_MODE is ``online``: runs are files in ./wandb, or below WANDB_DIR,
    which `wandb sync` sends. A continued run has the id of the first one, the run's digest. Raises
    ``UserError`` if the package is not installed.
    """

    def __init__(self, name: str):
        super().__init__()
        # Without these, it asks for an account, and sends errors to its authors.
        os.environ.setdefault("WANDB_MODE", "offline")
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        try:
            import wandb  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise UserError("`wandb` needs W&B, which is not installed: pip install 'attnshift[wandb]'") from None
        self._wandb: Any = wandb
        self._project = name
        self._run: Any = None

    def _begin(self, event: RunBegun) -> None:
        facts = {
            "recipe": event.recipe,
            "pipeline": event.pipeline,
            "surrogates": list(event.surrogates),
            "batch": event.batch,
            "iterations": event.iterations,
            "images": event.images,
            "software": dict(event.software),
        }
        # It would take over standard output, and copy code and the address of a repository.
        settings = self._wandb.Settings(console="off", silent=True, disable_code=True, disable_git=True)
        self._run = self._wandb.init(
            project=self._project,
            id=event.run,
            name=event.name or event.recipe,
            config=facts,
            resume="allow",
            settings=settings,
        )
        for family, axis in _AXES.items():
            self._run.define_metric(axis)
            self._run.define_metric(f"{family}/*", step_metric=axis)

    def _add(self, points: Points) -> None:
        if points:
            name, _, step = points[0]
            values = {name: value for name, value, _ in points}
            self._run.log(values | {_AXES[name.partition("/")[0]]: step})

    def _end(self, reason: Reason) -> None:
        run, self._run = self._run, None
        if run is not None:
            run.finish(exit_code=_STATUS[reason])
