"""Contrast around a pixel: its value on patterns that are computed by hand."""

from __future__ import annotations

import pytest
import torch

from attnshift.metrics.contrast import local_contrast


def test_a_flat_image_has_none_and_a_chequered_one_half_of_its_range() -> None:
    chequered = (torch.arange(16)[:, None] + torch.arange(16)).remainder(2).expand(1, 3, 16, 16).double()
    assert local_contrast(torch.full((1, 3, 16, 16), 0.3)).max() < 1e-6
    # 24 of the 49 pixels of a window have one of both values.
    expected = (24 * 25) ** 0.5 / 49
    assert local_contrast(chequered).unique().tolist() == pytest.approx([expected], abs=1e-12)


def test_flat_ground_beside_an_edge_is_flat() -> None:
    edge = (torch.arange(20) < 10).expand(1, 3, 20, 20).double()
    found = local_contrast(edge)[0, 0, 10]
    assert found.shape == (20,)
    assert not found[:9].any()
    assert not found[11:].any()


def test_neither_channels_nor_batch_mates_mix() -> None:
    images = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(local_contrast(images)[1:], local_contrast(images[1:]))
    one = images.clone()
    one[:, 1:] = 0.5
    three = images[:, :1].expand(-1, 3, -1, -1)
    torch.testing.assert_close(local_contrast(three), 3**0.5 * local_contrast(one))
