"""Metrics that cannot be taken: the reason is told, and everything else goes on."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from attnshift.cli.printing import print_summary
from attnshift.errors import ModelError, UnavailableError
from attnshift.judging.quality import measurable
from attnshift.judging.verdicts import evaluate_run
from attnshift.metrics import METRICS, metrics
from attnshift.report.page import write_report
from attnshift.results.store import Store
from hubs import empty_hubs
from report.seen import Seen
from tables import records

MISSING = {
    "ms_ssim": "needs images of at least 176 x 176 pixels, and these have 64 x 64",
    "lpips-squeeze": "needs torchvision's SqueezeNet1_1_Weights.IMAGENET1K_V1, and {folder}/squeezenet1_1-b8a52dc0.pth "
    "is missing",
    "lpips-alex": "needs torchvision's AlexNet_Weights.IMAGENET1K_V1, and {folder}/alexnet-owt-7be5be79.pth is missing",
    "lpips-vgg": "needs torchvision's VGG16_Weights.IMAGENET1K_V1, and {folder}/vgg16-397923af.pth is missing",
    "dists": "needs torchvision's VGG16_Weights.IMAGENET1K_V1, and {folder}/vgg16-397923af.pth is missing",
}


@pytest.fixture
def checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return empty_hubs(tmp_path / "hubs", monkeypatch)


@pytest.fixture
def store(finished: Store, tmp_path: Path, checkpoints: Path) -> Store:
    """A copy of the finished run, to be judged where nothing has been downloaded."""
    shutil.copytree(finished.folder, tmp_path / "run")
    return Store.open(tmp_path / "run")


def constant(reference: Tensor, candidate: Tensor) -> Tensor:
    return torch.full((len(reference),), 0.125)


def test_the_other_metrics_are_measured(store: Store, checkpoints: Path) -> None:
    evaluate_run(store, [])
    rows = records(store, "quality")
    assert len(rows) == 3 * (len(store.spec().arms) - 1)
    assert {name for row in rows for name in row} == {"id", "arm", *METRICS} - MISSING.keys()
    reasons = {row["metric"]: row["reason"] for row in records(store, "unavailable")}
    assert list(reasons) == list(MISSING)
    assert all(reasons[name].startswith(MISSING[name].format(folder=checkpoints)) for name in MISSING)


def test_the_reasons_are_shown_one_a_line(
    store: Store, checkpoints: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate_run(store, [])
    monkeypatch.setattr(
        metrics, "lpips_alex", lambda reference, candidate: pytest.fail("the report measured something")
    )
    print_summary(store)
    lines = capsys.readouterr().out.splitlines()
    page = Seen(write_report(store).read_text(encoding="utf-8")).text
    for name, start in MISSING.items():
        told = f"{name}: unavailable: {start.format(folder=checkpoints)}"
        assert len([line for line in lines if line.startswith(told)]) == 1
        assert told.replace(f"{name}:", f"{name} :") in page
    assert any(line.startswith("attack: ssim ") for line in lines)


def test_a_metric_that_becomes_available_is_measured_next_time(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluate_run(store, [])
    monkeypatch.setattr(metrics, "lpips_alex", constant)
    evaluate_run(store, [])
    assert {row["lpips-alex"] for row in records(store, "quality")} == {0.125}
    assert [row["metric"] for row in records(store, "unavailable")] == [
        "ms_ssim",
        "lpips-squeeze",
        "lpips-vgg",
        "dists",
    ]
    assert "0.125 [0.125, 0.125]" in Seen(write_report(store).read_text(encoding="utf-8")).text


def test_where_everything_can_be_measured_nothing_is_unavailable(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in MISSING:
        monkeypatch.setattr(metrics, name.replace("-", "_"), constant)
    evaluate_run(store, [])
    print_summary(store)
    assert records(store, "unavailable") == []
    assert "unavailable" not in capsys.readouterr().out
    assert "unavailable" not in Seen(write_report(store).read_text(encoding="utf-8")).text


@pytest.mark.usefixtures("checkpoints")
def test_the_size_of_the_images_decides() -> None:
    small, large = (measurable(size) for size in (16, 176))
    assert list(small[1]) == list(MISSING)
    assert small[1]["lpips-alex"] == "needs images of at least 31 x 31 pixels, and these have 16 x 16"
    assert list(large[1]) == list(MISSING)[1:]
    assert small[0].keys() | small[1].keys() == large[0].keys() | large[1].keys() == METRICS.keys()


def test_other_mistakes_are_not_taken_for_reasons(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(reference: Tensor, candidate: Tensor) -> Tensor:
        raise ModelError("this is no reason")

    monkeypatch.setattr(metrics, "lpips_alex", broken)
    with pytest.raises(ModelError, match="this is no reason"):
        evaluate_run(store, [])


def test_a_metric_s_reason_is_one_line(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(reference: Tensor, candidate: Tensor) -> Tensor:
        raise UnavailableError("needs <b>something</b>")

    monkeypatch.setattr(metrics, "lpips_alex", missing)
    evaluate_run(store, [])
    html = write_report(store).read_text(encoding="utf-8")
    assert "needs &lt;b&gt;something&lt;/b&gt;" in html
