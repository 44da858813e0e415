"""The contract of backbones, diffusion models."""

from __future__ import annotations

from collections.abc import Callable

import torch

from attnshift.diffusion.backbone import Backbone, Read
from attnshift.errors import ModelError
from attnshift.plugins import misfit
from attnshift.sizes import Size, size_of
from attnshift.testing.models import pictures
from attnshift.testing.requirements import require, require_close, require_finite, require_shape

__all__ = ["BACKBONE_CHECKS", "check_backbone"]

_PROMPTS = ("a photo of a mug", "a photo of a red ball")


def check_backbone(backbone: Backbone) -> None:
    """Hold a backbone to its contract, on two images of the size
    that it suggests. Large models take minutes."""
    lack = misfit(backbone, "attnshift.diffusion.backbone:Backbone")
    require(not lack, f"the backbone {lack}")
    for each in BACKBONE_CHECKS:
        each(backbone)


def sizes_are_checked(backbone: Backbone) -> None:
    backbone.check_size(backbone.suggested_size)
    backbone.check_size(_wide(backbone))
    try:
        backbone.check_size(-1)
    except ModelError:
        return
    raise AssertionError("check_size accepts a side of -1")


def _wide(backbone: Backbone) -> Size:
    """A size half as wide again as the suggested one, so that rows and columns are told apart."""
    side = backbone.suggested_size
    return backbone.nearest_size(Size(side, side + side // 2))


def images_become_latents_and_images_again(backbone: Backbone) -> None:
    """Both ways a gradient passes; with checkpointing the image is the same."""
    size = _wide(backbone)
    leaf = pictures(2, size).to(backbone.device).requires_grad_()
    latents = backbone.encode(leaf)
    require(latents.shape[0] == 2, f"two images become {latents.shape[0]} latents")
    require(size_of(latents) == backbone.latent_size(size), "latent_size is not that of encode")
    decoded = backbone.decode(latents)
    require_shape(decoded, (2, 3, *size), "the decoded image")
    require_finite(decoded, "the decoded image")
    (gradient,) = torch.autograd.grad(decoded.sum(), leaf)
    require((gradient.flatten(1).norm(dim=1) > 0).all(), "no gradient passes the autoencoder")
    with torch.no_grad():
        again = backbone.decode(latents, checkpointing=True)
        require_close(again, decoded.detach(), "checkpointing changes the image", atol=1e-4)


def texts_become_states(backbone: Backbone) -> None:
    """States, unit summaries, and tokens of a phrase that are there."""
    with torch.no_grad():
        backbone.release_texts()
        states = backbone.embed(_PROMPTS).states
        require(states.ndim == 3 and len(states) == 2, f"two prompts become states of shape {tuple(states.shape)}")
        summaries = backbone.summarise(_PROMPTS)
    require_close(summaries.norm(dim=1), torch.ones(2).to(summaries), "a summary is no unit vector", rtol=1e-3)
    spans = [backbone.locate(_PROMPTS[1], "red ball", stream=stream) for stream in backbone.streams]
    span = backbone.locate(_PROMPTS[1], "red ball")
    require(span == sum(spans, ()), "the span in all streams is not those in each, one after the other")
    require(span and all(0 < at < states.shape[1] for at in span), f"'red ball' stands at {span}, outside the prompt")
    try:
        backbone.locate(_PROMPTS[0], "red ball")
    except ModelError:
        return
    raise AssertionError("locate finds a phrase that is not in the prompt")


def noise_is_predicted_and_attention_is_read(backbone: Backbone) -> None:
    """Maps are probabilities, reading them does not change the prediction,
    and a gradient passes both."""
    size = _wide(backbone)
    schedule = backbone.noise_schedule(20, 5, size)
    timestep = schedule.timesteps[0]
    with torch.no_grad():
        latents, text = backbone.encode(pictures(2, size).to(backbone.device)), backbone.embed(_PROMPTS)
        plain = backbone.denoise(latents, timestep, text)
    require_shape(plain.output, tuple(latents.shape), "the prediction")
    sites = backbone.sites(size)
    require({site.kind for site in sites} == {"cross", "self"}, "sites holds no cross-attention or no self-attention")
    chosen = [
        min((site for site in sites if site.kind == kind), key=lambda site: site.positions).mapped()
        for kind in ("cross", "self")
    ]
    leaf = latents.clone().requires_grad_()
    read = backbone.denoise(leaf, timestep, text, [Read(site) for site in chosen])
    require_close(read.output.detach(), plain.output, "reading attention changes the prediction", rtol=1e-3, atol=1e-4)
    for site in chosen:
        maps = read.attention[site]
        keys = maps.shape[-1]
        require_shape(maps, (2, site.heads, site.positions, keys), f"the map of {site.layer}")
        ones = torch.ones(maps.shape[:-1]).to(maps)
        sums = maps.detach().sum(-1)
        if site.joint:
            require((sums <= 1.001).all() and (sums > 0).all(), f"the rows of {site.layer} do not lie in (0,1]")
        else:
            require_close(sums, ones, f"the rows of {site.layer} do not sum to 1", rtol=1e-3)
    total = read.output.sum() + sum(read.attention[site].square().sum() for site in chosen)
    (gradient,) = torch.autograd.grad(total, leaf)
    require_finite(gradient, "the gradient at the latents")
    require((gradient.flatten(1).norm(dim=1) > 0).all(), "no gradient passes the denoiser")


def it_has_a_fingerprint(backbone: Backbone) -> None:
    require(backbone.fingerprint() and backbone.fingerprint() == backbone.fingerprint(), "the fingerprint changes")


BACKBONE_CHECKS: tuple[Callable[[Backbone], None], ...] = (
    sizes_are_checked,
    images_become_latents_and_images_again,
    texts_become_states,
    noise_is_predicted_and_attention_is_read,
    it_has_a_fingerprint,
)
"""All that ``check_backbone`` tries."""
