"""Peak memory of a piece of work.

On a CPU the kernel counts it for this process (proc(5): VmRSS is now, VmHWM the highest since 5 was
written to clear_refs). ``ENVIRONMENT`` is set from the start of the process, so that freed memory
goes back at once.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path

import torch

__all__ = ["ENVIRONMENT", "above", "held", "highest"]

# glibc maps every block above this size by itself: none hides in a heap, and none keeps a heap from
# shrinking.
ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_MMAP_MAX_": "1000000"}


def held(device: str) -> int:
    """Return the bytes in use now, after everything that can be freed was."""
    gc.collect()
    if device == "cuda":
        return torch.cuda.memory_allocated()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    return _status("VmRSS")


def above(before: int, work: Callable[[], object], device: str) -> int:
    """Return the most bytes above ``before`` that are in use while ``work`` runs."""
    held(device)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        work()
        return torch.cuda.max_memory_allocated() - before
    return highest(work) - before


def highest(work: Callable[[], object]) -> int:
    """Return the most bytes that this process has in use while ``work`` runs."""
    Path("/proc/self/clear_refs").write_text("5")
    work()
    return _status("VmHWM")


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
