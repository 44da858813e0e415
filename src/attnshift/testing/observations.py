"""Observations made of random attention maps, for tests of terms without a denoiser."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from attnshift.batching import select_rows
from attnshift.sizes import Size
from attnshift.types import Branch, Interference, Kind, Observation, Place, RandomKey, Site, TokenSpan

LATENTS = Size.of(8)
KEYS, HEADS, WIDTH, STEPS = 6, 2, 4, 2
TOKENS: tuple[TokenSpan, ...] = ((1,), (2, 3), (1, 4, 5))
OTHERS: tuple[TokenSpan, ...] = ((1, 2, 3), (4,), (2, 3))
"""Where the interference phrases stand in their own prompts: 3 tokens against 1,
1 against 2, 2 against 3."""
_GRIDS: tuple[tuple[Place, int], ...] = (
    ("down", 8), ("down", 4), ("down", 2), ("mid", 1), ("up", 2), ("up", 4), ("up", 8),
)  # fmt: skip
_KINDS: tuple[Kind, ...] = ("cross", "self")
SITES: tuple[Site, ...] = tuple(
    Site(f"{place}.{side}.{kind}", kind, place, Size.of(side), HEADS) for place, side in _GRIDS for kind in _KINDS
)
SAMPLED_ROWS = 5
"""Queries of self-attention that are also there on their own, at sites that have more."""
RUNNING: tuple[Site, ...] = (
    *SITES, *(site.seen(view) for site in SITES if site.kind == "cross" for view in ("probe", "separate")),
    *(
        site.projected(rows) for site in SITES if site.kind == "self"
        for rows in (0, SAMPLED_ROWS) if rows < site.positions
    ),
)  # fmt: skip
"""Everything that a pass of the attack can read, cross-attention as maps."""
AS_READ: tuple[Site, ...] = tuple(site.projected() if site.kind == "cross" else site for site in RUNNING)
"""The same in the forms in which an attack reads it."""
REFERENCE: tuple[Site, ...] = tuple(site.seen("reference") for site in SITES if site.kind == "cross")

Fill = Callable[[Site, Tensor], Tensor]
"""From a site and what ``scores`` draws for it to what a branch holds of it."""


def softmax(site: Site, scores: Tensor) -> Tensor:
    return scores.softmax(-1) if site.form == "map" else scores


def uniform(site: Site, scores: Tensor) -> Tensor:
    return torch.full_like(scores, 1 / scores.shape[-1]) if site.form == "map" else torch.zeros_like(scores)


def nothing(site: Site, scores: Tensor) -> Tensor:
    """No mass on any phrase, which a softmax in half precision can come close to."""
    if site.form == "projections":
        return _on_one_key(site, scores, [0] * len(scores))
    return torch.zeros_like(scores)


def one_hot(site: Site, scores: Tensor) -> Tensor:
    """All mass on one key: on the true class's first token, or on the first position."""
    return _on_one_key(site, scores, [span[0] if site.kind == "cross" else 0 for span in TOKENS[: len(scores)]])


def _on_one_key(site: Site, scores: Tensor, keys: Sequence[int]) -> Tensor:
    """All mass of each image on one of its ``keys``."""
    held = torch.zeros_like(scores)
    for image, key in enumerate(keys):
        if site.form == "map":
            held[image, :, :, key] = 1
        else:
            held[image, :, : _queries(site), 0] = held[image, :, _queries(site) + key, 0] = 100
    return held


def scores(seed: int, sites: Sequence[Site] = RUNNING, dtype: torch.dtype = torch.float32) -> dict[Site, list[Tensor]]:
    """Random attention scores of three images, or queries and keys where a site is read as such;
    those of an image are the same in every batch that holds it."""
    draws = [torch.Generator().manual_seed(1000 * seed + image) for image in range(3)]
    return {
        site: [
            torch.stack([torch.randn(HEADS, *_shape(site), generator=draw) for draw in draws]).to(dtype)
            for _ in range(STEPS)
        ]
        for site in sites
    }


def maps(seed: int, sites: Sequence[Site], fill: Fill, dtype: torch.dtype) -> dict[Site, tuple[Tensor, ...]]:
    return {site: tuple(fill(site, each).to(dtype) for each in steps) for site, steps in scores(seed, sites).items()}


def branch(
    seed: int, fill: Fill = softmax, dtype: torch.dtype = torch.float32, sites: Sequence[Site] = RUNNING
) -> Branch:
    draw = torch.Generator().manual_seed(seed)
    latents = torch.randn(3, 4, *LATENTS, generator=draw)
    return Branch(latents.to(dtype), torch.rand(3, 3, 64, 64, generator=draw).to(dtype), maps(seed, sites, fill, dtype))


def interference(
    fill: Fill = softmax, dtype: torch.dtype = torch.float32, sites: Sequence[Site] = RUNNING
) -> Interference:
    alignment = tuple(
        torch.full((len(true), len(other)), 1 / len(other)) for true, other in zip(TOKENS, OTHERS, strict=True)
    )
    probed = tuple(tuple(range(KEYS, KEYS + len(other))) for other in OTHERS)
    reference = [site.seen("reference") for site in sites if site.kind == "cross" and site.view == "prompt"]
    return Interference(
        ("a long name", "plain", "two words"), OTHERS, probed, ((2, 3), (4, 5), (3,)), alignment,
        maps(2, reference, fill, dtype),
    )  # fmt: skip


def observation(
    fill: Fill = softmax,
    clean: Fill = softmax,
    dtype: torch.dtype = torch.float32,
    progress: float = 0.5,
    sites: Sequence[Site] = RUNNING,
) -> Observation:
    """Three images with one, two and three tokens, at every site of a denoiser for 64 px."""
    weights = torch.full((3, 1, 64, 64), 0.1)
    weights[:, :, 16:48, 16:48] = 1.0
    return Observation(
        images=torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(5)).to(dtype),
        clean=branch(0, clean, dtype, sites),
        adversarial=branch(1, fill, dtype, sites),
        tokens=TOKENS,
        progress=progress,
        key=RandomKey(0, ("first", "second", "third"), 7),
        weights=weights,
        interference=interference(clean, dtype, sites),
    )


def with_maps(observed: Observation, maps: Mapping[Site, Sequence[Tensor]]) -> Observation:
    """The same observation with other maps of the attacked branch."""
    attention = {site: tuple(steps) for site, steps in maps.items()}
    return replace(observed, adversarial=replace(observed.adversarial, attention=attention))


def with_images(observed: Observation, images: Tensor) -> Observation:
    """The same observation with another attacked image."""
    return replace(observed, adversarial=replace(observed.adversarial, images=images))


def only(observed: Observation, image: int) -> Observation:
    """The same observation without the other images."""
    return select_rows(observed, torch.tensor([image]))


def _shape(site: Site) -> tuple[int, int]:
    if site.form == "projections":
        return _queries(site) + _keys(site), WIDTH
    return _queries(site), _keys(site)


def _queries(site: Site) -> int:
    return site.sample or site.positions


def _keys(site: Site) -> int:
    if site.kind == "self":
        return site.positions
    return KEYS + max(map(len, OTHERS)) if site.view == "probe" else KEYS
