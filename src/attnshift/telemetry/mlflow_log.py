"""Logging of runs to an MLflow tracking server or folder."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from textwrap import shorten
from typing import Any

from attnshift.errors import UserError
from attnshift.telemetry.events import BatchBegun, Event, ImageFailed, Reason, RunBegun
from attnshift.telemetry.scalars import Points, ScalarTracker

__all__ = ["MLflow"]

_STATUS = {"finished": "FINISHED", "interrupted": "KILLED", "error": "FAILED"}
_DIGEST = "attnshift.run"
_MOST = 1000
"""Most metrics that MLflow takes in one request."""


class MLflow(ScalarTracker):
    """Log of runs in the MLflow experiment ``name``.

    Facts about a run are parameters, and the curves of ``Scalars`` are metrics. They are sent to
    MLFLOW_TRACKING_URI, or to ./mlruns if that is not set. A continued run continues the same
    MLflow run. Metrics are sent once for each micro-batch, because each request to a server delays
    the attack. Raises ``UserError`` if MLflow is not installed or the experiment cannot be opened.
    """

    def __init__(self, name: str):
        super().__init__()
        # Without this, MLflow sends data about its use to its authors.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        try:
            from mlflow.entities import Metric, Param  # pyright: ignore[reportMissingImports]
            from mlflow.exceptions import MlflowException  # pyright: ignore[reportMissingImports]
            from mlflow.tracking import MlflowClient  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise UserError("`mlflow` needs MLflow, which is not installed: pip install 'attnshift[mlflow]'") from None
        where = os.environ.get("MLFLOW_TRACKING_URI")
        if not where:
            where = Path("mlruns").resolve().as_uri()
            # MLflow 3 refuses folders without this. Its databases need packages that the extra does
            # not install.
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        self._metric, self._param = Metric, Param
        try:
            self._client: Any = MlflowClient(where)
            known = self._client.get_experiment_by_name(name)
            self._experiment = known.experiment_id if known else self._client.create_experiment(name)
        except (MlflowException, OSError, ImportError) as error:
            reason = shorten(str(error), 500, placeholder=" …") or type(error).__name__
            raise UserError(f"`mlflow` {name} cannot be used at {where}: {reason}") from None
        self._run: str | None = None
        self._names: dict[str, str] = {}
        self._waiting: list[Any] = []

    def __call__(self, event: Event) -> None:
        super().__call__(event)
        if self._run is not None and isinstance(event, BatchBegun | ImageFailed):
            self._send()

    def _begin(self, event: RunBegun) -> None:
        self._names = {}
        sought = f"tags.`{_DIGEST}` = '{event.run}'"
        found = self._client.search_runs([self._experiment], sought, max_results=1)
        if found:
            self._run = found[0].info.run_id
            self._client.update_run(self._run, status="RUNNING")
        else:
            tags = {_DIGEST: event.run}
            made = self._client.create_run(self._experiment, tags=tags, run_name=event.name or event.recipe)
            self._run = made.info.run_id
        # Parameters cannot change later. The number of images can, so it is a tag.
        values = {
            "recipe": event.recipe,
            "pipeline": event.pipeline,
            "surrogates": ", ".join(event.surrogates),
            "batch": str(event.batch),
            "iterations": str(event.iterations),
            **{f"software.{name}": version for name, version in event.software.items()},
        }
        self._client.log_batch(self._run, params=[self._param(name, value) for name, value in values.items()])
        self._client.set_tag(self._run, "attnshift.images", str(event.images))

    def _add(self, points: Points) -> None:
        now = int(time.time() * 1000)
        self._waiting += [self._metric(self._name(name), value, now, step) for name, value, step in points]
        if len(self._waiting) >= _MOST:
            self._send()

    def _send(self) -> None:
        waiting, self._waiting = self._waiting, []
        for start in range(0, len(waiting), _MOST):
            self._client.log_batch(self._run, metrics=waiting[start : start + _MOST])

    def _end(self, reason: Reason) -> None:
        if self._run is None:
            return
        self._send()
        run, self._run = self._run, None
        self._client.set_terminated(run, _STATUS[reason])

    def _name(self, name: str) -> str:
        """``name`` in letters that MLflow allows, different from all other names."""
        if name not in self._names:
            family, _, rest = name.partition("/")
            plain = f"{family}/{re.sub(r'[^a-zA-Z0-9_. :-]', '_', rest)}"
            taken = [each for each in self._names.values() if each == plain or each.startswith(f"{plain} ")]
            self._names[name] = f"{plain} {len(taken) + 1}" if taken else plain
        return self._names[name]
