"""Curves for TensorBoard, with a stand-in for its writer, and with itself if installed."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from attnshift.errors import UserError
from attnshift.telemetry import Telemetry
from attnshift.telemetry.tensorboard_log import TensorBoard
from attnshift.testing.recorded import RECORDED, begun, iteration

RUN = "fast-0123456789abcdef"


class Writer:
    made: list[Writer]

    def __init__(self, folder: Path):
        self.folder, self.points, self.closed = folder, [], False
        self.made.append(self)

    def add_scalar(self, name: str, value: float, step: int) -> None:
        assert not self.closed
        self.points.append((name, value, step))

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def writers(monkeypatch: pytest.MonkeyPatch) -> list[Writer]:
    monkeypatch.setattr(Writer, "made", [], raising=False)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=Writer))
    return Writer.made


def test_a_run_is_a_folder_with_its_curves(writers: list[Writer], tmp_path: Path) -> None:
    log = TensorBoard(tmp_path)
    for event in RECORDED:
        log(event)
    (writer,) = writers
    assert writer.folder == tmp_path / RUN
    assert writer.closed
    curve = [(value, step) for name, value, step in writer.points if name == "loss/classification"]
    assert [step for _, step in curve] == [0, 1, 3]
    assert curve[0] == (2.0, 0)
    assert [(value, step) for name, value, step in writer.points if name == "image/fooled"] == [(1.0, 2), (0.0, 3)]


def test_each_run_of_a_command_has_a_folder_of_its_own(writers: list[Writer], tmp_path: Path) -> None:
    with Telemetry([TensorBoard(tmp_path)]) as telemetry:
        telemetry(begun(run="one"))
        telemetry(begun(run="two", recipe="../mine or yours"))
        telemetry(iteration(0, 0, 1.0))
    assert [writer.folder.name for writer in writers] == ["fast-one", ".._mine_or_yours-two"]
    assert all(writer.folder.parent == tmp_path for writer in writers)
    assert [len(writer.points) for writer in writers] == [0, 6]
    assert all(writer.closed for writer in writers)


def test_nothing_is_written_before_a_run_begins(writers: list[Writer], tmp_path: Path) -> None:
    log = TensorBoard(tmp_path)
    log(iteration(0, 0, 1.0))
    log.close()
    assert not writers


def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UserError, match=r"pip install 'attnshift\[tensorboard\]'"):
        TensorBoard(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_folder_that_cannot_be_written_is_one_line(writers: list[Writer], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"^`tensorboard` .*file cannot be written: File exists; choose another"):
        TensorBoard(tmp_path / "file")


def test_tensorboard_reads_the_curves(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for _ in range(2):
        log = TensorBoard(tmp_path)
        for event in RECORDED[:3]:
            log(event)
        log.close()
    read = accumulator.EventAccumulator(str(tmp_path / RUN)).Reload()
    assert "margin/jpeg(quality=60)+lab:resnet" in read.Tags()["scalars"]
    assert {(each.step, each.value) for each in read.Scalars("loss/structure")} == {(0, 4.0)}
