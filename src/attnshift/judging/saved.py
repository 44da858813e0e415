"""What a run has saved, read back to be judged and measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from attnshift.data.images import read_image
from attnshift.errors import RunError
from attnshift.results.store import Store

__all__ = ["finished_rows", "read_arm"]


def finished_rows(store: Store) -> list[dict[str, Any]]:
    """The run's rows, one for each finished image; a ``RunError`` where there is none."""
    rows = store.table("results")
    if not rows:
        if store.table("failed"):
            raise RunError(f"all images of {store.folder} failed; attnshift status {store.folder} says why")
        raise RunError(f"{store.folder} has no finished images yet; run its attack command again to continue it")
    return rows


def read_arm(store: Store, size: int, ids: Sequence[str], arm: str) -> Tensor:
    """What an arm shows of the images ``ids``, [images,3,size,size] in [0,1], from the saved files."""
    return torch.stack([read_image(store.image_path(identity, arm), size) for identity in ids])
