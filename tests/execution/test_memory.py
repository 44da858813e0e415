"""Memory that a process frees: kept by the command line and by workers, and by nobody who does not ask."""

from __future__ import annotations

import ctypes
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from attnshift.cli import main
from attnshift.errors import UserError
from attnshift.execution.memory import keep_freed_memory

VARIABLE = "ATTNSHIFT_KEEP_MEMORY"
on_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc gives memory back at once")


@pytest.fixture(autouse=True)
def _no_tuning(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (VARIABLE, "GLIBC_TUNABLES", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_"):
        monkeypatch.delenv(name, raising=False)


@on_glibc
def test_the_allocator_takes_it() -> None:
    assert keep_freed_memory()


@pytest.mark.parametrize(
    ("name", "value"),
    [(VARIABLE, "0"), ("MALLOC_TRIM_THRESHOLD_", "100"), ("GLIBC_TUNABLES", "glibc.malloc.arena_max=1")],
)
def test_it_is_off_where_it_is_not_wanted_or_tuned_already(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: pytest.fail("the allocator is asked"))
    monkeypatch.setenv(name, value)
    assert not keep_freed_memory()


def test_a_system_without_it_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert not keep_freed_memory()


def test_a_value_that_is_none_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv(VARIABLE, "maybe")
    with pytest.raises(UserError, match=rf"the variable {VARIABLE} is 'maybe'; it must be 0 or 1"):
        keep_freed_memory()
    monkeypatch.setattr(sys, "argv", ["attnshift", "--version"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    assert capsys.readouterr().err == f"attnshift: the variable {VARIABLE} is 'maybe'; it must be 0 or 1\n"


PROGRAM = """
import sys
from attnshift.execution.memory import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
block = bytearray(50_000_000)
del block
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmRSS:")))
"""


@on_glibc
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not say how much is in use")
def test_what_is_freed_stays_with_a_process_that_asks_for_it() -> None:
    kept, given_back = (
        int(subprocess.run([sys.executable, "-c", PROGRAM, kind], capture_output=True, text=True, check=True).stdout)
        for kind in ("kept", "given back")
    )
    assert kept - given_back > 40_000, "kilobytes"
