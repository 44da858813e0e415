"""Files that are there whole or not at all, and one line about a disk that takes no more."""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attnshift.errors import RunError

__all__ = ["atomic_write", "publish", "temporary_name", "writing"]


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """What the system refuses inside is a ``RunError`` about ``path``."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        advice = "free some and run" if full else "make it writable and run"
        reason = os.strerror(error.errno) if error.errno else error
        raise RunError(f"cannot write to {path}: {reason}; {advice} the same command again") from None


def atomic_write(path: Path, content: bytes) -> None:
    """Write ``content`` so that ``path`` is there whole or not at all, also after a power cut."""
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
    """A name of its own beside ``path``: several processes may write the same file."""
    return path.with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex[:6]}.partial")


def publish(temporary: Path, path: Path) -> None:
    """Give the file ``temporary``, which is on the disk, its place."""
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
