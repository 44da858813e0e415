"""Side-by-side timing: what is compared runs in turn in one process, so that a busy minute hits all of it alike."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

__all__ = ["machine", "median_ratio", "take_turns"]


def take_turns(work: Mapping[str, Callable[[], object]], rounds: int, warm_up: int = 1) -> dict[str, list[float]]:
    """Seconds of each piece of work in each round, A B C A B C …, after ``warm_up`` rounds that do not count."""
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for number in range(warm_up + rounds):
        for name, piece in work.items():
            begun = time.perf_counter()
            piece()
            if number >= warm_up:
                seconds[name].append(time.perf_counter() - begun)
    return seconds


def median_ratio(seconds: Mapping[str, list[float]], name: str, reference: str) -> float:
    """Median over the rounds of how many times longer ``name`` took than ``reference`` in the same round."""
    return statistics.median(a / b for a, b in zip(seconds[name], seconds[reference], strict=True))


def machine() -> dict[str, Any]:
    """What a figure depends on beside the code."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
