"""From options to consumers."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest

from attnshift.cli.options import TelemetryOptions
from attnshift.errors import UserError
from attnshift.registry import Entry, Table
from attnshift.telemetry import TELEMETRY, Event, open_telemetry
from attnshift.testing.recorded import RECORDED


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
    with pytest.raises(UserError, match=r"^`log` "):
        open_telemetry(log=tmp_path, terminal=True, stream=stream)
    assert stream.getvalue() == ""


def test_every_option_has_its_entry() -> None:
    assert set(TELEMETRY) == {"jsonl", "tensorboard", "mlflow", "wandb", "rich", "plain"}


def test_lines_and_logs_import_neither_torch_nor_a_tracker(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from attnshift.telemetry import open_telemetry;"
        f"open_telemetry(log=Path({str(tmp_path / 'run.jsonl')!r})).close();"
        "print(sorted({'torch', 'tensorboard', 'mlflow', 'wandb'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


class Tally:
    """Keeps the number of events in a file."""

    iterations = True

    def __init__(self, place: str):
        self.place, self.events = Path(place), 0

    def __call__(self, event: Event) -> None:
        self.events += 1

    def close(self) -> None:
        self.place.write_text(str(self.events))


class Deaf:
    """No consumer."""

    def __init__(self, place: str):
        pass


@pytest.fixture
def plugged(monkeypatch: pytest.MonkeyPatch) -> None:
    others = {name: Entry("", "", f"{__name__}:{name.title()}") for name in ("tally", "deaf")}
    table = Table("telemetry", {**TELEMETRY, **others}, contract=TELEMETRY.contract)
    monkeypatch.setattr("attnshift.telemetry.TELEMETRY", table)


@pytest.mark.usefixtures("plugged")
def test_a_consumer_of_another_package_is_opened_by_name(tmp_path: Path) -> None:
    asked = TelemetryOptions(others=(f"tally={tmp_path / 'tally'}",))
    with asked.places() as places, open_telemetry(**places, stream=io.StringIO()) as telemetry:
        for event in RECORDED:
            telemetry(event)
    assert (tmp_path / "tally").read_text() == str(len(RECORDED))
    with pytest.raises(UserError, match=r"^telemetry 'deaf' lacks iterations$"):
        open_telemetry(others={"deaf": "here"})
    with pytest.raises(UserError, match="unknown telemetry 'taly'; did you mean 'tally'"):
        open_telemetry(others={"taly": "here"})


@pytest.mark.parametrize("text", ["jsonl", "jsonl=", "=run.jsonl"])
def test_a_consumer_without_name_or_place_is_refused(text: str) -> None:
    said = f"^`telemetry` is {text}; it must have the form NAME=PLACE$"
    with pytest.raises(UserError, match=said), TelemetryOptions(others=(text,)).places():
        pass
