"""Pickles that libraries publish make nothing but tensors, whoever opens them."""

from __future__ import annotations

import os
from pathlib import Path
from pickle import UnpicklingError

import pytest
import torch

from attnshift.downloaded import only_weights, reading_weights
from attnshift.errors import UnavailableError
from planted import plant_pickle


@pytest.mark.parametrize("archive", [False, True], ids=["pickle", "archive"])
def test_code_is_not_run_where_a_library_would(tmp_path: Path, archive: bool) -> None:
    path, marker = tmp_path / "weights.pth", tmp_path / "marker"
    plant_pickle(path, marker, archive)
    with only_weights(), pytest.raises(UnpicklingError):
        torch.load(path, weights_only=False)
    with (
        pytest.raises(UnavailableError, match=r"weights\.pth cannot be used as weights of mine: "),
        reading_weights(path, "mine"),
    ):
        torch.load(path)
    assert not marker.exists()


@pytest.mark.parametrize("before", [None, "0"])
def test_the_environment_is_as_before(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, before: str | None) -> None:
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    monkeypatch.delenv(name, raising=False)
    if before is not None:
        monkeypatch.setenv(name, before)
    torch.save({"a": torch.ones(2)}, tmp_path / "weights.pth")
    with only_weights():
        assert torch.equal(torch.load(tmp_path / "weights.pth", weights_only=False)["a"], torch.ones(2))
    assert os.environ.get(name) == before
