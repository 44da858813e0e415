"""Observations made of random attention maps, for tests of terms without a denoiser."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from attnshift.types import Branch, Observation, Site, TokenSpan

LATENT_SIDE, KEYS, HEADS, STEPS = 8, 6, 2, 2
TOKENS: tuple[TokenSpan, ...] = ((1,), (2, 3), (1, 4, 5))
SITES: tuple[Site, ...] = tuple(
    Site(f"{place}.{side}.{kind}", kind, place, side)
    for place, side in (("down", 8), ("down", 4), ("down", 2), ("mid", 1), ("up", 2), ("up", 4), ("up", 8))
    for kind in ("cross", "self")
)

Fill = Callable[[Site, Tensor], Tensor]
"""From a site and random scores [batch,heads,queries,keys] to its attention maps."""


def softmax(site: Site, scores: Tensor) -> Tensor:
    return scores.softmax(-1)


def uniform(site: Site, scores: Tensor) -> Tensor:
    return torch.full_like(scores, 1 / scores.shape[-1])


def one_hot(site: Site, scores: Tensor) -> Tensor:
    """All mass on one key: on the true class's first token, or on the first position."""
    maps = torch.zeros_like(scores)
    for image, span in enumerate(TOKENS[: len(scores)]):
        maps[image, :, :, span[0] if site.kind == "cross" else 0] = 1
    return maps


def scores(seed: int, batch: int = 3, dtype: torch.dtype = torch.float32) -> dict[Site, list[Tensor]]:
    """Random attention scores; those of an image are the same in every batch that holds it."""
    draws = [torch.Generator().manual_seed(1000 * seed + image) for image in range(batch)]
    return {
        site: [
            torch.stack([torch.randn(HEADS, site.side**2, _keys(site), generator=draw) for draw in draws]).to(dtype)
            for _ in range(STEPS)
        ]
        for site in SITES
    }


def branch(seed: int, fill: Fill = softmax, dtype: torch.dtype = torch.float32) -> Branch:
    draw = torch.Generator().manual_seed(seed)
    maps = {site: tuple(fill(site, each).to(dtype) for each in steps) for site, steps in scores(seed).items()}
    latents = torch.randn(3, 4, LATENT_SIDE, LATENT_SIDE, generator=draw)
    return Branch(latents.to(dtype), torch.rand(3, 3, 64, 64, generator=draw).to(dtype), maps)


def observation(
    fill: Fill = softmax, clean: Fill = softmax, dtype: torch.dtype = torch.float32, progress: float = 0.5
) -> Observation:
    """Three images with one, two and three tokens, at every site of a denoiser for 64 px."""
    return Observation(branch(0, clean, dtype), branch(1, fill, dtype), TOKENS, torch.tensor([0, 1, 2]), progress)


def with_maps(observed: Observation, maps: dict[Site, Sequence[Tensor]]) -> Observation:
    """The same observation with other maps of the attacked branch."""
    seen = observed.adversarial
    attacked = Branch(seen.latents, seen.images, {site: tuple(steps) for site, steps in maps.items()})
    return Observation(observed.clean, attacked, observed.tokens, observed.labels, observed.progress)


def only(observed: Observation, image: int) -> Observation:
    """The same observation without the other images."""
    keep = slice(image, image + 1)

    def cut(whole: Branch) -> Branch:
        maps = {site: tuple(each[keep] for each in steps) for site, steps in whole.attention.items()}
        return Branch(whole.latents[keep], whole.images[keep], maps)

    return Observation(
        cut(observed.clean), cut(observed.adversarial), observed.tokens[keep], observed.labels[keep], observed.progress
    )


def _keys(site: Site) -> int:
    return KEYS if site.kind == "cross" else site.side**2
