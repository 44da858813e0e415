"""What an attack is after, as a record."""

from __future__ import annotations

import pytest
import torch

from attnshift.batching import select_rows
from attnshift.types import Goals


def test_every_image_has_a_target_or_none_has() -> None:
    goals = Goals.of([0, 3], [2, 0])
    assert goals.targets is not None
    assert (goals.labels.tolist(), goals.targets.tolist(), goals.interference) == ([0, 3], [2, 0], None)
    assert Goals.of([0, 3], [None, None]).targets is None
    with pytest.raises(ValueError, match="some images have a target and others have none"):
        Goals.of([0, 3], [2, None])


def test_a_third_class_is_success_only_without_a_target() -> None:
    """Two models on three images of class 1: the true class, the target and a third one."""
    predicted = torch.tensor([[1, 2, 3], [3, 1, 2]])
    assert Goals.of([1] * 3, [None] * 3).achieved(predicted).tolist() == [[False, True, True], [True, False, True]]
    assert Goals.of([1] * 3, [2] * 3).achieved(predicted).tolist() == [[False, True, False], [False, False, True]]


def test_rows_cut_targets_too() -> None:
    part = select_rows(Goals.of([0, 3, 5], [2, 0, 1]), torch.tensor([2, 0]))
    assert part.targets is not None
    assert (part.labels.tolist(), part.targets.tolist()) == ([5, 0], [1, 2])
