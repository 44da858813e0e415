"""Side-by-side timing: variants run in turn in one process, so a busy minute affects all alike."""

from __future__ import annotations

import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch

__all__ = ["computing_time", "machine", "medians", "ratio_of_medians", "take_turns"]

Name = TypeVar("Name", bound=Hashable)


def computing_time() -> float:
    """Return the CPU seconds of this process where it computes on one thread, else those of the
    clock.

    Other work on the machine adds nothing to CPU seconds but what it takes of a shared core.
    """
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def take_turns(
    work: Mapping[Name, Callable[[], object]],
    rounds: int,
    warm_up: int = 1,
    now: Callable[[], float] = computing_time,
) -> dict[Name, list[float]]:
    """Return the seconds of each piece in each round, A B C A B C …, as ``now`` tells them.

    The first ``warm_up`` rounds do not count.
    """
    seconds: dict[Name, list[float]] = {name: [] for name in work}
    for number in range(warm_up + rounds):
        for name, piece in work.items():
            begun = now()
            piece()
            taken = now() - begun
            if number >= warm_up:
                seconds[name].append(taken)
            print(f"round {number - warm_up + 1} of {rounds}: {name} {taken:.3f} s", file=sys.stderr)
    return seconds


def ratio_of_medians(seconds: Mapping[Name, list[float]], name: Name, reference: Name) -> float:
    """Return the median time of ``name`` divided by that of ``reference``."""
    return statistics.median(seconds[name]) / statistics.median(seconds[reference])


def medians(seconds: Mapping[Name, list[float]]) -> dict[Name, float]:
    return {name: statistics.median(taken) for name, taken in seconds.items()}


def machine(device: str = "cpu") -> dict[str, Any]:
    """Return the facts that a figure depends on beside the code."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "seconds": "of CPU" if device == "cpu" and torch.get_num_threads() == 1 else "of the clock",
    }


def _processor() -> str:
    described = Path("/proc/cpuinfo")
    lines = described.read_text().splitlines() if described.exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor()
