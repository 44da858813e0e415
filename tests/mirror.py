"""A diffusion model without a network: latents are pixels, and every step is known in closed form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from attnshift.baselines.edits import EditInput
from attnshift.classifiers.classifier import Classifier
from attnshift.diffusion.backbone import Prediction
from attnshift.diffusion.conditioning import Conditioning
from attnshift.diffusion.noise_schedule import NoiseSchedule
from attnshift.ensemble.surrogates import Surrogates
from attnshift.losses.classification import CrossEntropy
from attnshift.sizes import Sides
from attnshift.testing.models import pictures
from attnshift.types import Goals, RandomKey

__all__ = ["Mirror", "input_on", "keys", "linear_surrogates"]


class _Seen(torch.autograd.Function):
    """The identity, which counts the gradients that come back through it."""

    @staticmethod
    def forward(context: Any, values: Tensor, mirror: Mirror) -> Tensor:
        context.mirror = mirror
        return values.clone()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        ctx.mirror.backwards += len(grad_outputs[0])
        return grad_outputs[0], None


def _unchanged(latents: Tensor) -> Tensor:
    return latents


def _none(latents: Tensor, timestep: int, text: Tensor) -> Tensor:
    return 0 * latents


@dataclass
class Mirror:
    """Encodes nothing, decodes by ``decoder``, walks along ``levels``, and predicts ``noise`` (latents, timestep,
    text) -> noise.

    ``starts`` are the latents that came to the first step; images that were denoised are counted, and so are
    gradients that came back.
    """

    levels: tuple[float, ...] = ()
    decoder: Callable[[Tensor], Tensor] = _unchanged
    noise: Callable[[Tensor, int, Tensor], Tensor] = _none
    forwards: int = 0
    backwards: int = 0
    starts: list[Tensor] = field(default_factory=list)
    guided: bool = True

    def check_size(self, size: Sides) -> None:
        pass

    def encode(self, images: Tensor) -> Tensor:
        return images

    def decode(self, latents: Tensor, checkpointing: bool = False) -> Tensor:
        return self.decoder(latents)

    def embed(self, prompts: Sequence[str]) -> Conditioning:
        return Conditioning(torch.tensor([float(len(prompt)) for prompt in prompts]).view(-1, 1, 1))

    def summarise(self, prompts: Sequence[str]) -> Tensor:
        """Unit vectors: prompts are the nearer, the more alike their lengths."""
        angles = torch.tensor([len(prompt) / 100 for prompt in prompts])
        return torch.stack([angles.cos(), angles.sin()], 1)

    def release_texts(self) -> None:
        pass

    def locate(self, prompt: str, phrase: str, start: int | None = None, stream: str = "all") -> tuple[int, ...]:
        return (prompt.index(phrase),)

    def noise_schedule(self, schedule_steps: int, denoising_steps: int, size: Sides = 0) -> NoiseSchedule:
        levels = self.levels or (1.0,) * (denoising_steps + 1)
        return NoiseSchedule(tuple(reversed(range(1, len(levels)))), levels, levels[0])

    def denoise(self, latents: Tensor, timestep: float, text: Conditioning, reads: Sequence[object] = ()) -> Prediction:
        self.forwards += len(latents)
        if timestep == len(self.levels) - 1:
            self.starts.append(latents.detach())
        return Prediction(self.noise(_Seen.apply(latents, self), int(timestep), text.states), {})  # type: ignore[arg-type]


def keys(count: int) -> RandomKey:
    return RandomKey(0, tuple(f"image {at}" for at in range(count)), 0)


def linear_surrogates(weights: Tensor, count: int) -> Surrogates:
    """One surrogate with the logits <images, weights>, [classes,3,height,width]; class 0 is true."""

    def classifier(images: Tensor) -> Tensor:
        return torch.einsum("bchw,kchw->bk", images, weights)

    return Surrogates([classifier], CrossEntropy(), Goals.of([0] * count, [None] * count))


class _Linear(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weights = torch.nn.Parameter(torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(1)))

    def forward(self, images: Tensor) -> Tensor:
        return 3 * torch.einsum("bchw,kchw->bk", images, self.weights)


def input_on(backbone: Any, count: int = 2) -> EditInput:
    """Pictures of 8 px with a linear classifier that is right about them."""
    images = pictures(count, 8)
    classifier = Classifier.wrap(_Linear(), "linear", 8, [0.4] * 3, [0.3] * 3)
    labels = classifier(images).argmax(1).tolist()
    surrogates = Surrogates([classifier], CrossEntropy(), Goals.of(labels, [None] * count))
    return EditInput(backbone, surrogates, images, ("a photo of a mug",) * count, keys(count))
