"""Records that every part of the package shares.

Names of sizes: ``batch`` images, ``channels``, ``rows`` and ``columns`` of a latent, ``heads`` of
an attention site, ``queries`` positions of its grid, row by row, ``keys`` tokens
(cross-attention) or positions (self-attention), ``steps`` of denoising, ``models`` classifiers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from attnshift.batching import batch_record, constant, per_image
from attnshift.sizes import Size

__all__ = [
    "AttentionMaps",
    "AttentionView",
    "Branch",
    "Form",
    "Fused",
    "Goals",
    "Interference",
    "Kind",
    "MassShare",
    "Observation",
    "Place",
    "RandomKey",
    "Site",
    "TokenSpan",
]

Kind = Literal["cross", "self"]
Place = Literal["down", "mid", "up"]
"""Part of the denoiser. A transformer, whose layers all have one grid, has depth alone: its first,
middle and last third."""
MassShare = Literal["part", "whole"]
"""What the masses of a joint site are shares of: what its row pays to that part of the keys, text
or image, or the row's whole attention. Other sites have one part."""
Form = Literal["map", "projections"]
AttentionView = Literal["prompt", "probe", "separate", "reference"]
"""The keys that the queries of a cross-attention site meet, and the pass in which they do.

``prompt``: the keys of the image's own prompt. ``probe``: one softmax over the own prompt's keys
and behind them the interference phrase's, only to measure. ``separate``: the keys of the
interference prompt, in a branch of its own. ``reference``: the same on the clean path's stored
latents, once; a constant.
"""
TokenSpan = tuple[int, ...]
"""Positions of a phrase's tokens in its encoded prompt; special tokens are never part of it."""


@dataclass(frozen=True, order=True)
class Site:
    """One attention module of the denoiser, read in one view: where it stands, the rows and
    columns of its grid, its heads.

    ``form`` says what is read: its map, or the queries and keys that give it, for figures of its
    rows and for columns of phrases (``attnshift.attention``). ``sample`` is how many of these
    queries terms see, drawn for each image in every iteration; 0 shows all.

    A ``joint`` one has image and text in one softmax: "cross" are its image rows at the text's
    columns, "self" the same rows at the image's, and neither sums to 1 by itself.
    """

    layer: str
    kind: Kind
    place: Place
    grid: Size
    heads: int
    view: AttentionView = "prompt"
    form: Form = "map"
    sample: int = 0
    joint: bool = False

    @property
    def positions(self) -> int:
        """Positions of its grid, which are its queries."""
        return self.grid.area

    def seen(self, view: AttentionView) -> Site:
        """The same module in another view."""
        return replace(self, view=view)

    def mapped(self) -> Site:
        """The same module, read as its map."""
        return replace(self, form="map", sample=0)

    def projected(self, rows: int = 0) -> Site:
        """The same module, read as its queries and keys: ``rows`` of its queries, or all where it
        has no more or where ``rows`` is 0."""
        return replace(self, form="projections", sample=rows if rows < self.positions else 0)


AttentionMaps = Mapping[Site, tuple[Float[Tensor, "..."], ...]]
"""Attention by site, one tensor per step, of the half that the site's view names.

A map has probabilities, [batch, heads, queries, keys]. Projections have queries and behind them
keys, [batch, heads, queries + keys, width]: small where the map of a large grid is not. Until rows
are drawn of a sampled site, all of its queries are there.
"""


@batch_record
class Branch:
    """One run of the denoising steps.

    ``latents`` are at the last level; ``images`` in [0,1] show them; ``attention`` was read on the
    way. ``earlier`` are previews one step before, where an attack looks ahead to the images.
    ``noise`` is what the denoiser predicts in the start latents.
    """

    latents: Float[Tensor, "batch channels rows columns"] = per_image()
    images: Float[Tensor, "batch 3 height width"] = per_image()
    attention: AttentionMaps = per_image(depth=2)
    earlier: Float[Tensor, "batch 3 height width"] | None = per_image(default=None)
    noise: Float[Tensor, "batch channels rows columns"] | None = per_image(default=None)

    @property
    def seen(self) -> Float[Tensor, "batch 3 height _"]:
        """All that classifiers see: the images, with the previews before them on their right."""
        return self.images if self.earlier is None else torch.cat([self.images, self.earlier], -1)


