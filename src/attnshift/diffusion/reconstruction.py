"""Three reconstructions: each makes the guided clean path end at the image again.

Each is a frozen record of its options, called with the stored inversion latents, and returns the
trajectory that the attack denoises along.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from attnshift.diffusion.backbone import Backbone
from attnshift.diffusion.conditioning import Conditioning
from attnshift.diffusion.denoising import Trajectory, retraced
from attnshift.diffusion.noise_schedule import NoiseSchedule
from attnshift.registry import STRICT

__all__ = ["NegativePrompt", "NullText", "Offset", "Reconstruction"]


class Reconstruction(Protocol):
    guided: ClassVar[bool]
    """True if it needs classifier-free guidance to act on."""

    def __call__(
        self,
        backbone: Backbone,
        noise_schedule: NoiseSchedule,
        stored: Sequence[Float[Tensor, "batch channels rows columns"]],
        text: Conditioning,
        unconditional: Conditioning,
        guidance: float,
    ) -> Trajectory:
        """``stored`` are latents as ``invert`` returns them."""
        ...


@dataclass(frozen=True)
class NullText:
    """Tune the unconditional embedding of each step until the step lands on the stored latent.

    Mokady et al., "Null-text inversion" (CVPR 2023). Step k takes ``updates + updates_per_step *
    k`` updates and starts from the embedding of the step before. One AdamW serves all steps, as in
    the code of DiffAttack; ``afresh`` gives each step an Adam of its own, as the authors do. The
    conditional prediction does not depend on what is tuned and is computed once per step. An image
    whose mean squared error falls below ``tolerance + tolerance_per_step * k`` keeps its embedding
    for the rest of the step.
    """

    __pydantic_config__ = STRICT
    guided: ClassVar[bool] = True
    learning_rate: float = 0.1
    """Learning rate of AdamW, or of Adam."""
    updates: int = 10
    """Updates of the first step."""
    updates_per_step: int = 2
    """Updates that each step has more than the one before."""
    tolerance: float = 0.0
    """Mean squared error below which an image's embedding stays for the rest of the first step."""
    tolerance_per_step: float = 0.0
    """What that error grows by from step to step."""
    rate_decay: float = 0.0
    """Share of the first learning rate that each step has less than the one before."""
    afresh: bool = False

    def __call__(
        self,
        backbone: Backbone,
        noise_schedule: NoiseSchedule,
        stored: Sequence[Float[Tensor, "batch channels rows columns"]],
        text: Conditioning,
        unconditional: Conditioning,
        guidance: float,
    ) -> Trajectory:
        latents, tuned = stored[0], []
        states = unconditional.states.detach().clone().requires_grad_()
        optimiser: torch.optim.Optimizer = torch.optim.AdamW([states], lr=self.learning_rate)
        for index, timestep in enumerate(noise_schedule.timesteps):
            rate = self.learning_rate * (1 - self.rate_decay * index)
            if self.afresh:
                optimiser = torch.optim.Adam([states], lr=rate)
            optimiser.param_groups[0]["lr"] = rate
            with torch.no_grad():
                conditional = backbone.denoise(latents, timestep, text).output
            for _ in range(self.updates + self.updates_per_step * index):
                empty = backbone.denoise(latents, timestep, replace(unconditional, states=states)).output
                moved = noise_schedule.step(latents, empty + guidance * (conditional - empty), index)
                errors = (moved - stored[index + 1]).square().flatten(1).mean(1)
                errors.sum().backward(inputs=[states])
                done = errors.detach() < self.tolerance + self.tolerance_per_step * index
                kept = states.detach().clone()
                optimiser.step()
                optimiser.zero_grad()
                with torch.no_grad():
                    states[done] = kept[done]
                if bool(done.all()):
                    break
            tuned.append(replace(unconditional, states=states.detach().clone()))
            with torch.no_grad():
                empty = backbone.denoise(latents, timestep, tuned[-1]).output
                latents = noise_schedule.step(latents, empty + guidance * (conditional - empty), index)
        return Trajectory(noise_schedule, stored[0], text, tuple(tuned), None, guidance)


@dataclass(frozen=True)
class NegativePrompt:
    """Use the conditional embedding in place of the unconditional one; nothing is tuned.

    Miyake et al., "Negative-prompt inversion" (WACV 2025).
    """

    __pydantic_config__ = STRICT
    guided: ClassVar[bool] = True

    def __call__(
        self,
        backbone: Backbone,
        noise_schedule: NoiseSchedule,
        stored: Sequence[Float[Tensor, "batch channels rows columns"]],
        text: Conditioning,
        unconditional: Conditioning,
        guidance: float,
    ) -> Trajectory:
        return Trajectory(noise_schedule, stored[0], text, (text,) * len(noise_schedule), None, guidance)


@dataclass(frozen=True)
class Offset:
    """Add to each step the constant by which it misses the stored latent; the clean path is then
    exact.

    Ju et al., "Direct inversion" (ICLR 2024), with one pass per step.
    """

    __pydantic_config__ = STRICT
    guided: ClassVar[bool] = False

    def __call__(
        self,
        backbone: Backbone,
        noise_schedule: NoiseSchedule,
        stored: Sequence[Float[Tensor, "batch channels rows columns"]],
        text: Conditioning,
        unconditional: Conditioning,
        guidance: float,
    ) -> Trajectory:
        plain = Trajectory(noise_schedule, stored[0], text, (unconditional,) * len(noise_schedule), None, guidance)
        return replace(plain, offsets=retraced(backbone, plain, stored).offsets)
