"""Runs for MLflow, against a stand-in for its client and, where it is installed, against itself."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from attnshift.errors import UserError
from attnshift.telemetry import Event, RunEnded
from attnshift.telemetry.mlflow_log import MLflow
from attnshift.testing.recorded import RECORDED, SURROGATES, begun, done, iteration


class Server:
    """Content of a tracking server, and the number of requests."""

    def __init__(self) -> None:
        self.where: list[str] = []
        self.experiments: list[str] = []
        self.runs: list[SimpleNamespace] = []
        self.requests: list[int] = []

    def client(self, where: str) -> Server:
        if where == "nowhere":
            raise RefusedError("no such server\nand a long story")
        self.where.append(where)
        return self

    def get_experiment_by_name(self, name: str) -> SimpleNamespace | None:
        return SimpleNamespace(experiment_id=name) if name in self.experiments else None

    def create_experiment(self, name: str) -> str:
        self.experiments.append(name)
        return name

    def search_runs(self, experiments: list[str], sought: str, max_results: int) -> list[SimpleNamespace]:
        assert experiments == self.experiments
        return [run for run in self.runs if sought == f"tags.`attnshift.run` = '{run.tags['attnshift.run']}'"]

    def create_run(self, experiment: str, tags: dict[str, str], run_name: str) -> SimpleNamespace:
        info = SimpleNamespace(run_id=str(len(self.runs)))
        run = SimpleNamespace(info=info, name=run_name, tags=tags, params={}, metrics=[], status="RUNNING")
        self.runs.append(run)
        return run

    def log_batch(self, run: str, metrics: Any = (), params: Any = ()) -> None:
        assert len(metrics) <= 1000
        self.requests.append(len(metrics))
        held = self.runs[int(run)]
        for name, value in params:
            assert held.params.setdefault(name, value) == value, "parameters never change"
        held.metrics += [(name, value, step) for name, value, _, step in metrics]

    def set_tag(self, run: str, name: str, value: str) -> None:
        self.runs[int(run)].tags[name] = value

    def set_terminated(self, run: str, status: str) -> None:
        self.runs[int(run)].status = status

    def update_run(self, run: str, status: str) -> None:
        self.runs[int(run)].status = status


class RefusedError(Exception):
    pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Server:
    held = Server()
    plain: Callable[..., tuple[Any, ...]] = lambda *parts: parts  # noqa: E731
    monkeypatch.setitem(sys.modules, "mlflow", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "mlflow.entities", SimpleNamespace(Metric=plain, Param=plain))
    monkeypatch.setitem(sys.modules, "mlflow.exceptions", SimpleNamespace(MlflowException=RefusedError))
    monkeypatch.setitem(sys.modules, "mlflow.tracking", SimpleNamespace(MlflowClient=held.client))
    _leave_the_environment(monkeypatch, tmp_path)
    return held


def _leave_the_environment(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    # Set first, so that what is set meanwhile is undone.
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_ALLOW_FILE_STORE", "MLFLOW_DISABLE_TELEMETRY"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.chdir(folder)


def print_error(log: MLflow, *events: Event) -> None:
    for event in events:
        log(event)


def test_a_run_has_its_parameters_and_its_curves(server: Server) -> None:
    log = MLflow("mine")
    print_error(log, *RECORDED)
    log.close()
    (run,) = server.runs
    assert server.experiments == ["mine"]
    assert run.name == "fast"
    assert run.status == "FINISHED"
    assert run.params == {
        "recipe": "fast",
        "pipeline": "lab",
        "surrogates": "lab:resnet, jpeg(quality=60)+lab:resnet",
        "batch": "2",
        "iterations": "2",
        "software.attnshift": "0.1.0",
        "software.torch": "2.11.0",
    }
    assert run.tags == {"attnshift.run": "0123456789abcdef", "attnshift.images": "4"}
    assert [step for name, _, step in run.metrics if name == "loss/structure"] == [0, 1, 3]
    assert ("loss/structure", 4.0, 0) in run.metrics
    assert ("image/fooled", 0.0, 3) in run.metrics


def test_a_run_that_is_continued_is_the_same_run(server: Server) -> None:
    first = MLflow("mine")
    print_error(first, *RECORDED[:4])
    first.close()
    assert server.runs[0].status == "KILLED"
    print_error(MLflow("mine"), begun(done=2, images=9))
    assert server.runs[0].status == "RUNNING"
    print_error(MLflow("mine"), begun(run="other"), RunEnded(0, 0, 1.0, "error"))
    assert [run.status for run in server.runs] == ["RUNNING", "FAILED"]
    assert server.experiments == ["mine"]


def test_metrics_wait_for_the_end_of_their_micro_batch(server: Server) -> None:
    log = MLflow("mine")
    print_error(log, begun(iterations=400))
    server.requests.clear()
    for number in range(3, 153):
        log(iteration(0, number, 1.0))
    assert server.requests == []
    for number in range(153, 203):
        log(iteration(0, number, 1.0))
    assert server.requests == [1000, 2], "what fills a request is sent before"
    print_error(log, done("a", -1.0, -1.0), RECORDED[-2])
    assert sum(server.requests) == len(server.runs[0].metrics) == 200 * 6 + 2


def test_every_surrogate_has_a_metric_of_its_own_in_letters_that_are_allowed(server: Server) -> None:
    names = ("jpeg(quality=60)+a", "jpeg[quality=60]+a", "checkpoint:x@../b.safetensors", "lab:resnet")
    log = MLflow("mine")
    event = iteration(0, 2, 1.0)
    print_error(log, begun(surrogates=names))
    log(type(event)(0, event.ids, 2, {}, dict.fromkeys(names, (1.0,)), {}))
    log(type(event)(1, event.ids, 2, {}, dict.fromkeys(names, (1.0,)), {}))
    log.close()
    sent = [name for name, *_ in server.runs[0].metrics]
    assert sent[:4] == sent[4:]
    assert len(set(sent)) == 4
    assert sent[0] == "margin/jpeg_quality_60__a"
    assert sent[3] == "margin/lab:resnet"
    assert all(set(name.removeprefix("margin/")) <= set("abcdefghijklmnopqrstuvwxyz0123456789_.: -") for name in sent)


def test_it_goes_where_the_environment_says_else_into_a_folder(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    MLflow("mine")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://tracking.example")
    MLflow("mine")
    assert server.where == [(tmp_path / "mlruns").as_uri(), "https://tracking.example"]


def test_a_server_that_refuses_is_one_line(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nowhere")
    with pytest.raises(UserError, match=r"^`mlflow` mine cannot be used at nowhere: no such server and a long"):
        MLflow("mine")


def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _leave_the_environment(monkeypatch, tmp_path)
    for name in ("mlflow", "mlflow.entities"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=r"pip install 'attnshift\[mlflow\]'"):
        MLflow("mine")
    assert not list(tmp_path.iterdir())


def test_mlflow_reads_what_was_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tracking = pytest.importorskip("mlflow.tracking")
    _leave_the_environment(monkeypatch, tmp_path)
    for _ in range(2):
        log = MLflow("mine")
        print_error(log, *RECORDED)
        log.close()
    client = tracking.MlflowClient((tmp_path / "mlruns").as_uri())
    (run,) = client.search_runs([client.get_experiment_by_name("mine").experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params["surrogates"] == ", ".join(SURROGATES)
    points = client.get_metric_history(run.info.run_id, "margin/jpeg_quality_60__lab:resnet")
    assert {(each.step, each.value) for each in points} >= {(0, 2.0), (2, -1.0)}
