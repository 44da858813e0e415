"""Visibility of the objects of a run, where masks say where they are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from attnshift.data.folders import mask_of
from attnshift.data.images import read_mask
from attnshift.errors import LabelError
from attnshift.judging.saved import by_size, parts_of_one_size, read_arm
from attnshift.metrics import VISIBILITY
from attnshift.results.rows import ResultRow, VisibilityRow
from attnshift.results.store import Store
from attnshift.sizes import size_of

__all__ = ["measure_visibility"]


@torch.no_grad()
def measure_visibility(store: Store, masks: Path, batch: int = 32) -> list[VisibilityRow]:
    """Rows of the table ``visibility``: for each image and each arm but the clean one,
    the entries of ``VISIBILITY``.

    ``masks`` is a folder that holds a mask under the name of each image; a mask is 1 where its
    object is. Nothing is written. A value is nan where a mask is empty, where it leaves no
    surroundings, and where the object does not stand out from them. A ``LabelError`` where the
    folder does not exist.
    """
    spec, rows = store.spec(), by_size(store)
    if not masks.is_dir():
        raise LabelError(f"`masks` is {masks}, which is no folder; give one with a mask under each image's name")
    root = masks.resolve()
    paths = {row.id: mask_of(root, row.file, f"`masks` {masks}") for row in rows}
    seen = []
    for part in parts_of_one_size(store, rows, batch):
        clean = read_arm(store, [row.id for row in part], "clean")
        size, whole = size_of(clean), spec.common_size is None
        covered = torch.stack([read_mask(paths[row.id], size, whole) for row in part])
        seen += _measured(store, part, [arm for arm in spec.arms if arm != "clean"], clean, covered)
    return seen


def _measured(
    store: Store, rows: Sequence[ResultRow], arms: Sequence[str], clean: Tensor, masks: Tensor
) -> list[VisibilityRow]:
    ids = [row.id for row in rows]
    found = []
    for arm in arms:
        images = read_arm(store, ids, arm)
        values = {name: entry.load()(clean, images, masks).tolist() for name, entry in VISIBILITY.items()}
        found += [
            VisibilityRow(id, arm, {name: values[name][place] for name in values}) for place, id in enumerate(ids)
        ]
    return found
