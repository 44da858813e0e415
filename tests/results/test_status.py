"""How far a run is: from its folder alone, which nothing happens to."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from attnshift.errors import RunError
from attnshift.execution.coordinate import attack_prepared
from attnshift.results.locks import Claims
from attnshift.results.rows import ResultRow
from attnshift.results.status import FailedImage, read_status
from attnshift.results.store import Store
from doubles import items_of, painted, write_cards
from forked import fork
from ledgers import event, write_ledger
from small_runs import contents

if TYPE_CHECKING:
    from attnshift.attack.prepare import Task


@pytest.fixture
def run(tmp_path: Path) -> Store:
    """Ten images, none of them begun."""
    prepared = painted(write_cards(tmp_path / "cards", 10))
    return Store.start(tmp_path / "run", prepared.worker.spec, prepared.plan)


@pytest.fixture
def ids(run: Store, tmp_path: Path) -> list[str]:
    return [item.id for item in items_of(tmp_path / "cards")]


def finish(store: Store, *ids: str) -> None:
    for id in ids:
        store.finish(ResultRow(id, f"{id}.png", 0, "mug"), {})


def test_a_run_that_has_not_begun(run: Store) -> None:
    status = read_status(run.folder)
    assert status.run == run.spec().digest
    assert status.recipe == "quick"
    assert (status.images, status.done, status.left) == (10, 0, 10)
    assert (status.failed, status.troubled, status.working) == ((), {}, False)
    assert (status.rate, status.seconds_left) == (None, None)


def test_what_is_done_failed_and_left(run: Store, ids: list[str]) -> None:
    finish(run, *ids[:4])
    write_ledger(
        run.folder, "1", [event("begun", 0, *ids[:5]), event("ended", 10, *ids[:5], failed={ids[4]: "cut off"})]
    )
    status = read_status(run.folder)
    assert (status.images, status.done, status.left) == (10, 4, 5)
    assert status.failed == (FailedImage(ids[4], "card-4.png", "cut off"),)
    assert status.rate == pytest.approx(0.4)
    assert status.seconds_left == pytest.approx(5 / 0.4)


def test_what_was_done_later_has_not_failed(run: Store, ids: list[str]) -> None:
    """Also where the file of the later process comes first, or its last line is lost."""
    finish(run, ids[0])
    write_ledger(run.folder, "1", [event("ended", 5, ids[0], failed={ids[0]: "cut off"}), event("begun", 6, ids[0])])
    status = read_status(run.folder)
    assert (status.done, status.failed, status.troubled, status.left) == (1, (), {}, 9)


def test_who_ended_their_workers(run: Store, ids: list[str]) -> None:
    write_ledger(run.folder, "1", [event("begun", 0, ids[0], ids[1])])
    write_ledger(run.folder, "2", [event("begun", 9, ids[0])])
    assert read_status(run.folder).troubled == {"card-0.png": 2, "card-1.png": 1}


def test_what_is_worked_on_is_no_trouble(run: Store, ids: list[str]) -> None:
    write_ledger(run.folder, "1", [event("begun", 0, ids[0])])
    write_ledger(run.folder, "2", [event("begun", 9, ids[0], ids[1])])

    def look() -> None:
        status = read_status(run.folder)
        assert status.working
        assert status.troubled == {"card-0.png": 1}

    with Claims(run.folder):
        assert fork(look).wait() == 0
    assert not read_status(run.folder).working


@pytest.mark.parametrize(
    ("spans", "rate"),
    [
        ([(0, 10, 5)], 0.5),
        ([(0, 10, 5), (10, 30, 5)], 10 / 30),
        ([(0, 10, 5), (1000, 1010, 5)], 0.5),
        ([(0, 10, 5), (0, 10, 5)], 1.0),
        ([(0, 10, 5), (5, 20, 5)], 0.5),
        ([(0, 20, 5), (5, 10, 5)], 0.5),
        ([(0, 10, 0)], 0.0),
        ([(5, 5, 0)], None),
        ([(0, 1000, 1), *((1000 + at, 1001 + at, 2) for at in range(32))], 2.0),
    ],
    ids=[
        "one", "one after the other", "a night between", "two at once", "overlapping", "one inside the other",
        "only failures", "no time", "the last ones count",
    ],
)  # fmt: skip
def test_the_rate_is_that_of_the_last_work(
    run: Store, ids: list[str], spans: list[tuple[float, float, int]], rate: float | None
) -> None:
    for number, (begun, ended, items) in enumerate(spans):
        done = ids[:items]
        lines = [event("begun", begun, ids[9], *done), event("ended", ended, ids[9], *done, failed={ids[9]: "x"})]
        write_ledger(run.folder, f"{number:02}", lines)
    found = read_status(run.folder).rate
    assert found == (None if rate is None else pytest.approx(rate))


def test_no_time_left_is_known_where_nothing_is_done(run: Store, ids: list[str]) -> None:
    write_ledger(run.folder, "1", [event("begun", 0, ids[0]), event("ended", 9, ids[0], failed={ids[0]: "x"})])
    assert read_status(run.folder).seconds_left is None


def test_looking_changes_nothing(run: Store, ids: list[str]) -> None:
    finish(run, ids[0])
    write_ledger(run.folder, "1", [event("begun", 0, ids[0], ids[1]), '{"event": "en'])
    for claims in (True, False):
        if not claims:
            (run.folder / "locks").rmdir()
        before, names = contents(run.folder), sorted(run.folder.rglob("*"))
        times = [path.stat().st_mtime_ns for path in names]
        read_status(run.folder)
        assert contents(run.folder) == before
        assert sorted(run.folder.rglob("*")) == names
        assert [path.stat().st_mtime_ns for path in names] == times


def test_who_may_only_read_can_look(run: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    original = os.open

    def opened(path: str, flags: int, *rest: int, **named: int) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise PermissionError(13, "Permission denied")
        return original(path, flags, *rest, **named)

    monkeypatch.setattr(os, "open", opened)
    assert read_status(run.folder).images == 10


def test_a_part_that_cannot_be_read_is_one_line(run: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    lock, original = run.folder / "locks" / "1.process", os.open
    lock.touch()

    def opened(path: str, flags: int, *rest: int, **named: int) -> int:
        if path == lock:
            raise PermissionError(13, "Permission denied", str(path))
        return original(path, flags, *rest, **named)

    monkeypatch.setattr(os, "open", opened)
    with pytest.raises(RunError, match=f"^cannot read {re.escape(str(lock))}: Permission denied; make it readable"):
        read_status(run.folder)


def test_a_run_at_work_is_seen_from_outside(tmp_path: Path) -> None:
    cards, out, go = write_cards(tmp_path / "cards", 6), tmp_path / "run", tmp_path / "go"
    third = items_of(cards)[2].id

    def waiting(tasks: Sequence[Task]) -> None:
        while tasks[0].id == third and not go.exists():
            time.sleep(0.002)

    prepared = painted(cards, 2, waiting)
    child = fork(partial(attack_prepared, prepared, out))
    last = time.monotonic() + 30
    while not (out / "ledger").exists() or len(begun(out)) < 2:
        assert time.monotonic() < last
        time.sleep(0.005)
    status = read_status(out)
    assert (status.done, status.left, status.working, status.troubled) == (2, 4, True, {})
    assert status.rate is not None
    go.touch()
    assert child.wait() == 0
    status = read_status(out)
    assert (status.done, status.left, status.working, status.seconds_left) == (6, 0, False, 0)


def begun(out: Path) -> list[str]:
    lines = [line for path in (out / "ledger").iterdir() for line in path.read_text().splitlines()]
    return [line for line in lines if '"begun"' in line and line.endswith("}")]


@pytest.mark.parametrize("kind", ["missing", "empty"])
def test_what_is_no_run_is_one_line(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "run"
    if kind == "empty":
        folder.mkdir()
    with pytest.raises(RunError, match="is not a run"):
        read_status(folder)
    assert sorted(tmp_path.rglob("*")) == ([folder] if kind == "empty" else [])
