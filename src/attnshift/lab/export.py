"""Export of lab images to a folder: PNG files, masks of objects, and labels.csv with captions."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from attnshift.data.images import write_png
from attnshift.errors import UserError
from attnshift.files import atomic_write
from attnshift.lab.render import render_scenes
from attnshift.lab.scenes import SPLITS, scene

__all__ = ["export_images"]


def export_images(folder: Path, seed: int, split: str, count: int) -> Path:
    """Write the first ``count`` images of ``split`` and return the path of labels.csv.

    Existing images are kept. Raises ``UserError`` for an unknown ``split``, a ``count`` below 1, or
    a ``folder`` whose labels.csv begins otherwise.
    """
    if split not in SPLITS:
        raise UserError(f"unknown split '{split}'; the splits are {', '.join(SPLITS)}")
    if count < 1:
        raise UserError(f"cannot render {count} images; ask for at least 1")
    scenes = {f"{split}-{seed}-{index:05d}": scene(seed, split, index) for index in range(count)}
    scenes = {f"{name}-{shown.class_name}.png": shown for name, shown in scenes.items()}
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(["file", "label", "class_name", "caption"])
    writer.writerows([name, shown.label, shown.class_name, shown.captions[0]] for name, shown in scenes.items())
    labels, content = folder / "labels.csv", table.getvalue().encode()
    _check_replaceable(labels, content)
    (folder / "masks").mkdir(parents=True, exist_ok=True)
    for name, shown in scenes.items():
        if not (folder / name).exists() or not (folder / "masks" / name).exists():
            rendering = render_scenes([shown])
            write_png(folder / "masks" / name, rendering.masks[0].expand(3, -1, -1), {})
            write_png(folder / name, rendering.images[0], {"Description": shown.captions[0]})
    atomic_write(labels, content)
    return labels


def _check_replaceable(labels: Path, content: bytes) -> None:
    """Refuse to replace a table that is neither the beginning of ``content`` nor begins with it."""
    before = labels.read_bytes() if labels.exists() else b""
    if not (before.startswith(content) or content.startswith(before)):
        raise UserError(f"{labels} holds other labels; choose another folder")
