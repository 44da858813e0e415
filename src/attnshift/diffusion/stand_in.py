"""Tiny decoder that carries the gradient in the place of a pipeline's own."""

# The annotations of diffusers are narrower than what it accepts.
# pyright: reportArgumentType=false

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from diffusers import AutoencoderTiny
from jaxtyping import Float
from torch import Tensor

from attnshift.diffusion.autoencoder import decode, facts
from attnshift.diffusion.backbone import Backbone
from attnshift.diffusion.checks import check_network, network_class
from attnshift.diffusion.hub import download_network
from attnshift.diffusion.names import exists, is_hub_name, read_name
from attnshift.diffusion.networks import load_checked, silence
from attnshift.errors import ModelError
from attnshift.fingerprint import fingerprint
from attnshift.sizes import Size, size_of
from attnshift.untrusted import UNUSABLE, reason

__all__ = ["StandIn", "load_stand_in"]


@dataclass(frozen=True, eq=False)
class StandIn:
    """Tiny decoder, distilled from the decoder of the pipelines whose latents it reads (TAESD).

    Its images are blurred, and its gradient costs a small part of theirs. So the images are those
    of the pipeline's own decoder, computed without autograd, and the gradient goes back through the
    tiny one: a straight-through estimator (Bengio et al. 2013).
    """

    source: str
    network: AutoencoderTiny

    def fingerprint(self) -> str:
        return fingerprint({"decoder": self.network.decoder}, facts(self.network))

    @staticmethod
    def acts_for(backbone: Backbone) -> bool:
        """False for a pipeline whose own decoder is a tiny one:
        there is nothing to stand in for."""
        return not getattr(backbone, "has_tiny_autoencoder", False)

    def check(self, backbone: Backbone, size: Size) -> None:
        """Raise ``ModelError`` unless it decodes the latents that ``backbone`` makes of images of
        ``size``."""
        latents = backbone.encode(torch.full((1, 3, *size), 0.5, device=backbone.device))
        channels, taken = latents.shape[1], int(self.network.config["latent_channels"])
        if channels != taken:
            raise ModelError(
                f"diffusion.decoder_source {self.source} decodes latents of {taken} channels, and those of "
                f"{backbone.name} have {channels}; take the decoder that was distilled from this pipeline's"
            )
        made = size_of(self._decode(latents, False))
        if made != size:
            raise ModelError(
                f"diffusion.decoder_source {self.source} makes {made} px of latents of {size} px; take the decoder "
                "that was distilled from this pipeline's"
            )

    @torch.no_grad()
    def agreement(self, backbone: Backbone, images: Float[Tensor, "batch 3 height width"]) -> float:
        """Peak signal-to-noise ratio, in dB, of its decoded ``images`` against those of
        ``backbone``'s own decoder."""
        latents = backbone.encode(images.to(backbone.device))
        own, tiny = (decoded.clamp(0, 1) for decoded in (backbone.decode(latents), self._decode(latents, False)))
        error = float((own - tiny).square().mean())
        return -10 * math.log10(error) if error else math.inf

    def behind(self, backbone: Backbone) -> Callable[[Tensor, bool], Tensor]:
        """``backbone.decode`` with the gradient of the tiny decoder; its images are the same to the
        bit.

        A pipeline whose own decoder is a tiny one keeps its gradient as well.
        """
        if not self.acts_for(backbone):
            return backbone.decode

        def decoded(latents: Tensor, checkpointing: bool = False) -> Tensor:
            if not (torch.is_grad_enabled() and latents.requires_grad):
                return backbone.decode(latents)
            with torch.no_grad():
                images = backbone.decode(latents)
            through = self._decode(latents, checkpointing)
            return images + (through - through.detach())

        return decoded

    def _decode(self, latents: Tensor, checkpointing: bool) -> Tensor:
        return decode(self.network.to(latents.device), latents, checkpointing)


@cache
def load_stand_in(source: str) -> StandIn:
    """Load the ``AutoencoderTiny`` of diffusers in the folder ``source``, or of that hub name; its
    weights are constants in fp32.

    ``,variant=fp16`` behind the name asks for that variant of its files. ``ModelError`` is raised
    for what cannot be loaded.
    """
    silence()
    try:
        called = read_name(source)
        if called.config or called.loras or called.int8:
            raise ModelError("of the options of a pipeline's name a decoder's takes variant alone")
        folder = _folder(called.place)
        if network_class(folder, "vae") is not AutoencoderTiny:
            raise ModelError(f"{folder} holds no AutoencoderTiny")
        network = load_checked(folder, AutoencoderTiny, check_network(folder, "vae", called.variant), torch.float32)
    except UNUSABLE as error:
        raise ModelError(f"cannot load diffusion.decoder_source {source}: {reason(error)}") from error
    except ModelError as error:
        raise ModelError(f"cannot load diffusion.decoder_source {source}: {error}") from None
    assert isinstance(network, AutoencoderTiny)
    network.eval().requires_grad_(False)
    return StandIn(source, network)


def _folder(source: str) -> Path:
    if not exists(source) and is_hub_name(source):
        return download_network(source)
    if not Path(source).is_dir():
        raise ModelError(
            "there is no such folder; give a folder of an AutoencoderTiny in diffusers' layout, or a name of the "
            "Hugging Face hub, such as madebyollin/taesd"
        )
    return Path(source)
