"""Latents, texts and inverted paths that the tests of the diffusion family share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor

from attnshift.diffusion.inversion import invert

if TYPE_CHECKING:
    from attnshift.diffusion.conditioning import Conditioning
    from attnshift.diffusion.noise_schedule import NoiseSchedule, Pairing
    from attnshift.diffusion.stable_diffusion import StableDiffusion

PROMPTS = ("a photo of a snowman", "a mug", "ball")


@dataclass(frozen=True)
class Inverted:
    """Three images walked up the ladder, and what is needed to walk them down again."""

    noise_schedule: NoiseSchedule
    stored: tuple[Tensor, ...]
    text: Conditioning
    empty: Conditioning

    def errors(self, latents: Tensor) -> Tensor:
        """Distance to the image's latent relative to its norm, [batch]."""
        miss = (latents - self.stored[-1]).flatten(1).norm(dim=1)
        return miss / self.stored[-1].flatten(1).norm(dim=1)


@pytest.fixture(scope="session")
def paths(backbone: StableDiffusion) -> dict[Pairing, Inverted]:
    draw = torch.Generator().manual_seed(1)
    noise_schedule = backbone.noise_schedule(20, 5)
    with torch.no_grad():
        latents = backbone.encode(torch.rand(len(PROMPTS), 3, 64, 64, generator=draw))
        text, empty = backbone.embed(PROMPTS), backbone.embed([""] * len(PROMPTS))
    pairings: tuple[Pairing, ...] = ("aligned", "compat")
    return {
        pairing: Inverted(noise_schedule, invert(backbone, noise_schedule, latents, empty, pairing), text, empty)
        for pairing in pairings
    }
