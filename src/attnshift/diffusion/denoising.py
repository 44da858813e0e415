"""The guided denoising steps that an attack differentiates: from a latent at the start level to one
at the last."""

from __future__ import annotations

from collections.abc import Collection

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from attnshift.batching import batch_record, concatenated, constant, per_image
from attnshift.diffusion.backbone import Backbone, Probe, Read
from attnshift.diffusion.conditioning import Conditioning
from attnshift.diffusion.noise_schedule import NoiseSchedule
from attnshift.types import AttentionMaps, Site

__all__ = ["InterferenceText", "Trajectory", "denoise", "guided_prediction"]


@batch_record
class InterferenceText:
    """The interference prompt, and its phrase alone as a probe."""

    text: Conditioning = per_image()
    phrase: Probe = per_image()


@batch_record
class Trajectory:
    """All that denoising needs of an image: the start, the text, and the correction of its clean
    path.

    Each of ``offsets`` is added after its step. ``guidance`` 1 is the conditional prediction alone.
    """

    noise_schedule: NoiseSchedule = constant()
    start: Float[Tensor, "batch channels rows columns"] = per_image()
    text: Conditioning = per_image()
    unconditional: tuple[Conditioning, ...] = per_image(depth=1)
    offsets: tuple[Float[Tensor, "batch channels rows columns"], ...] | None = per_image(depth=1)
    guidance: float = constant()
    interference: InterferenceText | None = per_image(default=None)


def denoise(
    backbone: Backbone,
    trajectory: Trajectory,
    latents: Float[Tensor, "batch channels rows columns"],
    sites: Collection[Site] = (),
    checkpointing: bool = False,
    gradient_steps: int = 0,
) -> tuple[Float[Tensor, "batch channels rows columns"], AttentionMaps]:
    """Take ``latents`` through all denoising steps and read the attention of ``sites``, each in its
    view.

    With ``checkpointing`` a step keeps only its input and is run again in backward; its maps are
    outputs of the step, so that their gradient survives.

    The gradient goes back through the last ``gradient_steps`` steps, 0: through all. Those before
    are computed without autograd and their Jacobian counts as the identity, a straight-through
    estimator (Bengio et al. 2013): values are the same to the bit, what enters the first
    differentiated step passes its gradient on to ``latents``, and maps of the steps before have
    none.
    """
    order = tuple(sites)
    read: list[tuple[Tensor, ...]] = []

    def step(latents: Float[Tensor, "batch channels rows columns"], index: int) -> tuple[Float[Tensor, "..."], ...]:
        prediction, maps = guided_prediction(backbone, trajectory, latents, index, order)
        moved = trajectory.noise_schedule.step(latents, prediction, index)
        if trajectory.offsets is not None:
            moved = moved + trajectory.offsets[index]
        return moved, *maps

    start, constant = latents, len(trajectory.noise_schedule) - gradient_steps if gradient_steps else 0
    for index in range(len(trajectory.noise_schedule)):
        if index < constant:
            with torch.no_grad():
                latents, *maps = step(latents, index)
            if index + 1 == constant:
                latents = latents + (start - start.detach())
        elif checkpointing and latents.requires_grad:
            latents, *maps = checkpoint(step, latents, index, use_reentrant=False)
        else:
            latents, *maps = step(latents, index)
        read.append(tuple(maps))
    return latents, {site: tuple(maps[at] for maps in read) for at, site in enumerate(order)}


def guided_prediction(
    backbone: Backbone,
    trajectory: Trajectory,
    latents: Float[Tensor, "batch channels rows columns"],
    index: int,
    sites: tuple[Site, ...] = (),
) -> tuple[Float[Tensor, "batch channels rows columns"], tuple[Tensor, ...]]:
    """Prediction of step ``index`` under classifier-free guidance (Ho and Salimans 2022), and
    its maps.

    The batch of the pass is the unconditional part (none where the guidance is 1), the conditional
    one, and the one under the interference prompt where a site's view is "separate"; the last only
    serves to read its attention.
    """
    count, interference = len(latents), trajectory.interference
    guided, separate = trajectory.guidance != 1, any(site.view == "separate" for site in sites)
    texts = [trajectory.unconditional[index]] * guided + [trajectory.text]
    own, apart = (slice(part * count, (part + 1) * count) for part in (guided, guided + 1))
    if separate:
        assert interference is not None
        texts.append(interference.text)
    reads = [
        Read(
            site,
            apart if site.view == "separate" else own,
            interference.phrase if interference is not None and site.view == "probe" else None,
        )
        for site in sites
    ]
    prediction = backbone.denoise(
        torch.cat([latents] * len(texts)), trajectory.noise_schedule.timesteps[index], concatenated(texts), reads
    )
    output = prediction.output[own]
    if guided:
        unconditional = prediction.output[:count]
        output = unconditional + trajectory.guidance * (output - unconditional)
    return output, tuple(prediction.attention[site] for site in sites)
