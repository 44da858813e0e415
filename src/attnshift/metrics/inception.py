"""Inception-v3 of the definitions of FID and KID, which differs from torchvision's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, max_pool2d
from torchvision.models import inception as torchvision

__all__ = ["inception"]


def inception() -> nn.Module:
    """Inception-v3 without trained weights.

    It maps images [batch,3,299,299] in about [-1,1] to 1008 logits. The last layer reads features
    [batch,2048]. TensorFlow's network of 2015 (Heusel et al., NeurIPS 2017) differs from
    torchvision's in its pooling branches: means exclude the padding, and the last block takes
    maxima. Parameters have torchvision's names.
    """
    blocks = [
        torchvision.BasicConv2d,
        _pooled(torchvision.InceptionA, _mean),
        torchvision.InceptionB,
        _pooled(torchvision.InceptionC, _mean),
        torchvision.InceptionD,
        _pooled(torchvision.InceptionE, _mean),
        torchvision.InceptionAux,
    ]
    network = torchvision.Inception3(1008, aux_logits=False, inception_blocks=blocks, init_weights=False)
    network.Mixed_7c = _pooled(torchvision.InceptionE, _maximum)(2048)
    return network


def _pooled(block: Any, pool: Callable[[Tensor], Tensor]) -> Any:
    class Pooled(block):
        def forward(self, images: Tensor) -> Tensor:
            return torch.cat([*self._forward(images)[:-1], self.branch_pool(pool(images))], 1)

    return Pooled


def _mean(images: Tensor) -> Tensor:
    return avg_pool2d(images, 3, stride=1, padding=1, count_include_pad=False)


def _maximum(images: Tensor) -> Tensor:
    return max_pool2d(images, 3, stride=1, padding=1)
