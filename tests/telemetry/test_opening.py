"""From options to consumers."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest

from attnshift.errors import UserError
from attnshift.telemetry import TELEMETRY, open_telemetry
from telemetry.recorded import RECORDED


def test_without_options_there_are_lines_and_no_iteration_is_looked_at(capsys: pytest.CaptureFixture[str]) -> None:
    with open_telemetry() as telemetry:
        assert telemetry.watch(0, ["one"]) is None
        for event in RECORDED:
            telemetry(event)
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 3


def test_a_terminal_gets_a_bar() -> None:
    stream = io.StringIO()
    with open_telemetry(terminal=True, stream=stream) as telemetry:
        for event in RECORDED:
            telemetry(event)
    assert "\x1b[" in stream.getvalue()


def test_options_add_to_what_is_shown(tmp_path: Path) -> None:
    stream = io.StringIO()
    with open_telemetry(log=tmp_path / "run.jsonl", stream=stream) as telemetry:
        assert telemetry.watch(0, ["one"]) is not None
        for event in RECORDED:
            telemetry(event)
    assert len((tmp_path / "run.jsonl").read_text().splitlines()) == len(RECORDED)
    assert len(stream.getvalue().splitlines()) == 3


def test_what_cannot_be_had_is_said_before_anything_is_shown(tmp_path: Path) -> None:
    stream = io.StringIO()
    with pytest.raises(UserError, match=r"^log "):
        open_telemetry(log=tmp_path, terminal=True, stream=stream)
    assert stream.getvalue() == ""


def test_every_option_has_its_entry() -> None:
    assert set(TELEMETRY) == {"jsonl", "tensorboard", "mlflow", "rich", "plain"}


def test_lines_and_logs_import_neither_torch_nor_a_tracker(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from attnshift.telemetry import open_telemetry;"
        f"open_telemetry(log=Path({str(tmp_path / 'run.jsonl')!r})).close();"
        "print(sorted({'torch', 'tensorboard', 'mlflow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
