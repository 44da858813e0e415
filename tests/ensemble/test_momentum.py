"""Momentum of the fused direction, by hand."""

from __future__ import annotations

import pytest
import torch

from attnshift.batching import select_rows
from attnshift.ensemble.momentum import Momentum


def test_nothing_changes_unless_asked() -> None:
    direction = torch.tensor([[3.0, 4.0]])
    followed, after = Momentum().step(direction)
    again, _ = after.step(-direction)
    assert torch.equal(followed, direction)
    assert torch.equal(again, -direction)


def test_past_directions_fade() -> None:
    first, second = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    followed, state = Momentum(decay=0.9).step(first)
    assert torch.equal(followed, first)
    followed, state = state.step(second)
    assert followed[0].tolist() == pytest.approx([0.9, 1.0])
    followed, _ = state.step(second)
    assert followed[0].tolist() == pytest.approx([0.81, 1.9])


def test_limit_is_each_image_s_own_and_what_is_remembered_is_limited() -> None:
    direction = torch.tensor([[[3.0], [4.0]], [[0.3], [0.4]], [[0.0], [0.0]]])
    followed, state = Momentum(decay=0.5, limit=1.0).step(direction)
    torch.testing.assert_close(followed, torch.tensor([[[0.6], [0.8]], [[0.3], [0.4]], [[0.0], [0.0]]]))
    followed, _ = state.step(torch.zeros_like(direction))
    torch.testing.assert_close(followed[0], torch.tensor([[0.3], [0.4]]))


def test_rows_take_their_past_along() -> None:
    _, state = Momentum(decay=0.5).step(torch.tensor([[1.0], [2.0], [4.0]]))
    followed, _ = select_rows(state, torch.tensor([2, 0])).step(torch.zeros(2, 1))
    assert followed.flatten().tolist() == [2.0, 0.5]
    assert select_rows(Momentum(), torch.tensor([0])).past is None
