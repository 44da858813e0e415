"""What happened in a run, from any number of files, whole or not."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from attnshift.results.ledger import Failed, History, Ledger, Span, read_history
from ledgers import at, event, events, write_ledger


def test_a_run_without_a_ledger_has_no_history(tmp_path: Path) -> None:
    assert read_history(tmp_path) == History()
    Ledger(tmp_path)
    assert list(tmp_path.iterdir()) == [], "the file is made with the first event"


def test_what_is_written_is_read(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.begun(["a", "b"])
    assert read_history(tmp_path).deaths == Counter("ab"), "or being worked on"
    ledger.ended(["a", "b"], {"b": "cut off"})
    ledger.begun(["c"])
    ledger.stopped(["c"])
    ledger.begun(["d"])
    ledger.died(["d"])
    history = read_history(tmp_path)
    assert history.deaths == Counter("d")
    assert {id: each.reason for id, each in history.failed.items()} == {"b": "cut off"}
    assert [span.items for span in history.spans] == [1]
    assert [each["event"] for each in events(tmp_path)] == ["begun", "ended", "begun", "stopped", "begun", "died"]
    assert len(list((tmp_path / "ledger").iterdir())) == 1


def test_two_ledgers_are_two_files(tmp_path: Path) -> None:
    for name in "ab":
        Ledger(tmp_path).begun([name])
    assert len(list((tmp_path / "ledger").iterdir())) == 2
    assert read_history(tmp_path).deaths == Counter("ab")


def test_times_of_a_batch(tmp_path: Path) -> None:
    write_ledger(
        tmp_path,
        "1",
        [
            event("begun", 0, "a", "b"),
            event("begun", 2, "c"),
            event("ended", 5, "c", failed={"c": "no"}),
            event("ended", 9, "a", "b"),
        ],
    )
    history = read_history(tmp_path)
    assert history.spans == [Span(at(2), at(5), 0), Span(at(0), at(9), 2)]
    assert history.failed == {"c": Failed("no", at(5))}


def test_an_end_without_a_begin_takes_no_time(tmp_path: Path) -> None:
    """That of an item which is left out."""
    write_ledger(tmp_path, "1", [event("ended", 5, "a", failed={"a": "left out"})])
    history = read_history(tmp_path)
    assert history.spans == [Span(at(5), at(5), 0)]
    assert history.failed == {"a": Failed("left out", at(5))}


@pytest.mark.parametrize(
    ("files", "deaths"),
    [
        ({"1": [event("begun", 0, "a", "b")]}, {"a": 1, "b": 1}),
        ({"1": [event("begun", 0, "a")], "2": [event("begun", 1, "a", "b")]}, {"a": 2, "b": 1}),
        ({"1": [event("begun", 0, "a"), event("died", 1, "a"), event("begun", 2, "a")]}, {"a": 2}),
        ({"1": [event(name, 0, "a") for name in ("begun", "died", "begun", "died")]}, {"a": 2}),
        ({"1": [event("begun", 0, "a"), event("stopped", 1, "a")]}, {}),
        ({"1": [event("begun", 0, "a"), event("ended", 1, "a")]}, {}),
        ({"1": [event("begun", 0, "a")], "2": [event("begun", 1, "a"), event("ended", 2, "a")]}, {}),
        ({"1": [event("begun", 0, "a")], "2": [event("begun", 1, "a"), event("stopped", 2, "a")]}, {"a": 1}),
        ({"1": [event("begun", 0, "a", "b"), event("ended", 1, "a")]}, {"b": 1}),
        ({"1": [event("begun", 0, "a", "b"), event("begun", 1, "c"), event("ended", 2, "a", "b")]}, {"c": 1}),
        ({"1": [event("stopped", 0, "a")]}, {}),
    ],
    ids=[
        "never ended", "twice never ended", "died and begun", "died twice", "stopped", "ended", "ended by the next",
        "stopped by the next", "half ended", "two batches at once", "stopped before its begin was written",
    ],
)  # fmt: skip
def test_deaths(tmp_path: Path, files: dict[str, list[dict[str, object]]], deaths: dict[str, int]) -> None:
    for name, lines in files.items():
        write_ledger(tmp_path, name, lines)
    assert dict(read_history(tmp_path).deaths) == deaths


def test_deaths_before_an_end_are_forgotten_and_those_after_it_count(tmp_path: Path) -> None:
    write_ledger(tmp_path, "1", [event("begun", 0, "a"), event("died", 1, "a")])
    write_ledger(tmp_path, "2", [event("begun", 2, "a"), event("ended", 3, "a", failed={"a": "x"})])
    assert not read_history(tmp_path).deaths
    write_ledger(tmp_path, "3", [event("begun", 4, "a")])
    history = read_history(tmp_path)
    assert history.deaths == Counter("a")
    assert history.failed == {"a": Failed("x", at(3))}, "tried again, and nothing came of it"


@pytest.mark.parametrize("first", ["1", "2"])
def test_the_last_end_decides_in_whatever_file_it_is(tmp_path: Path, first: str) -> None:
    """A process that began earlier may end later."""
    second = "2" if first == "1" else "1"
    write_ledger(tmp_path, first, [event("begun", 0, "a", "b"), event("ended", 5, "a", "b", failed={"a": "early"})])
    write_ledger(tmp_path, second, [event("begun", 2, "a"), event("ended", 9, "a", failed={"a": "late"})])
    assert read_history(tmp_path).failed == {"a": Failed("late", at(9))}


def test_what_failed_and_was_done_later_has_not_failed(tmp_path: Path) -> None:
    write_ledger(tmp_path, "1", [event("begun", 0, "a"), event("ended", 1, "a", failed={"a": "no disk"})])
    write_ledger(tmp_path, "2", [event("begun", 2, "a"), event("ended", 3, "a")])
    assert read_history(tmp_path).failed == {}


def test_a_line_that_a_crash_has_cut_is_ignored(tmp_path: Path) -> None:
    line = json.dumps(event("ended", 1, "a"))
    for kept in range(len(line)):
        write_ledger(tmp_path, "1", [event("begun", 0, "a"), line[:kept]])
        assert dict(read_history(tmp_path).deaths) == {"a": 1}, line[:kept]
    write_ledger(tmp_path, "1", [event("begun", 0, "a"), line])
    assert not read_history(tmp_path).deaths


@pytest.mark.parametrize("garbage", ["\0\0\0\0", "x", "[]", "3", "null", "{}", '{"event": "ended"}', '{"event": "b'])
def test_garbage_between_lines_is_ignored(tmp_path: Path, garbage: str) -> None:
    write_ledger(tmp_path, "1", [garbage, event("begun", 0, "a"), garbage, event("ended", 1, "a"), garbage])
    assert not read_history(tmp_path).deaths
    assert len(read_history(tmp_path).spans) == 1


def test_bytes_that_are_no_text_are_ignored(tmp_path: Path) -> None:
    path = write_ledger(tmp_path, "1", [event("begun", 0, "a")])
    path.write_bytes(path.read_bytes() + b"\n\xff\xfe{\n" + json.dumps(event("ended", 1, "a")).encode())
    assert not read_history(tmp_path).deaths


def test_what_follows_a_cut_line_in_the_same_file_is_read(tmp_path: Path) -> None:
    """A full disk cuts a line, and the process lives to say that it stops."""
    ledger = Ledger(tmp_path)
    ledger.begun(["a"])
    (path,) = (tmp_path / "ledger").iterdir()
    with path.open("ab") as file:
        file.write(b'\n{"event": "ended", "at"')
    ledger.stopped(["a"])
    assert not read_history(tmp_path).deaths
