"""Classifiers of the lab: small timm networks of different families and preprocessing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import timm
import torch
from safetensors.torch import save_file
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, IMAGENET_INCEPTION_MEAN, IMAGENET_INCEPTION_STD
from torch import Tensor, nn

from attnshift.classifiers.classifier import Interpolation, Preprocessing
from attnshift.lab.scenes import CLASSES
from attnshift.lab.splits import Split
from attnshift.lab.training import Report, Stage, TrainingBatch, optimise

__all__ = ["RECIPES", "ClassifierRecipe", "train_classifier"]

_IMAGENET = (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
_HALF = (IMAGENET_INCEPTION_MEAN, IMAGENET_INCEPTION_STD)


@dataclass(frozen=True)
class ClassifierRecipe:
    """Architecture and training of one classifier.

    ``radius`` in [0,1] is the L-infinity radius of adversarial training; 0 trains on clean images.
    """

    role: Literal["surrogate", "tuning", "judge"]
    architecture: str
    size: int
    statistics: tuple[tuple[float, float, float], tuple[float, float, float]]
    interpolation: Interpolation = "bicubic"
    arguments: Mapping[str, Any] = field(default_factory=dict)
    steps: int = 2000
    learning_rate: float = 1e-3
    radius: float = 0.0

    def network(self) -> nn.Module:
        return timm.create_model(self.architecture, num_classes=len(CLASSES), **self.arguments)

    @property
    def preprocessing(self) -> Preprocessing:
        return Preprocessing((self.size, self.size), self.interpolation, *self.statistics)


RECIPES: dict[str, ClassifierRecipe] = {
    "resnet": ClassifierRecipe("surrogate", "test_resnet", 64, _IMAGENET, "bilinear"),
    "efficientnet": ClassifierRecipe("surrogate", "test_efficientnet", 64, _IMAGENET, learning_rate=3e-3),
    "mobilevit": ClassifierRecipe("surrogate", "mobilevit_xxs", 64, _HALF, learning_rate=2e-3),
    "mobilenet": ClassifierRecipe("tuning", "mobilenetv3_small_050", 64, _IMAGENET, steps=4000, learning_rate=3e-3),
    "coatnet": ClassifierRecipe("judge", "test_coatnet", 64, _HALF, arguments={"img_size": 64}, learning_rate=2e-3),
    "byobnet": ClassifierRecipe("judge", "test_byobnet", 56, _HALF, "bilinear", learning_rate=2e-3),
    "nfnet": ClassifierRecipe("judge", "test_nfnet", 72, _IMAGENET, learning_rate=1e-3),
    "robust": ClassifierRecipe("judge", "test_resnet", 64, _IMAGENET, "bilinear", learning_rate=2e-3, radius=4 / 255),
}

_BATCH = 48
_ASCENTS = 2


def train_classifier(name: str, split: Split, seed: int, work: Path, out: Path, report: Report) -> None:
    """Train ``RECIPES[name]`` on ``split`` and save it in timm's own folder format."""
    recipe = RECIPES[name]
    torch.manual_seed(seed)
    stage = Stage(name, recipe.steps, _BATCH, recipe.learning_rate, weight_decay=0.03)
    network = recipe.network()
    labels = split.labels
    optimise(
        stage,
        network,
        lambda trained, batch: _loss(trained, recipe, split, labels, batch),
        len(split.images),
        seed,
        work / f"{name}.pt",
        report,
    )
    calibrate(network, recipe, split)
    out.mkdir(parents=True, exist_ok=True)
    save_file(network.state_dict(), out / "model.safetensors")
    card = json.dumps(_card(recipe, network), indent=1) + "\n"
    (out / "config.json").write_text(card, encoding="utf-8", newline="\n")
    report(f"saved {name} in {out}")


def calibrate(network: nn.Module, recipe: ClassifierRecipe, split: Split, images: int = 960) -> None:
    """Measure batch statistics for the averaged weights.

    Those of training belong to the last ones.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    network.train()
    with torch.no_grad():
        for part in split.images[:images].split(_BATCH):
            network(recipe.preprocessing(part / 255))
    network.eval()


def _card(recipe: ClassifierRecipe, network: nn.Module) -> dict[str, object]:
    mean, std = recipe.statistics
    return {
        "architecture": recipe.architecture,
        "num_classes": len(CLASSES),
        "num_features": network.num_features,
        "model_args": dict(recipe.arguments),
        "label_names": list(CLASSES),
        "pretrained_cfg": {
            "input_size": [3, recipe.size, recipe.size],
            "interpolation": recipe.interpolation,
            "crop_pct": 1.0,
            "mean": list(mean),
            "std": list(std),
            "num_classes": len(CLASSES),
        },
    }


def _loss(network: nn.Module, recipe: ClassifierRecipe, split: Split, labels: Tensor, batch: TrainingBatch) -> Tensor:
    images = _augmented(split.images[batch.indices] / 255, batch)
    targets = labels[batch.indices]
    if recipe.radius:
        images = _worst(network, recipe, images, targets, batch)
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(recipe.preprocessing(images))
    return nn.functional.cross_entropy(logits.float(), targets, label_smoothing=0.05)


def _worst(
    network: nn.Module, recipe: ClassifierRecipe, images: Tensor, targets: Tensor, batch: TrainingBatch
) -> Tensor:
    """Images after projected gradient ascent (Madry et al., ICLR 2018, eq. 2.1)."""
    shift = (batch.uniform(*images.shape) * 2 - 1) * recipe.radius
    for _ in range(_ASCENTS):
        shift.requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(recipe.preprocessing((images + shift).clamp(0, 1)))
        (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(logits.float(), targets), shift)
        shift = (shift.detach() + 0.75 * recipe.radius * gradient.sign()).clamp(-recipe.radius, recipe.radius)
    return (images + shift).clamp(0, 1)


def _augmented(images: Tensor, batch: TrainingBatch) -> Tensor:
    """Augmented images: mirrored, shifted, zoomed by up to a sixth, recoloured, slightly noisy."""
    count = len(images)
    zoom = 1 - batch.uniform(count) / 6
    flip = torch.where(batch.uniform(count) < 0.5, -1.0, 1.0)
    shift = (batch.uniform(count, 2) * 2 - 1) * 0.12
    transform = torch.zeros(count, 2, 3)
    transform[:, 0, 0], transform[:, 1, 1], transform[:, :, 2] = zoom * flip, zoom, shift
    grid = nn.functional.affine_grid(transform, list(images.shape), align_corners=False)
    images = nn.functional.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    gain = 1 + (batch.uniform(count, 3, 1, 1) - 0.5) * 0.3 + (batch.uniform(count, 1, 1, 1) - 0.5) * 0.4
    images = (images - 0.5) * gain + 0.5 + (batch.uniform(count, 1, 1, 1) - 0.5) * 0.2
    noise = batch.normal(*images.shape) * batch.uniform(count, 1, 1, 1) * 0.04
    return (images + noise).clamp(0, 1)
