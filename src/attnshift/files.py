"""Files that are written whole or not at all, and one line about what the system refuses."""

from __future__ import annotations

import errno
import os
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attnshift.errors import RunError

__all__ = ["atomic_write", "publish", "reading", "temporary_name", "writing"]


_PATIENCE = 1.0 if sys.platform == "win32" else 0.0
"""Seconds to wait for a file that another process reads: Windows does not replace it meanwhile."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an error of the system in the block into a ``RunError`` about ``path``."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        advice = "free some and run" if full else "make it writable and run"
        reason = os.strerror(error.errno) if error.errno else error
        raise RunError(f"cannot write to {path}: {reason}; {advice} the same command again") from None


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn an error of the system in the block into a ``RunError`` about ``path``,
    or the file that it names."""
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else error
        raise RunError(f"cannot read {error.filename or path}: {reason}; make it readable and try again") from None


def atomic_write(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` whole or not at all, also if the power is cut."""
    temporary = temporary_name(path)
    with writing(path):
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            publish(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def temporary_name(path: Path) -> Path:
    """Return a name beside ``path`` that no other process uses: several may write the same file."""
    return path.with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex[:6]}.partial")


def publish(temporary: Path, path: Path) -> None:
    """Rename the file ``temporary``, whose content is on the disk, to ``path``."""
    last = time.monotonic() + _PATIENCE
    while True:
        try:
            temporary.replace(path)
            break
        except PermissionError:
            if time.monotonic() >= last:
                raise
            time.sleep(0.01)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Put the names in ``folder`` on the disk; Windows opens no folders,
    and its file system does so by itself."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    file = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
