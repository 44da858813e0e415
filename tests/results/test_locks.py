"""Who works on what: processes that want the same, and processes that are gone."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from attnshift.errors import RunError
from attnshift.results.locks import FOLDER, Claims, is_active
from forked import Child, fork

fcntl = pytest.importorskip("fcntl")


@contextmanager
def another(work: Callable[[Callable[[], None]], None]) -> Iterator[Child]:
    """``work`` in a process of its own, as far as to where it calls what it is given; it goes on after the block."""
    ready, go = os.pipe(), os.pipe()

    def carry_out() -> None:
        os.close(ready[0])
        os.close(go[1])

        def pause() -> None:
            os.write(ready[1], b"x")
            os.read(go[0], 1)

        work(pause)

    child = fork(carry_out)
    os.close(ready[1])
    os.close(go[0])
    assert os.read(ready[0], 1) == b"x"
    try:
        yield child
    finally:
        # It may be gone.
        with suppress(BrokenPipeError):
            os.write(go[1], b"x")
        os.close(go[1])
        os.close(ready[0])


def taking(folder: Path, *numbers: int) -> Callable[[Callable[[], None]], None]:
    def work(pause: Callable[[], None]) -> None:
        with Claims(folder) as claims:
            assert all(claims.acquire(number) for number in numbers)
            pause()

    return work


def wait_for(path: Path) -> None:
    last = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < last, f"no {path.name}"
        time.sleep(0.001)


def test_what_another_process_has_cannot_be_taken(tmp_path: Path) -> None:
    with Claims(tmp_path) as claims:
        with another(taking(tmp_path, 0, 7, 1 << 39)) as child:
            assert [claims.acquire(number) for number in (0, 1, 6, 7, 8, 1 << 39)] == [
                False, True, True, False, True, False,
            ]  # fmt: skip
        assert child.wait() == 0
        assert all(claims.acquire(number) for number in (0, 7, 1 << 39))


def test_what_is_given_back_can_be_taken(tmp_path: Path) -> None:
    def work(pause: Callable[[], None]) -> None:
        with Claims(tmp_path) as claims:
            assert claims.acquire(3)
            assert claims.acquire(4)
            claims.release(3)
            pause()

    with another(work) as child, Claims(tmp_path) as claims:
        assert (claims.acquire(3), claims.acquire(4)) == (True, False)
    assert child.wait() == 0


def test_a_killed_process_gives_everything_back(tmp_path: Path) -> None:
    def work(pause: Callable[[], None]) -> None:
        with Claims(tmp_path) as claims, claims.tables():
            assert claims.acquire(3)
            pause()

    with Claims(tmp_path) as claims, another(work) as child:
        assert not claims.acquire(3)
        child.kill()
        assert child.wait() == -signal.SIGKILL
        assert claims.acquire(3)
        with claims.tables(), claims.alone() as alone:
            assert alone


def test_a_process_that_closes_gives_everything_back(tmp_path: Path) -> None:
    def work(pause: Callable[[], None]) -> None:
        with Claims(tmp_path) as claims:
            assert claims.acquire(3)
        pause()

    with another(work) as child, Claims(tmp_path) as claims:
        assert claims.acquire(3)
        with claims.alone() as alone:
            assert alone
    assert child.wait() == 0


def test_only_one_process_writes_tables(tmp_path: Path) -> None:
    """Each adds to a file, slowly and in two steps; without the claim they would read the same number."""
    path = tmp_path / "number"
    path.write_text("0")

    def work() -> None:
        with Claims(tmp_path) as claims:
            for _ in range(5):
                with claims.tables():
                    number = int(path.read_text())
                    time.sleep(0.005)
                    path.write_text(str(number + 1))

    children = [fork(work) for _ in range(4)]
    assert [child.wait() for child in children] == [0] * 4
    assert path.read_text() == "20"


@pytest.mark.parametrize("numbers", [(), (0,), (1 << 39,)])
def test_who_is_there_is_seen_by_others(tmp_path: Path, numbers: tuple[int, ...]) -> None:
    """Also where nothing is taken: between two micro-batches, or while tables are written."""
    assert not is_active(tmp_path)
    with another(taking(tmp_path, *numbers)) as child:
        assert is_active(tmp_path)
        with Claims(tmp_path) as claims, claims.alone() as alone:
            assert not alone
    assert child.wait() == 0
    assert not is_active(tmp_path)
    with Claims(tmp_path) as claims, claims.alone() as alone:
        assert alone


def test_alone_is_over_with_its_block(tmp_path: Path) -> None:
    """Whoever comes meanwhile waits, and both are seen afterwards."""

    def work(pause: Callable[[], None]) -> None:
        with Claims(tmp_path) as claims:
            with claims.alone() as alone:
                assert alone
                assert claims.acquire(5)
                pause()
            wait_for(looked)
            assert is_active(tmp_path)

    entered, looked = tmp_path / "entered", tmp_path / "looked"

    def late() -> None:
        with Claims(tmp_path) as claims:
            entered.touch()
            assert not claims.acquire(5)
            looked.touch()
            time.sleep(0.2)

    def look() -> None:
        assert is_active(tmp_path)

    with another(work) as first:
        second = fork(late)
        time.sleep(0.2)
        assert not entered.exists()
    assert second.wait() == 0
    assert first.wait() == 0
    with Claims(tmp_path) as claims:
        with claims.alone() as alone:
            assert alone
        assert fork(look).wait() == 0, "still here"


def test_looking_disturbs_nobody(tmp_path: Path) -> None:
    """A process that looks whether somebody works takes nothing from those who do."""

    def look() -> None:
        for _ in range(2000):
            assert is_active(tmp_path)

    with Claims(tmp_path) as claims:
        child = fork(look)
        for number in range(2000):
            assert claims.acquire(number)
            claims.release(number)
        assert child.wait() == 0


def test_nothing_is_left_of_what_is_given_back(tmp_path: Path) -> None:
    with Claims(tmp_path) as claims:
        with claims.tables():
            assert claims.acquire(3)
            assert claims.acquire(4)
        claims.release(3)
        assert sorted(each.name for each in (tmp_path / FOLDER).iterdir() if each.suffix == "") == ["4"]
    assert list((tmp_path / FOLDER).iterdir()) == []


def test_whoever_is_alone_removes_what_killed_processes_left(tmp_path: Path) -> None:
    with another(taking(tmp_path, 0, 7)) as child:
        child.kill()
        assert child.wait() == -signal.SIGKILL
    assert len(list((tmp_path / FOLDER).iterdir())) == 3
    assert not is_active(tmp_path)
    with Claims(tmp_path) as claims:
        assert claims.acquire(7)
        with claims.alone() as alone:
            assert alone
        assert {each.name for each in (tmp_path / FOLDER).iterdir() if each.suffix == ""} == {"7"}
    assert list((tmp_path / FOLDER).iterdir()) == []


def test_a_claim_is_never_held_twice_while_its_file_comes_and_goes(tmp_path: Path) -> None:
    """Four processes take and give back the same one; the file in which each writes would show two of them at once."""
    path = tmp_path / "holder"

    def work() -> None:
        with Claims(tmp_path) as claims:
            for _ in range(300):
                if not claims.acquire(0):
                    continue
                path.touch(exist_ok=False)
                path.unlink()
                claims.release(0)

    children = [fork(work) for _ in range(4)]
    assert [child.wait() for child in children] == [0] * 4


def test_looking_makes_no_file(tmp_path: Path) -> None:
    assert not is_active(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_without_locks_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(
        RunError, match=r"entrance cannot be locked \(No locks available\); use a file system with locks"
    ):
        Claims(tmp_path).__enter__()


def test_a_folder_that_takes_no_claims_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"cannot write to .*locks: No such file or directory"):
        Claims(tmp_path / "nowhere")
