"""Log file of strict JSON, one event a line. Lines are only appended."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from attnshift.errors import UserError
from attnshift.telemetry.events import EVENTS, Event

__all__ = ["JsonLines"]

_NAMES = {kind: name for name, kind in EVENTS.items()}


class JsonLines:
    """Log of events in a file, as lines ``{"at": UTC in ISO 8601, "event": name, …}``.

    ``to`` is the path of the file, or a stream that is open, such as standard output, and stays so.

    Each line is one write. A crash leaves at most one incomplete line; the next process to open the
    file ends that line first. JSON has no values for numbers that are not finite; they are written
    as the strings ``nan``, ``inf`` and ``-inf``. Raises ``UserError`` if the file cannot be
    written.
    """

    iterations = True

    def __init__(self, to: Path | TextIO):
        self._owned = isinstance(to, Path)
        if not isinstance(to, Path):
            self._file: BinaryIO = to.buffer
            return
        try:
            to.parent.mkdir(parents=True, exist_ok=True)
            self._file = to.open("ab", buffering=0)
            if _is_cut(to):
                self._write(b"\n")
        except OSError as error:
            raise UserError(f"`log` {to} cannot be written: {error.strerror or error}; choose another file") from None

    def __call__(self, event: Event) -> None:
        line = {"at": datetime.now(UTC).isoformat(), "event": _NAMES[type(event)]}
        line |= {each.name: _plain(getattr(event, each.name)) for each in fields(event)}
        self._write(json.dumps(line, allow_nan=False).encode() + b"\n")

    def close(self) -> None:
        if self._owned:
            self._file.close()

    def _write(self, content: bytes) -> None:
        if self._file.write(content) != len(content):
            raise OSError(f"{self._file.name} took only part of a line; is the disk full?")
        self._file.flush()


def _is_cut(path: Path) -> bool:
    if not path.is_file() or not path.stat().st_size:
        return False
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() != b"\n"


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, tuple) else value
