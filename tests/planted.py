"""Code that others hide where data is expected: it leaves a marker when it runs."""

from __future__ import annotations

import io
import json
import pickle
import struct
from pathlib import Path
from typing import Any

import torch


class Planted:
    """Unpickled, it makes the file ``marker``."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def plant_pickle(path: Path, marker: Path, archive: bool = False) -> None:
    """A pickle at ``path``, or the ``archive`` that torch.save makes, that has been seen to work."""
    if archive:
        torch.save(Planted(marker), path)
        torch.load(io.BytesIO(path.read_bytes()), weights_only=False)
    else:
        # The protocol of torch.save; of another one torch warns.
        path.write_bytes(pickle.dumps(Planted(marker), protocol=2))
        pickle.loads(path.read_bytes())
    assert marker.exists()
    marker.unlink()


def plant_module(path: Path, marker: Path) -> None:
    """A module at ``path`` with a class Evil that has been seen to work."""
    path.write_text(f"import pathlib\n\npathlib.Path({str(marker)!r}).touch()\n\n\nclass Evil:\n    pass\n")
    exec(path.read_text(), {})
    assert marker.exists()
    marker.unlink()


def declare_giant(path: Path) -> None:
    """A safetensors file that says it holds ten thousand million numbers, and holds none."""
    tensor = {"dtype": "F32", "shape": [100_000, 100_000], "data_offsets": [0, 4 * 10**10]}
    header = json.dumps({"fc.weight": tensor}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header)


def edit_json(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
