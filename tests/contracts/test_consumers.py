"""What every consumer of ``telemetry.TELEMETRY`` must do; the trackers of others are doubles."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest

from attnshift.registry import load
from attnshift.telemetry import TELEMETRY
from attnshift.testing import check_consumer


@pytest.mark.parametrize("name", TELEMETRY)
def test_contract(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for variable in ("MLFLOW_DISABLE_TELEMETRY", "MLFLOW_ALLOW_FILE_STORE"):
        monkeypatch.setenv(variable, "true")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=MagicMock()))
    for module in ("mlflow", "mlflow.entities", "mlflow.tracking", "wandb"):
        monkeypatch.setitem(sys.modules, module, MagicMock())
    monkeypatch.setitem(sys.modules, "mlflow.exceptions", SimpleNamespace(MlflowException=OSError))
    places: dict[str, Any] = {
        "jsonl": tmp_path / "run.jsonl",
        "tensorboard": tmp_path,
        "mlflow": "mine",
        "wandb": "mine",
    }
    check_consumer(lambda: load(TELEMETRY, name)(places.get(name) or io.StringIO()))
