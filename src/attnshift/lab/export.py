"""Export of lab images to a folder: PNG files, masks of objects, and labels.csv with captions."""

from __future__ import annotations

import csv
from pathlib import Path

from attnshift.data.images import write_png
from attnshift.errors import UserError
from attnshift.lab.render import render_scenes
from attnshift.lab.scenes import SPLITS, scene

__all__ = ["export_images"]


def export_images(folder: Path, seed: int, split: str, count: int) -> Path:
    """Write the first ``count`` images of ``split`` and return the path of labels.csv.

    Existing images are kept. Raises ``UserError`` for an unknown ``split`` or a ``count`` below 1.
    """
    if split not in SPLITS:
        raise UserError(f"unknown split '{split}'; the splits are {', '.join(SPLITS)}")
    if count < 1:
        raise UserError(f"cannot render {count} images; ask for at least 1")
    (folder / "masks").mkdir(parents=True, exist_ok=True)
    rows = []
    for index in range(count):
        shown = scene(seed, split, index)
        name = f"{split}-{seed}-{index:05d}-{shown.class_name}.png"
        if not (folder / name).exists() or not (folder / "masks" / name).exists():
            rendering = render_scenes([shown])
            write_png(folder / "masks" / name, rendering.masks[0].expand(3, -1, -1), {})
            write_png(folder / name, rendering.images[0], {"Description": shown.captions[0]})
        rows.append([name, shown.label, shown.class_name, shown.captions[0]])
    labels = folder / "labels.csv"
    with labels.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["file", "label", "class_name", "caption"])
        writer.writerows(rows)
    return labels
