"""Scenes of the lab's test split as images: each is rendered once in a session, and handed out as a copy."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

import torch

from attnshift.lab.render import Rendering, render_scenes
from attnshift.lab.scenes import scene

__all__ = ["rendered"]


def rendered(indices: Iterable[int]) -> Rendering:
    """Images [n,3,64,64] and masks [n,1,64,64] of the test scenes with these indices, of seed 0."""
    single = [_once(index) for index in indices]
    return Rendering(torch.cat([each.images for each in single]), torch.cat([each.masks for each in single]))


@cache
def _once(index: int) -> Rendering:
    return render_scenes([scene(0, "test", index)])
