"""What every loss of ``losses.CLASSIFICATION`` must do."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from attnshift.losses import CLASSIFICATION
from attnshift.registry import build
from attnshift.testing.criteria import CRITERION_CHECKS

if TYPE_CHECKING:
    from attnshift.ensemble.surrogates import Criterion

OPTIONS: dict[str, list[dict[str, Any]]] = {
    "margin": [{}, {"kappa": 5.0}, {"scale": "dlr"}, {"scale": "dlr", "kappa": 1.0}],
    "distribution": [
        {"distance": distance, "goal": goal} for distance in ("js", "ce") for goal in ("uniform", "peaked")
    ]
    + [{"goal": "uniform", "spare_true": True}],
}
"""Options beyond the defaults to hold a loss to."""

CASES = [
    pytest.param(name, options, id=f"{name}{options}") for name in CLASSIFICATION for options in OPTIONS.get(name, [{}])
]


@pytest.mark.parametrize(("name", "options"), CASES)
@pytest.mark.parametrize("check", CRITERION_CHECKS, ids=lambda check: check.__name__)
def test_contract(check: Callable[[Criterion], None], name: str, options: dict[str, Any]) -> None:
    check(build(CLASSIFICATION, name, options))
