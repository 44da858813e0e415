"""Records that every part of the package shares. Imports nothing of ours.

Names of sizes: ``batch`` images, ``channels``, ``rows`` and ``columns`` of a latent, ``heads`` of an attention site,
``queries`` = side * side positions of its grid, ``keys`` tokens (cross-attention) or positions (self-attention),
``steps`` of denoising, ``models`` classifiers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

__all__ = ["AttentionMaps", "Branch", "Fused", "Kind", "Observation", "Place", "Site", "TokenSpan"]

Kind = Literal["cross", "self"]
Place = Literal["down", "mid", "up"]
TokenSpan = tuple[int, ...]
"""Positions of a phrase's tokens in its encoded prompt; special tokens are never part of it."""


@dataclass(frozen=True, order=True)
class Site:
    """One attention module of the denoiser: where it stands, what it attends to, and the side of its grid."""

    layer: str
    kind: Kind
    place: Place
    side: int


AttentionMaps = Mapping[Site, tuple[Tensor, ...]]
"""Attention probabilities of the conditional half: for each site one [batch, heads, queries, keys] per step."""


@dataclass(frozen=True)
class Branch:
    """One run of the denoising steps: where it ended, what it shows, and where it looked.

    latents [batch,channels,rows,columns] at the last level; images [batch,3,height,width] in [0,1].
    """

    latents: Tensor
    images: Tensor
    attention: AttentionMaps


@dataclass(frozen=True)
class Observation:
    """All that a loss term may look at. The clean branch is a constant."""

    clean: Branch
    adversarial: Branch
    tokens: tuple[TokenSpan, ...]
    """Where the true class stands in each image's prompt."""
    labels: Tensor
    """True classes, [batch]."""
    progress: float
    """How much of the optimisation is done, in (0,1]."""


@dataclass(frozen=True)
class Fused:
    """What an ensemble wants of the image: ``direction`` [batch,3,height,width] is the gradient of what is lowered."""

    direction: Tensor
    weights: Tensor
    """Share of each model in the direction, [models,batch]; columns sum to 1."""
    losses: Tensor
    """Classification loss of each model, [models,batch]."""
    margins: Tensor
    """True logit minus the highest other one, [models,batch]; negative where the model is fooled."""
