"""What every reconstruction of ``diffusion.RECONSTRUCTIONS`` must do."""

from __future__ import annotations

from typing import Any

import pytest

from attnshift.diffusion import RECONSTRUCTIONS
from attnshift.registry import build
from attnshift.testing import check_reconstruction

SHORT: dict[str, dict[str, Any]] = {"null_text": {"updates": 1, "updates_per_step": 0}}
TOLERANCES = {"null_text": 1e-2}
"""Its optimiser amplifies rounding."""


@pytest.mark.parametrize("name", RECONSTRUCTIONS)
def test_contract(name: str) -> None:
    check_reconstruction(build(RECONSTRUCTIONS, name, SHORT.get(name, {})), TOLERANCES.get(name, 1e-3))
