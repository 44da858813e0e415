"""Sets of a finished run: a figure where there are images enough and features, or the reason why not."""

from __future__ import annotations

import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from attnshift.classifiers import load_classifier
from attnshift.cli import main
from attnshift.data.images import read_image
from attnshift.errors import RunError
from attnshift.judging.verdicts import evaluate_run
from attnshift.metrics import SETS
from attnshift.report.page import write_report
from attnshift.results.store import Store
from hubs import empty_hubs
from later import later
from report.seen import Seen
from small_runs import SIDE, SURROGATE, contents, planned
from tables import records

metric_sets = later("attnshift.metrics.sets")
sets = later("attnshift.judging.sets")
source = later("attnshift.metrics.features")

OTHER = "random:test_convnext"


@pytest.fixture
def store(finished: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A copy of the finished run of three images, where nothing has been downloaded."""
    empty_hubs(tmp_path / "hubs", monkeypatch)
    shutil.copytree(finished.folder, tmp_path / "run")
    return Store.open(tmp_path / "run")


@pytest.fixture
def three_suffice(monkeypatch: pytest.MonkeyPatch) -> None:
    for metric in (metric_sets.Fid, metric_sets.Kid, metric_sets.Cmmd):
        monkeypatch.setattr(metric, "least", lambda self, width: 3)


def rows(store: Store) -> dict[tuple[str, str], dict[str, Any]]:
    return {(row["metric"], row["arm"]): row for row in records(store, "sets")}


def test_too_few_images_are_a_reason_and_no_figure(store: Store) -> None:
    sets.evaluate_sets(store, sets.features_of(OTHER))
    table = rows(store)
    width = source.classifier_features(load_classifier(OTHER)).width
    arms = [arm for arm in store.spec().arms if arm != "clean"]
    assert list(table) == [(metric, arm) for metric in SETS for arm in arms]
    least = {"fid": 5 * width, "kid": 100, "cmmd": 100}
    for (metric, _), row in table.items():
        assert (row["value"], row["low"], row["high"]) == (None, None, None)
        assert row["reason"] == f"needs at least {least[metric]} images with {width} features each, and here are 3"


@pytest.mark.usefixtures("three_suffice")
def test_figures_are_those_of_the_saved_files(store: Store) -> None:
    sets.evaluate_sets(store, sets.features_of(OTHER), batch=2)
    extract = source.classifier_features(load_classifier(OTHER)).extract
    ids = [row["id"] for row in records(store, "results")]

    def features(arm: str) -> torch.Tensor:
        with torch.no_grad():
            return extract(torch.stack([read_image(store.image_path(each, arm), SIDE) for each in ids]))

    for name, metric in (("fid", metric_sets.Fid()), ("kid", metric_sets.Kid()), ("cmmd", metric_sets.Cmmd())):
        expected = metric(features("clean"), features("attack"))
        row = rows(store)[name, "attack"]
        assert row["value"] == pytest.approx(expected.value, rel=1e-3)
        assert (row["features"], row["usual"], row["images"], row["reason"]) == (OTHER, False, 3, "")
        if name != "fid":
            assert row["low"] == pytest.approx(expected.low, rel=1e-3)
            assert row["low"] < row["value"] < row["high"]


@pytest.mark.usefixtures("three_suffice")
def test_an_arm_of_clean_images_is_at_0(store: Store) -> None:
    for row in records(store, "results"):
        shutil.copy(store.image_path(row["id"], "clean"), store.image_path(row["id"], "noise"))
    sets.evaluate_sets(store, sets.features_of(OTHER))
    assert [rows(store)[name, "noise"]["value"] for name in ("kid", "cmmd")] == [0, 0]
    # The covariance of three images has no exact root.
    assert rows(store)["fid", "noise"]["value"] == pytest.approx(0, abs=1e-3)
    assert rows(store)["kid", "attack"]["value"] != 0


@pytest.mark.usefixtures("three_suffice")
def test_features_that_have_not_been_downloaded_are_a_reason(store: Store) -> None:
    sets.evaluate_sets(store)
    reasons = {metric: row["reason"] for (metric, _), row in rows(store).items()}
    assert "needs the weights of FID's Inception-v3" in reasons["fid"]
    assert reasons["kid"] == reasons["fid"]
    assert "needs openai/clip-vit-large-patch14-336" in reasons["cmmd"]
    assert all(row["usual"] and row["value"] is None for row in rows(store).values())


def test_too_few_images_are_told_before_anything_is_looked_for(store: Store) -> None:
    sets.evaluate_sets(store)
    reasons = {metric: row["reason"] for (metric, _), row in rows(store).items()}
    assert reasons == {
        "fid": "needs at least 10240 images with 2048 features each, and here are 3",
        "kid": "needs at least 100 images with 2048 features each, and here are 3",
        "cmmd": "needs at least 100 images with 768 features each, and here are 3",
    }


@pytest.mark.usefixtures("three_suffice")
def test_features_that_are_not_finite_are_a_reason(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    classifier = load_classifier(OTHER)
    monkeypatch.setattr("attnshift.judging.sets.load_classifier", lambda name: classifier)
    next(classifier.network.parameters()).data.fill_(float("nan"))
    sets.evaluate_sets(store, sets.features_of(OTHER))
    assert {row["reason"] for row in rows(store).values()} == {f"{OTHER} gives features that are not finite"}


def test_a_run_without_images(finished: Store, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="0 finished images"):
        sets.evaluate_sets(Store.start(tmp_path / "run", finished.spec(), planned("a")))


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., list[str]]]:
    """Lines that ``attnshift ARGUMENTS`` prints on standard output, and behind them those on standard error."""

    def run(*arguments: str | Path) -> list[str]:
        monkeypatch.setattr(sys, "argv", ["attnshift", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit):
            main()
        captured = capsys.readouterr()
        return captured.out.splitlines() + captured.err.splitlines()

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield run
    for number, handler in before.items():
        signal.signal(number, handler)


def test_the_command_tells_reasons(store: Store, call: Callable[..., list[str]]) -> None:
    lines = call("evaluate", store.folder, "--sets")
    assert "fid: unavailable: needs at least 10240 images with 2048 features each, and here are 3" in lines
    assert "cmmd: unavailable: needs at least 100 images with 768 features each, and here are 3" in lines
    page = Seen(write_report(store).read_text(encoding="utf-8")).text
    assert "How natural the sets look kid" not in page
    assert "kid : unavailable: needs at least 100 images" in page


@pytest.mark.usefixtures("three_suffice")
def test_the_command_and_the_report_show_figures_and_what_they_compare_with(
    store: Store, call: Callable[..., list[str]]
) -> None:
    """The surrogate may give the features."""
    lines = call("evaluate", store.folder, "--sets", "--features", SURROGATE)
    (kid,) = (line for line in lines if line.startswith("kid to the clean set, 3 images, "))
    assert f"features of {SURROGATE}: round_trip " in kid
    assert kid.endswith("; comparable with nothing but figures on the same features")
    page = Seen(write_report(store).read_text(encoding="utf-8")).text
    figures = kid.partition(" attack ")[2].partition(";")[0]
    assert figures.count(" ") == 2
    assert f"kid {SURROGATE} 3 " in page
    assert figures in page
    assert "comparable with nothing but figures on the same features" in page
    evaluate_run(store, [])
    assert rows(store), "an evaluation without sets leaves them"


def test_sets_are_off_by_default(store: Store, call: Callable[..., list[str]]) -> None:
    lines = call("evaluate", store.folder)
    assert not [line for line in lines if line.startswith(("fid", "kid", "cmmd"))]
    assert records(store, "sets") == []
    assert "the sets look" not in write_report(store).read_text(encoding="utf-8")


def test_features_that_there_are_not_stop_the_command_before_anybody_judges(
    store: Store, call: Callable[..., list[str]]
) -> None:
    before = contents(store.folder)
    (line,) = call("evaluate", store.folder, "--sets", "--features", "random:test_resnot")
    assert line.startswith("attnshift: timm has no model 'test_resnot'")
    assert contents(store.folder) == before


def test_features_without_sets_are_refused(store: Store, call: Callable[..., list[str]]) -> None:
    assert call("evaluate", store.folder, "--features", OTHER) == [
        f"attnshift: --features is {OTHER}, which is used with --sets alone; add --sets, or leave it out"
    ]
