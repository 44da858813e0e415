"""The log is strict JSON for all events, also after a crash."""

from __future__ import annotations

import json
import os
from contextlib import closing
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import pytest

from attnshift.errors import UserError
from attnshift.telemetry import EVENTS
from attnshift.telemetry.json_lines import JsonLines
from attnshift.testing.recorded import RECORDED, begun, done


def strict(line: str) -> dict[str, Any]:
    def refuse(name: str) -> NoReturn:
        raise AssertionError(f"{name} is not JSON")

    return json.loads(line, parse_constant=refuse)


def write(path: Path) -> list[dict[str, Any]]:
    with closing(JsonLines(path)) as log:
        for event in RECORDED:
            log(event)
    return [strict(line) for line in path.read_text().splitlines()]


def test_every_event_is_a_line_with_its_name_its_time_and_all_that_it_says(tmp_path: Path) -> None:
    before = datetime.now(UTC)
    lines = write(tmp_path / "new" / "run.jsonl")
    times = [datetime.fromisoformat(line.pop("at")) for line in lines]
    assert before <= times[0]
    assert times == sorted(times)
    assert times[-1] <= datetime.now(UTC)
    assert all(each.utcoffset() is not None for each in times)
    for line, event in zip(lines, RECORDED, strict=True):
        assert EVENTS[line.pop("event")] is type(event)
        said = json.loads(json.dumps(asdict(event)).replace("NaN", '"nan"').replace("Infinity", '"inf"'))
        assert line == said


def test_what_is_not_finite_can_be_read_back(tmp_path: Path) -> None:
    lines = write(tmp_path / "run.jsonl")
    losses = [line["losses"]["classification"] for line in lines if line["event"] == "iteration" and line["losses"]]
    assert losses == [[1.0, 3.0], [0.5, "nan"], ["inf"]]
    assert float(losses[2][0]) == float("inf")


def test_a_line_is_there_as_soon_as_it_was_told_and_in_one_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(JsonLines(tmp_path / "run.jsonl")) as log:
        for count, event in enumerate(RECORDED):
            log(event)
            content = (tmp_path / "run.jsonl").read_bytes()
            assert content.endswith(b"}\n")
            assert content.count(b"\n") == count + 1
    writes: list[bytes] = []

    class Full:
        name = "run.jsonl"

        def write(self, content: bytes) -> int:
            writes.append(content)
            return len(content) - 1

    monkeypatch.setattr(log, "_file", Full())
    with pytest.raises(OSError, match=r"run\.jsonl took only part of a line"):
        log(begun())
    assert len(writes) == 1
    assert strict(writes[0].decode())["event"] == "run_begun"


def test_after_a_crash_the_cut_line_stays_alone(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    write(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    with closing(JsonLines(path)) as log:
        log(begun())
    lines = path.read_bytes().split(b"\n")
    assert b"\n".join(lines[:-2]) == whole[:-9]
    assert strict(lines[-2].decode())["event"] == "run_begun"
    assert lines[-1] == b""


def test_a_whole_log_is_only_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    write(path)
    once = path.read_bytes()
    again = write(path)
    assert path.read_bytes().startswith(once)
    assert len(again) == 2 * len(RECORDED)


def test_two_processes_can_share_a_log(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    with closing(JsonLines(path)) as one, closing(JsonLines(path)) as other:
        for event in RECORDED:
            one(event)
            other(event)
    assert len([strict(line) for line in path.read_text().splitlines()]) == 2 * len(RECORDED)


def test_any_file_name_can_be_logged(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff\n\xe7\x8c\xab")
    with closing(JsonLines(tmp_path / "run.jsonl")) as log:
        log(done(name, -1.0, -1.0))
    (line,) = (tmp_path / "run.jsonl").read_text("ascii").splitlines()
    assert strict(line)["id"] == name


def test_a_path_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^`log` .* cannot be written: Is a directory; choose another file"):
        JsonLines(tmp_path)
