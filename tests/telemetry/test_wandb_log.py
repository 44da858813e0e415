"""Runs for Weights & Biases, against a stand-in for it and, where it is installed, against itself."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from attnshift.errors import UserError
from attnshift.telemetry import Event, RunEnded
from attnshift.telemetry.wandb_log import WeightsAndBiases
from attnshift.testing.recorded import RECORDED, SURROGATES, begun


class Service:
    """Runs that were begun, with what was logged."""

    def __init__(self) -> None:
        self.runs: list[Run] = []

    def init(self, **about: Any) -> Run:
        self.runs.append(Run(about))
        return self.runs[-1]


class Run:
    def __init__(self, about: dict[str, Any]):
        self.about, self.axes, self.history, self.status = about, {}, [], None

    def define_metric(self, name: str, step_metric: str = "") -> None:
        self.axes[name] = step_metric

    def log(self, values: dict[str, float]) -> None:
        assert self.status is None
        self.history.append(values)

    def finish(self, exit_code: int) -> None:
        self.status = exit_code


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Service:
    held = Service()
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=held.init, Settings=dict))
    _leave_the_environment(monkeypatch, tmp_path)
    return held


def _leave_the_environment(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    # Set first, so that what is set meanwhile is undone.
    for name in ("WANDB_MODE", "WANDB_ERROR_REPORTING"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.chdir(folder)


def tell(log: WeightsAndBiases, *events: Event) -> None:
    for event in events:
        log(event)


def test_a_run_has_its_facts_and_its_curves(service: Service) -> None:
    log = WeightsAndBiases("mine")
    tell(log, *RECORDED)
    log.close()
    (run,) = service.runs
    assert (run.about["project"], run.about["id"], run.about["name"]) == ("mine", "0123456789abcdef", "fast")
    assert run.about["config"] == {
        "recipe": "fast",
        "pipeline": "lab",
        "surrogates": list(SURROGATES),
        "batch": 2,
        "iterations": 2,
        "images": 4,
        "software": {"attnshift": "0.1.0", "torch": "2.11.0"},
    }
    assert run.axes["loss/*"] == "iteration"
    assert [each["iteration"] for each in run.history if "loss/structure" in each] == [0, 1, 3]
    assert run.history[0]["loss/structure"] == 4.0
    assert run.history[-2:-1][0] == {"image/seconds": 1.5, "image/fooled": 0.0, "images done": 3}
    assert run.status == 0


def test_a_run_that_is_continued_has_the_same_id(service: Service) -> None:
    first = WeightsAndBiases("mine")
    tell(first, *RECORDED[:4])
    first.close()
    tell(WeightsAndBiases("mine"), begun(done=2, images=9))
    tell(WeightsAndBiases("mine"), begun(run="other", name="fast@2"), RunEnded(0, 0, 1.0, "error"))
    assert [run.about["id"] for run in service.runs] == ["0123456789abcdef", "0123456789abcdef", "other"]
    assert [run.status for run in service.runs] == [130, None, 1]
    assert [run.about["resume"] for run in service.runs] == ["allow"] * 3
    assert service.runs[2].about["name"] == "fast@2"


def test_nothing_leaves_the_machine_unless_the_environment_says_so(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    WeightsAndBiases("mine")
    assert (os.environ["WANDB_MODE"], os.environ["WANDB_ERROR_REPORTING"]) == ("offline", "false")
    monkeypatch.setenv("WANDB_MODE", "online")
    WeightsAndBiases("mine")
    assert os.environ["WANDB_MODE"] == "online"


def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _leave_the_environment(monkeypatch, tmp_path)
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r"pip install 'attnshift\[wandb\]'"):
        WeightsAndBiases("mine")


@pytest.mark.heavy
def test_wandb_keeps_a_run_in_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    _leave_the_environment(monkeypatch, tmp_path)
    log = WeightsAndBiases("mine")
    tell(log, *RECORDED)
    log.close()
    (kept,) = (tmp_path / "wandb").glob("offline-run-*/run-0123456789abcdef.wandb")
    held = kept.read_bytes()
    assert all(text.encode() in held for text in ("loss/structure", "margin/lab:resnet", "images done", "mine"))
