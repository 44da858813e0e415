"""The smallest study: preset ``quick`` cut to two iterations, two keys searched, three photos."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from attnshift.studies.tuning import Choices, Range, Search, Trial, Tuned, TuningSettings, read_search
from small_runs import SURROGATE as TUNING

__all__ = [
    "LOSS",
    "RATE",
    "SEARCH",
    "SURROGATE",
    "TUNING",
    "Make",
    "interrupted_after",
    "searched",
    "silent",
    "without_seconds",
]

# The photos are labelled by what small_runs' surrogate sees: here it decides, and another one is attacked.
SURROGATE = "random:test_convnext"
RATE, LOSS = "optimiser.learning_rate", "classification.loss"
SEARCH: Search = {LOSS: Choices(choices=("margin", "cross_entropy")), RATE: Range(low=0.001, high=0.5, log=True)}
Make = Callable[..., TuningSettings]
"""Settings of the smallest study, but for what is named."""


def silent(number: int, total: int, score: float | None, best: float | None) -> None:
    """A progress that is not looked at."""


def searched(folder: Path, text: str) -> Search:
    (folder / "search.toml").write_text(text, encoding="utf-8")
    return read_search(folder / "search.toml")


def without_seconds(result: Tuned) -> list[Trial]:
    return [replace(trial, seconds=0.0) for trial in result.trials]


def interrupted_after(count: int, function: Callable[..., Any]) -> Callable[..., Any]:
    """``function``, until Ctrl-C is pressed in the call behind the first ``count``."""
    calls = itertools.count()

    def counted(*arguments: Any, **options: Any) -> Any:
        if next(calls) == count:
            raise KeyboardInterrupt
        return function(*arguments, **options)

    return counted