@batch_record
class Goals:
    """The goals of an attack, as classes: ``labels`` are the true classes.

    ``targets`` are the classes to be seen instead, absent in an untargeted attack. ``interference``
    are the interference phrases' classes, -1 where a phrase is no class; absent where there is no
    interference.
    """

    labels: Int[Tensor, "batch"] = per_image()
    targets: Int[Tensor, "batch"] | None = per_image(default=None)
    interference: Int[Tensor, "batch"] | None = per_image(default=None)

    @classmethod
    def of(
        cls, labels: Sequence[int], targets: Sequence[int | None], device: torch.device | str | None = None
    ) -> Goals:
        """Goals of images with these classes; ``targets`` gives every image a class, or none has
        one."""
        wanted = [target for target in targets if target is not None]
        if wanted and len(wanted) < len(labels):
            raise ValueError("some images have a target and others have none")
        return cls(torch.tensor(labels, device=device), torch.tensor(wanted, device=device) if wanted else None)

    def achieved(self, predicted: Int[Tensor, "*any batch"]) -> Bool[Tensor, "*any batch"]:
        """Whether classes are a success: the target, or any but the true one."""
        return predicted != self.labels if self.targets is None else predicted == self.targets


@batch_record
class Interference:
    """The phrases that attention is steered towards, image by image.

    ``phrases`` are its words and ``tokens`` where they stand in the interference prompt; ``probed``
    where they stand among the keys of the ``probe`` view, ``joint`` where in the image's own
    prompt, if that names both. ``alignment`` has one row-stochastic matrix [tokens of the true
    phrase, tokens of the interference phrase] per image. ``attention`` are the ``reference`` maps,
    constants.
    """

    phrases: tuple[str, ...] = per_image()
    tokens: tuple[TokenSpan, ...] = per_image()
    probed: tuple[TokenSpan, ...] = per_image()
    joint: tuple[TokenSpan, ...] | None = per_image()
    alignment: tuple[Float[Tensor, "_ _"], ...] = per_image()
    attention: AttentionMaps = per_image(depth=2)

    def keys(self, image: int) -> int:
        """Keys of the text that an ``image`` has in the ``probe`` view; those behind are longer
        phrases' of its batch."""
        return max(self.probed[image]) + 1


@batch_record
class RandomKey:
    """Names of an iteration's random draws: the run's seed, each image's id, the iteration, and the
    number of the view in which a classifier sees the images."""

    seed: int = constant()
    ids: tuple[str, ...] = per_image()
    iteration: int = constant()
    view: int = constant(default=0)


@batch_record
class Observation:
    """All that a loss term may read. Everything but ``adversarial`` is a constant."""

    images: Float[Tensor, "batch 3 height width"] = per_image()
    """The images that are attacked, in [0,1]."""
    clean: Branch = per_image()
    adversarial: Branch = per_image()
    tokens: tuple[TokenSpan, ...] = per_image()
    """Token positions of the true class in each image's prompt."""
    progress: float = constant()
    """Share of the iterations that is done, in (0,1]."""
    key: RandomKey = per_image()
    weights: Float[Tensor, "batch 1 height width"] = per_image()
    """Weight of each pixel, in (0,1]: 1 on the object, less outside of it."""
    interference: Interference | None = per_image(default=None)


@dataclass(frozen=True)
class Fused:
    """The answer of a fusion rule.

    ``direction`` is the gradient of the lowered loss at the images or at the latents.
    """

    direction: Float[Tensor, "batch ..."]
    weights: Float[Tensor, "models batch"]
    """Share of each model in the direction; columns sum to 1, or to 0 where no model pulls."""
    losses: Float[Tensor, "models batch"]
    """Classification loss of each model."""
    margins: Float[Tensor, "models batch"]
    """Logits by which each model still resists; negative where it is fooled."""
    state: Float[Tensor, "batch ..."] | None = None
    """The rule's state for the next iteration; None for a rule without one."""
