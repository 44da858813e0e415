"""How far attention has moved: on the attack's own path, and on the saved file, inverted again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from attnshift.attack.prepare import PreparedBatch
from attnshift.attention.maps import phrase_map
from attnshift.attention.selection import EVERYWHERE
from attnshift.diffusion.denoising import denoise, read_along
from attnshift.profiling import part
from attnshift.sizes import size_of
from attnshift.types import AttentionMaps, AttentionView, Site, TokenSpan

__all__ = ["ALL_LAYERS", "Moved", "Movement", "attention_on_file", "attention_on_path"]

ALL_LAYERS = "all"
"""Name of all cross-attention layers together."""


@dataclass(frozen=True)
class Moved:
    """A phrase's map before and after, in figures.

    ``before`` and ``after`` are its mass: the mean over positions, heads, layers and steps of the
    attention to the phrase, in [0,1]. ``distance`` is the total variation distance of the two maps,
    each divided by its sum, in [0,1].
    """

    before: float
    after: float
    distance: float

    @classmethod
    def of(cls, before: Tensor, after: Tensor) -> Moved:
        """The figures of two maps [rows,columns] of non-negative values."""
        shares = [each / each.sum().clamp(min=1e-12) for each in (before, after)]
        distance = (shares[0] - shares[1]).abs().sum() / 2
        return cls(float(before.mean()), float(after.mean()), float(distance))


@dataclass(frozen=True)
class Movement:
    """Movement of one image's attention, by layer and for ``ALL_LAYERS`` of them.

    ``true`` is that of the true phrase, ``interference`` that of the interference phrase, empty
    where there is none. ``maps`` are the true phrase's over all layers, before and after,
    [rows,columns].
    """

    true: Mapping[str, Moved]
    interference: Mapping[str, Moved]
    maps: tuple[Tensor, Tensor]


@part("controls")
@torch.no_grad()
def attention_on_path(batch: PreparedBatch, latents: Tensor, pull: Tensor | None = None) -> tuple[Movement, ...]:
    """Movement from the clean path to that of ``latents`` [batch,channels,rows,columns], which the
    attack found, and of its ``pull`` [batch] towards the boundary."""
    backbone, trajectory = batch.render.backbone, batch.render.trajectory
    pulled = batch.render.pushed(pull).trajectory
    before, after = (
        denoise(backbone, path, start, _sites(batch))[1]
        for path, start in ((trajectory, trajectory.start), (pulled, latents))
    )
    return _movements(batch, before, after)


@part("controls")
@torch.no_grad()
def attention_on_file(batch: PreparedBatch, images: Tensor) -> tuple[Movement, ...]:
    """Movement from the clean images to ``images`` [batch,3,height,width], as they are saved.

    Both are encoded and inverted, and read on their inversion latents under the prompt of the true
    class. It takes three unguided evaluations of the denoiser a step, and one more for each round
    of the inversion.
    """
    backbone, diffusion = batch.render.backbone, batch.method.recipe.diffusion
    schedule, empty = batch.render.trajectory.noise_schedule, batch.empty
    stored = batch.method.invert(
        backbone, schedule, backbone.encode(images), empty, diffusion.pairing, diffusion.inversion_rounds
    )
    return _movements(batch, _read(batch, batch.stored), _read(batch, stored))


def _sites(batch: PreparedBatch) -> tuple[Site, ...]:
    """Every cross-attention site, and as a probe where there is an interference phrase."""
    latents = batch.render.trajectory.start
    own = EVERYWHERE.sites(batch.render.backbone.sites(size_of(batch.images)), "cross", size_of(latents))
    return own if batch.observe.interference is None else (*own, *(site.seen("probe") for site in own))


def _read(batch: PreparedBatch, stored: Sequence[Tensor]) -> AttentionMaps:
    """Attention under the prompt of the true class on latents as ``invert`` returns them."""
    trajectory = batch.render.trajectory
    return read_along(
        batch.render.backbone,
        stored,
        trajectory.noise_schedule,
        trajectory.text,
        _sites(batch),
        trajectory.interference,
    )


def _movements(batch: PreparedBatch, before: AttentionMaps, after: AttentionMaps) -> tuple[Movement, ...]:
    interference = batch.observe.interference
    movements = []
    for image, span in enumerate(batch.observe.tokens):
        maps = _maps(before, "prompt", span, image), _maps(after, "prompt", span, image)
        other: dict[str, Moved] = {}
        if interference is not None:
            probed = interference.probed[image]
            other = _moved(_maps(before, "probe", probed, image), _maps(after, "probe", probed, image))
        movements.append(Movement(_moved(*maps), other, (maps[0][ALL_LAYERS].cpu(), maps[1][ALL_LAYERS].cpu())))
    return tuple(movements)


def _maps(attention: AttentionMaps, view: AttentionView, span: TokenSpan, image: int) -> dict[str, Tensor]:
    """The phrase's map at all sites of ``view`` together, and at each of them."""
    sites = [site for site in attention if site.view == view]
    groups = {ALL_LAYERS: sites} | {site.layer: [site] for site in sites}
    return {name: phrase_map(attention, group, EVERYWHERE, span, image) for name, group in groups.items()}


def _moved(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> dict[str, Moved]:
    return {name: Moved.of(each, after[name]) for name, each in before.items()}
