"""Work in processes of their own that start at once, because what is loaded here is loaded there."""

from __future__ import annotations

import os
import signal
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

import pytest

__all__ = ["Child", "fork", "killed_by_itself"]

_PATIENCE = 60.0
"""Seconds after which a child hangs and its test fails."""


@dataclass(frozen=True)
class Child:
    number: int

    def kill(self) -> None:
        os.kill(self.number, signal.SIGKILL)

    def wait(self) -> int:
        """Its exit status; a negative one is the signal that ended it."""
        last = time.monotonic() + _PATIENCE
        while True:
            number, status = os.waitpid(self.number, os.WNOHANG)
            if number:
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() > last:
                self.kill()
                os.waitpid(self.number, 0)
                raise AssertionError(f"a child hung for {_PATIENCE:.0f} s")
            time.sleep(0.002)


def fork(work: Callable[[], object]) -> Child:
    """``work`` in a child. It ends with 0, with the status of a ``SystemExit``, or with 1 and a traceback."""
    if not hasattr(os, "fork"):
        pytest.skip("this system does not fork")
    number = os.fork()
    return Child(number) if number else _end(work)


def killed_by_itself() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("nobody outlives SIGKILL")


def _end(work: Callable[[], object]) -> NoReturn:
    status = 1
    try:
        work()
        status = 0
    except SystemExit as end:
        status = int(end.code or 0)
    except BaseException:  # noqa: BLE001  whatever it is, the child must not go on as the test
        traceback.print_exc()
    finally:
        # Without the clean-up that is the parent's.
        os._exit(status)
