"""Changes of low rank of a denoiser's attention, each image's own, that make it remember the
image."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from attnshift.batching import batch_record, constant, per_image
from attnshift.diffusion.backbone import Backbone, Prediction
from attnshift.diffusion.conditioning import Conditioning
from attnshift.randomness import generator, normal, normal_like
from attnshift.types import RandomKey

__all__ = ["LowRank", "Memorising", "Projecting", "changed", "memorised"]

_TRAINED = 1000
"""Steps of the schedule from which the noise levels are drawn."""


@runtime_checkable
class Projecting(Protocol):
    """A backbone that shows the linear layers of its denoiser's attention."""

    def projections(self) -> Mapping[str, nn.Linear]:
        """By name: those of queries, keys, values and output of all attention modules."""
        ...


@batch_record
class LowRank:
    """Hu et al., "LoRA" (ICLR 2022): each of ``layers`` adds ``up`` [batch,outputs,rank] times
    ``down`` [batch,rank,inputs] times its input, with an image's own matrices."""

    layers: tuple[str, ...] = constant()
    down: tuple[Float[Tensor, "batch rank _"], ...] = per_image(depth=1)
    up: tuple[Float[Tensor, "batch _ rank"], ...] = per_image(depth=1)


@dataclass(frozen=True)
class Memorising:
    """Options of the training: the ``rank`` of the change, ``updates`` by AdamW with their
    ``learning_rate`` and ``weight_decay``, and the ``noise_offset``: the standard deviation of what
    all values of a channel of the noise have in common."""

    rank: int
    updates: int
    learning_rate: float
    weight_decay: float
    noise_offset: float


def changed(backbone: Backbone, low_rank: LowRank | None, layers: Mapping[str, nn.Linear]) -> Backbone:
    """``backbone`` with the change ``low_rank`` of its ``layers`` in every evaluation of the
    denoiser; itself where that is None."""
    return backbone if low_rank is None else cast(Backbone, _Changed(backbone, low_rank, layers))


class _Changed:
    def __init__(self, backbone: Backbone, low_rank: LowRank, layers: Mapping[str, nn.Linear]):
        self._backbone, self._low_rank, self._layers = backbone, low_rank, layers

    def denoise(self, latents: Tensor, *inputs: Any) -> Prediction:
        with _added(self._low_rank, self._layers):
            return self._backbone.denoise(latents, *inputs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backbone, name)


@contextmanager
def _added(low_rank: LowRank, layers: Mapping[str, nn.Linear]) -> Iterator[None]:
    hooks = [
        layers[name].register_forward_hook(_adding(down, up))
        for name, down, up in zip(low_rank.layers, low_rank.down, low_rank.up, strict=True)
    ]
    try:
        yield
    finally:
        for each in hooks:
            each.remove()


def _adding(down: Tensor, up: Tensor) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
    def hook(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        states = inputs[0].to(down.dtype)
        # A guided batch has the images once for each of its texts.
        times = len(states) // len(down)
        low = states @ down.repeat(times, 1, 1).mT
        return output + (low @ up.repeat(times, 1, 1).mT).to(output.dtype)

    return hook


def memorised(
    backbone: Backbone,
    latents: Float[Tensor, "batch channels rows columns"],
    text: Conditioning,
    key: RandomKey,
    options: Memorising,
) -> LowRank:
    """The change of ``backbone``, which is ``Projecting``, that makes it predict the noise in the
    noised ``latents`` under ``text``, or what else its path predicts.

    Each update draws a noise level, the same for all images whoever they are, and noise of each
    image's own. The mean squared error of the prediction is what it lowers. ``down`` starts with
    standard deviation 1 / rank, ``up`` with 0.
    """
    assert isinstance(backbone, Projecting)
    layers = backbone.projections()
    made = _start(layers, options.rank, latents, key)
    parts = [each.requires_grad_() for each in (*made.down, *made.up)]
    optimiser = torch.optim.AdamW(parts, options.learning_rate, weight_decay=options.weight_decay)
    schedule, adapted = backbone.noise_schedule(_TRAINED, _TRAINED - 1), changed(backbone, made, layers)
    with torch.enable_grad():
        for update in range(options.updates):
            at = int(generator(key.seed, update, "memorising").integers(len(schedule)))
            noise = normal_like(latents, key.seed, key.ids, update, "memorising")
            common = normal_like(latents[..., :1, :1], key.seed, key.ids, update, "noise offset")
            noise = noise + options.noise_offset * common
            noised = schedule.path.noised(latents, noise, schedule.levels[at])
            predicted = adapted.denoise(noised, schedule.timesteps[at], text).output
            (predicted - schedule.path.prediction(latents, noise)).square().mean((1, 2, 3)).sum().backward(inputs=parts)
            optimiser.step()
            optimiser.zero_grad()
    return LowRank(made.layers, *(tuple(each.detach() for each in given) for given in (made.down, made.up)))


def _start(layers: Mapping[str, nn.Linear], rank: int, latents: Tensor, key: RandomKey) -> LowRank:
    down, up = [], []
    for name, layer in layers.items():
        drawn = [normal((rank, layer.in_features), key.seed, id, name, "low rank") / rank for id in key.ids]
        down.append(torch.stack(drawn).to(latents))
        up.append(latents.new_zeros(len(latents), layer.out_features, rank))
    return LowRank(tuple(layers), tuple(down), tuple(up))
