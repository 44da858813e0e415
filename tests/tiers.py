"""Which cases of a test belong to the fast tier."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

__all__ = ["fast_first"]


def fast_first(cases: Iterable[Any], count: int = 1) -> list[Any]:
    """Values for ``parametrize``: the first ``count`` cases as they are, the others marked heavy.

    A tuple gives one value to each argument of the test.
    """
    values: list[Any] = []
    for at, case in enumerate(cases):
        arguments = case if isinstance(case, tuple) else (case,)
        values.append(pytest.param(*arguments, marks=[] if at < count else [pytest.mark.heavy]))
    return values
