"""Rendered splits of the tabletop world, saved in parts. An interrupted rendering can continue."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from attnshift.lab.render import render_scenes
from attnshift.lab.scenes import Scene, scene

__all__ = ["PART", "Split", "rendered"]

PART = 250
"""Number of images in one file."""


@dataclass(frozen=True)
class Split:
    """Images [n,3,64,64] and masks [n,1,64,64], both uint8, with their scenes."""

    images: Tensor
    masks: Tensor
    scenes: tuple[Scene, ...]

    @property
    def labels(self) -> Tensor:
        return torch.tensor([each.label for each in self.scenes])


def rendered(
    seed: int, split: str, count: int, cache: Path, workers: int = 1, report: Callable[[int, int], None] | None = None
) -> Split:
    """First ``count`` images of ``split``.

    ``workers`` processes render parts missing in ``cache``.
    """
    folder = cache / f"renders-{seed}-{split}"
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{start:06d}.safetensors" for start in range(0, count, PART)]
    missing = [(seed, split, index * PART, path) for index, path in enumerate(paths) if not path.exists()]
    done = len(paths) - len(missing)
    with ProcessPoolExecutor(max(workers, 1), mp_context=get_context("spawn")) as pool:
        for _ in pool.map(_render_part, missing):
            done += 1
            if report:
                report(min(done * PART, count), count)
    parts = [load_file(path) for path in paths]
    return Split(
        torch.cat([part["images"] for part in parts])[:count],
        torch.cat([part["masks"] for part in parts])[:count],
        tuple(scene(seed, split, index) for index in range(count)),
    )


def _render_part(part: tuple[int, str, int, Path]) -> None:
    torch.set_num_threads(1)
    seed, split, start, path = part
    shown = render_scenes([scene(seed, split, start + offset) for offset in range(PART)])
    temporary = path.with_suffix(".partial")
    save_file({"images": _bytes(shown.images), "masks": _bytes(shown.masks)}, temporary)
    temporary.replace(path)


def _bytes(values: Tensor) -> Tensor:
    return (values * 255).round().to(torch.uint8)
