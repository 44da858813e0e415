"""Claims of processes on a run: lock files below ``locks`` in its folder.

The system releases a lock when its process ends, however it ends. Several processes share a run,
also on several machines if the file system locks for all of them: each takes what no other has.

locks/NUMBER        while a process works on that micro-batch
locks/NAME.process  while a process works on the run
locks/entrance      while a process joins the run, or works on it alone
locks/tables        while tables of the whole run are written

A file goes with its lock. Files of killed processes stay, unlocked,
until a process finds itself alone.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout, UnixFileLock, lock_descriptor

from attnshift.errors import RunError
from attnshift.files import writing

__all__ = ["FOLDER", "Claims", "is_active"]

FOLDER = "locks"
_PROCESS = ".process"
_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""Errors of a file system that has no locks."""


class Claims:
    """Claims of this process on the run in ``folder``; within a process, one object per run."""

    def __init__(self, folder: Path):
        self._folder = folder / FOLDER
        with writing(self._folder):
            self._folder.mkdir(exist_ok=True)
        self._own = self._lock(secrets.token_hex(8) + _PROCESS)
        self._held: dict[int, FileLock] = {}

    def __enter__(self) -> Claims:
        with self._waited_for("entrance"):
            _acquire(self._own)
        return self

    def __exit__(self, *_: object) -> None:
        for number in [*self._held]:
            self.release(number)
        _release(self._own)

    def acquire(self, number: int) -> bool:
        """Claim micro-batch ``number``; False where it is claimed already."""
        lock = self._lock(str(number))
        if not _acquire(lock, timeout=0):
            return False
        self._held[number] = lock
        return True

    def release(self, number: int) -> None:
        _release(self._held.pop(number))

    def is_any_taken(self) -> bool:
        """Whether a process works on a micro-batch at this moment."""
        return any(_is_held(path) for path in self._folder.iterdir() if path.name.isdecimal())

    @contextmanager
    def tables(self) -> Iterator[None]:
        """Let one process at a time write what belongs to the whole run; others wait here."""
        with self._waited_for("tables"):
            yield

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Yield whether no other process works on the run; if so,
        none joins it before the block ends."""
        with ExitStack() as entrance:
            entrance.enter_context(self._waited_for("entrance"))
            processes = [path for path in _processes(self._folder) if path != Path(self._own.lock_file)]
            alone = not any(map(_is_held, processes))
            if alone:
                self._remove_leftovers(processes)
            else:
                entrance.close()
            yield alone

    def _remove_leftovers(self, processes: list[Path]) -> None:
        """Remove the lock files of processes that were killed; no other process may be there."""
        batches = [path for path in self._folder.iterdir() if path.name.isdecimal()]
        for path in (*processes, *(path for path in batches if int(path.name) not in self._held)):
            with writing(path):
                path.unlink(missing_ok=True)

    @contextmanager
    def _waited_for(self, name: str) -> Iterator[None]:
        lock = self._lock(name)
        _acquire(lock)
        try:
            yield
        finally:
            _release(lock)

    def _lock(self, name: str) -> FileLock:
        return FileLock(self._folder / name, thread_local=False, fallback_to_soft=False)


def is_active(folder: Path) -> bool:
    """Whether a process works on the run in ``folder``. Nothing there is changed."""
    return any(_is_held(path) for path in _processes(folder / FOLDER))


def _processes(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if path.name.endswith(_PROCESS)]
    except FileNotFoundError:
        return []


def _is_held(path: Path) -> bool:
    """Whether a process holds the lock file ``path``;
    one that is about to take it waits meanwhile."""
    try:
        file = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        with _locking(path):
            return not lock_descriptor(file, blocking=False)
    finally:
        os.close(file)


def _acquire(lock: FileLock, timeout: float = -1) -> bool:
    """Take ``lock``; False where another still has it after ``timeout`` seconds, below 0 for
    ever."""
    path = Path(lock.lock_file)
    with writing(path), _locking(path):
        try:
            lock.acquire(timeout=timeout)
        except Timeout:
            return False
    return True


def _release(lock: FileLock) -> None:
    """Release ``lock`` and remove its file.

    On Unix the file goes first: whoever has opened it meanwhile then finds that it is gone, and
    starts over. Elsewhere a file that is open cannot go, and the library removes it afterwards.
    """
    path = Path(lock.lock_file)
    with writing(path):
        if isinstance(lock, UnixFileLock):
            path.unlink(missing_ok=True)
        lock.release()


@contextmanager
def _locking(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        raise RunError(f"{path} cannot be locked ({error.strerror}); use a file system with locks") from None
