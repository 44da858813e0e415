"""From an image's latents to the trajectory that ends at them again: inversion, then
reconstruction."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from attnshift.attack.method import Method
from attnshift.diffusion.backbone import Backbone
from attnshift.diffusion.conditioning import Conditioning, restored, tensors_of
from attnshift.diffusion.denoising import Trajectory
from attnshift.sizes import Size

__all__ = ["Inversions", "clean_path", "compute_uncached"]

Inversions = Callable[[Mapping[str, Tensor], Sequence[object], Callable[[], dict[str, Tensor]]], dict[str, Tensor]]
"""(inputs, facts, computation) -> its tensors.

Inputs, facts, weights and machine decide the tensors, so an implementation may keep them in a
cache.
"""


def compute_uncached(
    inputs: Mapping[str, Tensor], facts: Sequence[object], compute: Callable[[], dict[str, Tensor]]
) -> dict[str, Tensor]:
    """Compute every time."""
    return compute()


def clean_path(
    method: Method,
    backbone: Backbone,
    size: Size,
    latents: Tensor,
    text: Conditioning,
    empty: Conditioning,
    inversions: Inversions = compute_uncached,
) -> tuple[tuple[Tensor, ...], Trajectory]:
    """The latents that ``invert`` stores, and the trajectory that reconstruction makes of them.

    ``latents`` [batch,channels,rows,columns] of images of ``size``; ``text`` are the prompts
    and ``empty`` the empty one for each image.
    """
    diffusion = method.recipe.diffusion
    noise_schedule = backbone.noise_schedule(diffusion.schedule_steps, diffusion.denoising_steps, size)

    def compute() -> dict[str, Tensor]:
        stored = method.invert(backbone, noise_schedule, latents, empty, diffusion.pairing, diffusion.inversion_rounds)
        with torch.enable_grad():
            made = method.reconstruction(backbone, noise_schedule, stored, text, empty, diffusion.guidance)
        tensors = _numbered("stored", stored) | _numbered("offset", made.offsets or ())
        # Most reconstructions use one embedding for all steps.
        changes = [at for at, each in enumerate(made.unconditional) if not at or each is not made.unconditional[at - 1]]
        for at in changes:
            tensors |= tensors_of(made.unconditional[at], f"unconditional.{at}")
        return tensors

    facts = (
        noise_schedule,
        diffusion.pairing,
        diffusion.inversion_rounds,
        diffusion.guidance,
        method.recipe.reconstruction,
    )
    inputs = {"latents": latents} | tensors_of(text, "text") | tensors_of(empty, "empty")
    tensors = inversions(inputs, facts, compute)
    stored = tuple(tensors[f"stored.{at}"] for at in range(len(noise_schedule) + 1))
    offsets = tuple(tensors[f"offset.{at}"] for at in range(len(noise_schedule))) if "offset.0" in tensors else None
    unconditional: list[Conditioning] = []
    for at in range(len(noise_schedule)):
        unconditional.append(restored(tensors, f"unconditional.{at}", unconditional[-1] if at else empty))
    return stored, Trajectory(noise_schedule, stored[0], text, tuple(unconditional), offsets, diffusion.guidance)


def _numbered(name: str, tensors: Sequence[Tensor]) -> dict[str, Tensor]:
    return {f"{name}.{at}": each for at, each in enumerate(tensors)}
