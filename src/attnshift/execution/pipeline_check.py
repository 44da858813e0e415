"""Measure of the pipeline on some of the images to attack, before the attack starts."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

import torch

from attnshift.data.datasets import Item
from attnshift.diffusion.backbone import Backbone
from attnshift.diffusion.measures import PipelineMeasures, measure_pipeline
from attnshift.errors import ModelError
from attnshift.execution.agreement import readable
from attnshift.recipes.schema import BaselineRecipe, Recipe

__all__ = ["check_pipeline", "measure_on"]

_IMAGES = 4
"""Most images that are measured; each costs an encoding and a pass of the denoiser."""
_TRIED = 16
"""Most images that are decoded to find so many: whatever is wrong with an image is said where it is attacked."""


def measure_on(
    backbone: Backbone, items: Iterable[Item], size: int, recipe: Recipe | BaselineRecipe
) -> PipelineMeasures | None:
    """Measure ``backbone`` on the first of ``items`` that can be read, at ``size`` px.

    None if none can be read, and for an attack on pixels, which does not use the pipeline.
    """
    if isinstance(recipe, BaselineRecipe):
        return None
    images = [image for _, image in islice(readable(islice(items, _TRIED), size), _IMAGES)]
    return measure_pipeline(backbone, torch.stack(images), recipe.diffusion.schedule_steps) if images else None


def check_pipeline(measures: PipelineMeasures | None) -> tuple[str, ...]:
    """Return what is to be said of a pipeline, or raise ``ModelError`` if it is plainly wrong."""
    verdict = None if measures is None else measures.verdict
    if verdict is None or verdict.kind == "fine":
        return ()
    if verdict.kind == "refused":
        raise ModelError(f"the pipeline {verdict.line}")
    return (f"the pipeline {verdict.line}",)
