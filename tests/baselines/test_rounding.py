"""Attacked images in 8 bits."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from attnshift.baselines.rounding import dithered
from attnshift.types import RandomKey


def grey(*values: float) -> Tensor:
    return torch.tensor(values).view(-1, 1, 1, 1).expand(-1, 3, 16, 16).clone()


def test_dithering_keeps_the_mean_and_whole_levels() -> None:
    images, key = grey(100.3 / 255, 7 / 255), RandomKey(0, ("a", "b"), 0)
    levels = dithered(images, key) * 255
    assert set(levels[0].round().flatten().tolist()) == {100, 101}
    assert levels[0].mean().item() == pytest.approx(100.3, abs=0.05)
    assert torch.equal(levels[1].round(), torch.full_like(levels[1], 7))
    torch.testing.assert_close(dithered(images[1:], RandomKey(0, ("b",), 0)), levels[1:] / 255)
