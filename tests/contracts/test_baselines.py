"""What every attack of ``baselines.BASELINES`` must do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

from attnshift.baselines import BASELINES
from attnshift.errors import UnavailableError
from attnshift.registry import build
from attnshift.testing import check_baseline
from later import later

models = later("torchvision.models")

QUICK: dict[str, dict[str, Any]] = {
    "mef": {"neighbours": 2},
    "ssa": {"num_spectrum": 2},
    "bsr": {"num_scale": 2},
    "l2t": {"num_scale": 1},
}
"""Options that make an attack shorter; each takes two steps."""
STEPS: dict[str, dict[str, Any]] = {
    "advad": {"steps": 5, "lengths_tried": [2, 5]},
    "advad_x": {"steps": 5, "lengths_tried": [2, 5]},
    "alma_budget": {"steps": 2, "first_spent": 0.5},
    "ppgd": {"steps": 1, "solver_steps": 1, "bound": 2.0},
    "diffpgd": {"steps": 1, "depth": 0},
    "diffpgd_official": {"steps": 1, "depth": 0},
    "aca": {"steps": 1, "schedule_steps": 2, "guidance": 1.0},
    "aca_official": {"steps": 1, "schedule_steps": 2, "guidance": 1.0},
    "apa": {"steps": 1, "schedule_steps": 2, "guided_steps": 1, "memory_steps": 1},
    "apa_official": {"steps": 1, "schedule_steps": 2, "guided_steps": 1, "memory_steps": 1},
    "advdiff": {"rounds": 1, "schedule_steps": 2, "inverted_steps": 2},
    "advdiff_noise": {"rounds": 1, "schedule_steps": 2, "guided_share": 1.0},
    "natadiff_noise": {"schedule_steps": 2, "passes": 1, "views": 2},
    "natadiff": {"schedule_steps": 2, "inverted_steps": 2, "passes": 1, "views": 2},
    "advfm": {"steps": 1, "schedule_steps": 2},
    "autoattack": {"steps": 5, "attacks": ["apgd-ce"], "epsilon": 0.5},
}


SLOW = {
    *("autoattack", "adaea", "advad_x", "advdiff", "advdiff_noise", "aca_official"),
    *("advfm", "apa", "apa_official", "l2t", "natadiff", "natadiff_noise"),
}


@pytest.fixture(autouse=True)
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random weights where a network of features is looked for."""
    save_file(models.squeezenet1_1().state_dict(), tmp_path / "squeezenet1_1.safetensors")
    monkeypatch.setenv("ATTNSHIFT_WEIGHTS", str(tmp_path))


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.heavy] if name in SLOW else []) for name in BASELINES]
)
def test_contract(name: str) -> None:
    attack = build(BASELINES, name, QUICK.get(name, {}) | STEPS.get(name, {"steps": 2}))
    try:
        check_baseline(attack)
    except UnavailableError as error:
        pytest.skip(str(error))
