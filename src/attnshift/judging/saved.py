"""Saved images of a run, read back to be judged and measured."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from attnshift.data.images import read_image
from attnshift.results.store import Store

__all__ = ["read_arm"]


def read_arm(store: Store, size: int, ids: Sequence[str], arm: str) -> Tensor:
    """Saved images of ``arm``, with these ``ids``: [images,3,size,size] in [0,1]."""
    return torch.stack([read_image(store.image_path(id, arm), size) for id in ids])
