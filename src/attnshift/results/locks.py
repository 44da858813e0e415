"""Which process works on what: advisory locks on one file of a run folder, a byte for each micro-batch.

The kernel gives a lock back when its process ends, however it ends. Several processes, on several machines where the
file system locks for all of them, share a run: each takes what nobody else has.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attnshift.errors import RunError
from attnshift.files import writing

__all__ = ["Claims", "is_active"]

_TABLES = 1 << 40
"""The byte for the tables of the whole run, behind all micro-batches."""
_PRESENT, _PROCESSES = 1 << 41, 1 << 40
"""The first of the bytes of which each process holds one, and how many these are."""


class Claims:
    """Claims of this process on the run in ``folder``. Within a process one object per run: its locks are one."""

    def __init__(self, folder: Path):
        self._path = folder / "claims"
        self._own = _PRESENT + secrets.randbelow(_PROCESSES)
        with writing(self._path):
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)

    def __enter__(self) -> Claims:
        self._lock(self._own, fcntl.LOCK_EX)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    def acquire(self, number: int) -> bool:
        """Claim micro-batch ``number``; False where another process has it."""
        return self._lock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def release(self, number: int) -> None:
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, number)

    @contextmanager
    def tables(self) -> Iterator[None]:
        """Only one process at a time writes what belongs to the whole run; others wait here."""
        self._lock(_TABLES, fcntl.LOCK_EX)
        try:
            yield
        finally:
            self.release(_TABLES)

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Whether no other process works on the run; where that is so, none begins to as long as this lasts."""
        alone = self._lock(_PRESENT, fcntl.LOCK_EX | fcntl.LOCK_NB, _PROCESSES)
        try:
            yield alone
        finally:
            if alone:
                fcntl.lockf(self._file, fcntl.LOCK_UN, _PROCESSES, _PRESENT)
                self._lock(self._own, fcntl.LOCK_EX)

    def _lock(self, start: int, how: int, length: int = 1) -> bool:
        return _locked(self._path, self._file, start, how, length)


def is_active(folder: Path) -> bool:
    """Whether another process works on the run in ``folder``, of which nothing is changed."""
    path = folder / "claims"
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return not _locked(path, file, _PRESENT, fcntl.LOCK_SH | fcntl.LOCK_NB, _PROCESSES)
    finally:
        os.close(file)


def _locked(path: Path, file: int, start: int, how: int, length: int) -> bool:
    """Lock ``length`` bytes; False where they are another's and ``how`` does not wait."""
    try:
        fcntl.lockf(file, how, length, start)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return False
        raise RunError(f"{path} cannot be locked ({error.strerror}); use a file system with locks") from None
    return True
