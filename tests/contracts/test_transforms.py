"""What every transform of ``ensemble.TRANSFORMS`` must do."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from attnshift.ensemble import TRANSFORMS
from attnshift.registry import build
from attnshift.testing.transforms import TRANSFORM_CHECKS

if TYPE_CHECKING:
    from attnshift.ensemble.transforms import Transform


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("check", TRANSFORM_CHECKS, ids=lambda check: check.__name__)
def test_contract(check: Callable[[Transform], None], name: str) -> None:
    check(build(TRANSFORMS, name, {}))
