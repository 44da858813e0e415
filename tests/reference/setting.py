"""The smallest setting in which every loss of the baseline says something: two images, an untrained pipeline and
classifier."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import nn

from attnshift.attack.prepare import Task
from attnshift.classifiers import load_classifier
from pipelines import tiny_pipeline

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

    from attnshift.classifiers.classifier import Classifier

__all__ = ["sharp_pipeline", "smooth", "two_tasks", "whole_image_classifier"]

NAMES, LABELS = ("snowman", "mug"), (3, 700)


def sharp_pipeline(prediction_type: str, side: int, dtype: torch.dtype) -> StableDiffusionPipeline:
    """The tiny pipeline with random attention made three times sharper, so that words and positions matter."""
    pipeline = tiny_pipeline(prediction_type, size=side)
    with torch.no_grad():
        for name, layer in pipeline.unet.named_modules():
            if name.endswith((".to_q", ".to_k", "attn2.to_v", "attn2.to_out.0")):
                layer.weight.mul_(3)
    for module in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        module.eval().requires_grad_(False).to(dtype)
    scheduler = pipeline.scheduler
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.to(dtype)
    scheduler.final_alpha_cumprod = scheduler.final_alpha_cumprod.to(dtype)
    return pipeline


def whole_image_classifier(dtype: torch.dtype) -> Classifier:
    """The baseline shows classifiers the whole image, and this one at the size of its architecture."""
    classifier = load_classifier("random:test_resnet")
    classifier.network.to(dtype)
    return replace(classifier, preprocessing=replace(classifier.preprocessing, size=(160, 160), resized=None))


def smooth(network: nn.Module) -> None:
    """Put a smooth function in the place of every ReLU."""
    for name, layer in list(network.named_modules()):
        if isinstance(layer, nn.ReLU):
            network.set_submodule(name, nn.SiLU())


def two_tasks(side: int, dtype: torch.dtype) -> list[Task]:
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(len(NAMES), 3, 14, 14, generator=generator).to(dtype)
    images = nn.functional.interpolate(coarse, (side, side), mode="bilinear")
    each = zip(images, LABELS, NAMES, strict=True)
    return [Task(f"image-{name}", image, label, name) for image, label, name in each]
