"""What every entry of ``classifiers.SOURCES`` must do, by a classifier of each that needs no download.

``huggingface`` and ``zeroshot`` are held to the same in their own tests, on the small models that are made there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from attnshift.classifiers import SOURCES
from attnshift.registry import look_up
from attnshift.testing import check_source
from later import later

timm = later("timm")
models = later("torchvision.models")

ELSEWHERE = {"huggingface", "zeroshot"}
NAMES = {
    "lab": "resnet",
    "random": "test_resnet",
    "timm": "test_resnet",
    "torchvision": "squeezenet1_1",
    "checkpoint": "test_resnet@{folder}/mine.safetensors",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Weights of a test_resnet; pretrained ones are those that a network is made with."""
    create = timm.create_model

    def made(name: str, pretrained: bool = False, **options: Any) -> torch.nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return create(name, **options)

    save_file(made("test_resnet").state_dict(), tmp_path / "mine.safetensors")
    monkeypatch.setattr(timm, "create_model", made)
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *_, **__: None)
    state = models.squeezenet1_1().state_dict()
    monkeypatch.setattr(models.WeightsEnum, "get_state_dict", lambda *_, **__: state)
    return tmp_path


@pytest.mark.parametrize("source", [name for name in SOURCES if name not in ELSEWHERE])
def test_contract(source: str, folder: Path) -> None:
    check_source(look_up(SOURCES, source), NAMES[source].format(folder=folder))
