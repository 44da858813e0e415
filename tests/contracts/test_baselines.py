"""What every attack of ``baselines.BASELINES`` must do."""

from __future__ import annotations

from typing import Any

import pytest

from attnshift.baselines import BASELINES
from attnshift.errors import UnavailableError
from attnshift.registry import build
from attnshift.testing import check_baseline

QUICK: dict[str, dict[str, Any]] = {"ssa": {"num_spectrum": 2}, "bsr": {"num_scale": 2}}
"""Options that make an attack shorter; each takes two steps."""
STEPS: dict[str, dict[str, Any]] = {"autoattack": {"steps": 5, "attacks": ["apgd-ce"], "epsilon": 0.5}}


SLOW = {"autoattack", "adaea"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.heavy] if name in SLOW else []) for name in BASELINES]
)
def test_contract(name: str) -> None:
    attack = build(BASELINES, name, QUICK.get(name, {}) | STEPS.get(name, {"steps": 2}))
    try:
        check_baseline(attack)
    except UnavailableError as error:
        pytest.skip(str(error))
