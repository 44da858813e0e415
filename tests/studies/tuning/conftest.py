"""Settings of the smallest study, and attacks that take no time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor

from attnshift.studies.tuning import TuningSettings, bench
from small_runs import SHORT_PATH
from small_studies import SEARCH, SURROGATE, TUNING, Make

if TYPE_CHECKING:
    from attnshift.attack.method import Method
    from attnshift.recipes.schema import Recipe


@pytest.fixture
def make(photos: Path, pipeline_folder: Path, tmp_path: Path) -> Make:
    """Settings of a small study of preset ``quick`` on three photos; without Optuna the test is skipped."""
    pytest.importorskip("optuna")

    def settings(**others: Any) -> TuningSettings:
        usual: dict[str, Any] = {
            "preset": "quick",
            "images": photos / "images",
            "labels": photos / "labels.csv",
            "pipeline": str(pipeline_folder),
            "surrogates": (SURROGATE,),
            "tuning": (TUNING,),
            "search": SEARCH,
            "out": tmp_path / "study",
            "changes": ("optimiser.iterations=2", "finish.keep=last", SHORT_PATH),
            "trials": 2,
            "batch": 2,
        }
        return TuningSettings(**(usual | others))

    return settings


@pytest.fixture
def instant(monkeypatch: pytest.MonkeyPatch) -> list[Recipe]:
    """Attacks that take no time: noise by the learning rate, weaker with the margin loss. Lists their recipes."""
    seen: list[Recipe] = []

    def attack(shared: Any, method: Method) -> Tensor:
        seen.append(method.recipe)
        strength = method.recipe.optimiser.learning_rate * (0.5 if method.recipe.classification.loss == "margin" else 1)
        noise = torch.randn(shared.clean.shape, generator=torch.Generator().manual_seed(0))
        return ((shared.clean + strength * noise).clamp(0, 1) * 255).round() / 255

    monkeypatch.setattr(bench, "_attack", attack)
    return seen
