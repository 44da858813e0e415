"""What every latent diffusion model of diffusers shares: its autoencoder, its texts, and the sizes
that fit."""

# The annotations of diffusers and transformers are narrower than what they accept and return.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportReturnType=false

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Self, cast

import torch
from diffusers import AutoencoderTiny
from jaxtyping import Float
from torch import Tensor, nn

from attnshift.diffusion.autoencoder import Autoencoder, decode, encode
from attnshift.diffusion.texts import Encoders, TextStream, locate
from attnshift.errors import ModelError
from attnshift.sizes import Sides, Size
from attnshift.types import Site, TokenSpan

__all__ = ["LatentModel", "in_float"]

_TOGETHER = 64
"""Most prompts that are encoded at once for summaries."""


class LatentModel(ABC):
    """The parts of a pipeline that are the same for every denoiser. Their weights are constants.

    Weights may be bf16: each network is handed its own precision and hands back the precision that
    came, so that steps, losses and the latents' gradient stay in fp32. Rows and columns of images
    are multiples of ``unit`` pixels, which are ``patch`` latents.
    """

    guided: bool = True
    patch: ClassVar[int] = 1
    suggested_size: int

    def __init__(
        self, name: str, vae: Autoencoder, denoiser: nn.Module, encoders: Encoders, streams: Sequence[TextStream]
    ):
        self.name, self.vae, self.encoders, self._denoiser = name, vae, encoders, denoiser
        self._texts = tuple(streams)
        self.streams = tuple(each.name for each in streams)
        for module in (vae, denoiser):
            # Convolutions are faster in this order of the memory: on one thread of a CPU by a tenth
            # to a quarter, in bf16 several times.
            module.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.device = next(denoiser.parameters()).device
        self.pixels_per_latent = 2 ** (len(vae.config["block_out_channels"]) - 1)
        self._summaries: dict[str, Tensor] = {}

    def to(self, device: torch.device | str) -> Self:
        for module in (self.vae, self._denoiser):
            module.to(device)  # type: ignore[call-overload]
        self.device = next(self._denoiser.parameters()).device
        return self

    @property
    def has_tiny_autoencoder(self) -> bool:
        """True if the autoencoder is a tiny one, which gives one latent for each image."""
        return isinstance(self.vae, AutoencoderTiny)

    @property
    def unit(self) -> int:
        return self.pixels_per_latent * self.patch

    def check_size(self, size: Sides) -> None:
        # The latents may have odd sides at any level (28, 14, 7, 4 at 224 px): a convolutional
        # denoiser pads and crops by itself.
        size = Size.of(size)
        if any(side % self.unit or side <= 0 for side in size):
            near = self.nearest_size(size).plain
            if size.rows == size.columns:
                below = size.rows // self.unit * self.unit
                near = " or ".join(str(value) for value in (below, below + self.unit) if value > 0) or str(self.unit)
            raise ModelError(f"{self.name}: images of {size} px do not fit the model; use `size` {near}")

    def nearest_size(self, size: Size) -> Size:
        return Size(*(max(1, (side + self.unit // 2) // self.unit) * self.unit for side in size))

    def encode(
        self,
        images: Float[Tensor, "batch 3 height width"],
        noise: Float[Tensor, "batch channels rows columns"] | None = None,
    ) -> Float[Tensor, "batch channels rows columns"]:
        return encode(self.vae, images, noise)

    def decode(
        self, latents: Float[Tensor, "batch channels rows columns"], checkpointing: bool = False
    ) -> Float[Tensor, "batch 3 height width"]:
        return decode(self.vae, latents, checkpointing)

    def latent_size(self, size: Sides) -> Size:
        return Size(*(side // self.pixels_per_latent for side in Size.of(size)))

    def locate(self, prompt: str, phrase: str, start: int | None = None, stream: str = "all") -> TokenSpan:
        return locate(self.name, self._texts, prompt, phrase, start, stream)

    def projections(self) -> dict[str, nn.Linear]:
        """The linear layers of all attention modules on the image's side, by name: queries, keys,
        values and, where there is one, the output."""
        layers = dict.fromkeys(site.layer for site in self.sites(self.suggested_size))
        named = dict(self._denoiser.named_modules())
        names = (f"{layer}.{part}" for layer in layers for part in ("to_q", "to_k", "to_v", "to_out.0"))
        return {name: cast(nn.Linear, named[name]) for name in names if name in named}

    def release_texts(self) -> None:
        self.encoders.release()

    @torch.no_grad()
    def summarise(self, prompts: Sequence[str]) -> Float[Tensor, "prompts width"]:
        new = sorted(set(prompts) - self._summaries.keys())
        for at in range(0, len(new), _TOGETHER):
            some = new[at : at + _TOGETHER]
            unit = torch.nn.functional.normalize(self._pooled(some).float(), dim=1)
            self._summaries.update(zip(some, unit, strict=True))
        return torch.stack([self._summaries[prompt] for prompt in prompts])

    @abstractmethod
    def sites(self, size: Sides) -> tuple[Site, ...]:
        """Attention of the denoiser for images of ``size``."""

    def _check_trained(self, schedule_steps: int, trained: int) -> None:
        if schedule_steps > trained:
            raise ModelError(
                f"a schedule of {schedule_steps} steps is too long: {self.name} was trained with {trained}"
            )

    def _check_walked(self, schedule_steps: int, denoising_steps: int, most: int) -> None:
        if not 0 < denoising_steps <= most:
            raise ModelError(
                f"of a schedule of {schedule_steps} steps 1 to {most} can be walked, and not {denoising_steps}"
            )

    @abstractmethod
    def _pooled(self, prompts: Sequence[str]) -> Float[Tensor, "prompts width"]:
        """One vector of the text encoders for each whole prompt."""

    def _vocabularies(self) -> list[Any]:
        return [sorted(each.tokenizer.get_vocab().items()) for each in self._texts]


def in_float(values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """``values`` in fp32, or in fp64 if they are."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
