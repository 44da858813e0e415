"""Which cases of a test belong to the fast tier."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest

__all__ = ["fast_first", "fast_where"]


def fast_first(cases: Iterable[Any], count: int = 1) -> list[Any]:
    """Values for ``parametrize``: the first ``count`` cases as they are, the others marked heavy.

    A tuple gives one value to each argument of the test.
    """
    return [_valued(case, at < count) for at, case in enumerate(cases)]


def fast_where(belongs: Callable[[Any], bool], cases: Iterable[Any]) -> list[Any]:
    """Values for ``parametrize``: the cases that ``belongs`` is true of as they are, the others marked heavy."""
    return [_valued(case, belongs(case)) for case in cases]


def _valued(case: Any, fast: bool) -> Any:
    arguments = case if isinstance(case, tuple) else (case,)
    return pytest.param(*arguments, marks=[] if fast else [pytest.mark.heavy])
