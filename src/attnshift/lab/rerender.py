"""Re-render test: the class whose object, rendered into the scene, is nearest to an image."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor, nn

from attnshift.classifiers.classifier import Classifier, Preprocessing
from attnshift.errors import ModelError
from attnshift.lab.render import SIZE, render_classes
from attnshift.lab.scenes import CLASSES, SPLITS, scene

__all__ = ["NOTHING_THERE", "Rerender", "load_rerender"]

NOTHING_THERE = "nothing"
"""Name of the class of a scene without an object."""

_FILE = re.compile(rf"(?:.*/)?(?P<split>{'|'.join(SPLITS)})-(?P<seed>\d+)-(?P<index>\d+)-.*")
"""Name of a file that ``export_images`` writes."""


@dataclass(frozen=True, eq=False)
class Rerender(Classifier):
    """Nearest of the renders of an image's scene, with an object of each class and without one.

    All parameters of the scene are known from the name of its file; only the class is fitted.
    Logits are minus the distances to the renders: the root mean square over all pixels, in levels
    of 255. The last class is a scene without an object. No network takes part, so nothing can be
    fooled; an image is near a class when its pixels are.
    """

    files: tuple[str, ...] = ()

    def of_files(self, files: Sequence[str]) -> Rerender:
        return replace(self, files=tuple(files))

    def __call__(self, images: Tensor) -> Tensor:
        if len(self.files) != len(images):
            return self.network(images)
        shown = self.preprocessing(images)
        renders = torch.stack([_renders(file) for file in self.files]).to(shown) / 255
        logits = -255 * (shown[:, None] - renders).square().mean((2, 3, 4)).sqrt()
        return logits if self.order is None else self.order(logits)


def load_rerender() -> Rerender:
    """The re-render test as a classifier of the lab."""
    names = (*CLASSES, NOTHING_THERE)
    plain = Preprocessing((SIZE, SIZE), "bilinear", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    return Rerender("lab:rerender", _NoScene(), plain, len(names), names)


class _NoScene(nn.Module):
    """Answer to images whose scenes are not known."""

    def forward(self, images: Tensor) -> Tensor:
        raise ModelError("lab:rerender needs the scenes of the images; let it be the reference of an evaluation")


@lru_cache(maxsize=1024)
def _renders(file: str) -> Tensor:
    """Renders [classes+1,3,size,size] of the scene of ``file``, as 8-bit values."""
    found = _FILE.fullmatch(file)
    if found is None:
        raise ModelError(f"lab:rerender knows the scenes of 'attnshift lab render' alone, and {file} is none of them")
    shown = render_classes(scene(int(found["seed"]), found["split"], int(found["index"])))
    return (shown * 255).round().to(torch.uint8)
