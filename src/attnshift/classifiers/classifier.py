"""A classifier owns its network and its preprocessing: everyone else hands it images in [0,1]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

__all__ = ["Classifier", "Interpolation", "Preprocessing"]

Interpolation = Literal["nearest", "bilinear", "bicubic"]


@dataclass(frozen=True)
class Preprocessing:
    """How images [batch,3,height,width] in [0,1] become a network's input: resized, then normalised per channel."""

    size: tuple[int, int]
    interpolation: Interpolation
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __call__(self, images: Tensor) -> Tensor:
        if images.shape[-2:] != self.size:
            smooth = self.interpolation != "nearest"
            images = nn.functional.interpolate(images, self.size, mode=self.interpolation, antialias=smooth)
        mean, std = (images.new_tensor(values).view(3, 1, 1) for values in (self.mean, self.std))
        return (images - mean) / std


@dataclass(frozen=True, eq=False)
class Classifier:
    """Images [batch,3,height,width] in [0,1] -> logits [batch,classes]. Differentiable; its weights are constants.

    ``class_names`` gives the class order where it is known, or is empty.
    """

    name: str
    network: nn.Module
    preprocessing: Preprocessing
    classes: int
    class_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.network.eval().requires_grad_(False)

    def __call__(self, images: Tensor) -> Tensor:
        return self.network(self.preprocessing(images)).float()

    def to(self, device: torch.device | str) -> Classifier:
        self.network.to(device)
        return self
