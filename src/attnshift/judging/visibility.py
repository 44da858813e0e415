"""How visible the objects of a run still are, where masks say where they were."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attnshift.data.datasets import inside
from attnshift.data.images import read_mask
from attnshift.errors import LabelError
from attnshift.judging.saved import finished_rows, read_arm
from attnshift.metrics import VISIBILITY
from attnshift.results.store import Store

__all__ = ["measure_visibility"]


@torch.no_grad()
def measure_visibility(store: Store, masks: Path, batch: int = 32) -> list[dict[str, Any]]:
    """Rows of the table ``visibility``: for each image and each arm but the clean one, the entries of ``VISIBILITY``.

    ``masks`` holds a mask under the name of each image, which is 1 where its object is. Nothing is written. nan where
    a mask is empty, where it leaves no surroundings, and where the object does not stand out from them.
    """
    spec, rows = store.spec(), finished_rows(store)
    if not masks.is_dir():
        raise LabelError(f"--masks {masks}: no such folder of masks")
    root = masks.resolve()
    paths = {row["id"]: inside(root, row["file"], f"--masks {masks}") for row in rows}
    seen = []
    for part in (rows[start : start + batch] for start in range(0, len(rows), batch)):
        covered = torch.stack([read_mask(paths[row["id"]], spec.size) for row in part])
        seen += _measured(store, spec.size, part, [arm for arm in spec.arms if arm != "clean"], covered)
    return seen


def _measured(
    store: Store, size: int, rows: Sequence[Mapping[str, Any]], arms: Sequence[str], masks: Tensor
) -> list[dict[str, Any]]:
    ids = [row["id"] for row in rows]
    clean, found = read_arm(store, size, ids, "clean"), []
    for arm in arms:
        images = read_arm(store, size, ids, arm)
        values = {name: entry.load()(clean, images, masks).tolist() for name, entry in VISIBILITY.items()}
        found += [
            {"id": row["id"], "arm": arm} | {name: values[name][place] for name in values}
            for place, row in enumerate(rows)
        ]
    return found
