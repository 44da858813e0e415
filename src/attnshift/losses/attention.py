"""Terms on cross-attention, the attention that positions pay to the words of the prompt.

A phrase's *token maps* a_j are the attention that each position pays to its token j; its *phrase
map* a_c is their sum.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from attnshift.attention.maps import (
    grid_weights,
    phrase_map,
    relative_entropy,
    resized,
    shares_over_positions,
    site_maps,
    token_maps,
)
from attnshift.attention.selection import Selection
from attnshift.losses.objective import TermState
from attnshift.randomness import generator
from attnshift.registry import STRICT
from attnshift.sizes import Size, size_of
from attnshift.types import AttentionMaps, AttentionView, Observation, Site, TokenSpan

__all__ = ["Contrast", "Entropy", "Replace", "Variance"]

_EPS = 1e-8


@dataclass(frozen=True)
class Variance:
    """Variance of the true class's token maps over positions and tokens; lowering it flattens the
    attention.

    The baseline's term (Chen et al., DiffAttack, TPAMI 2024), with the unbiased estimate that its
    code uses.
    """

    __pydantic_config__ = STRICT
    reads_interference: ClassVar[bool] = False
    reads_mask: ClassVar[bool] = False
    select: Selection = field(default_factory=Selection)

    def sites(self, available: Iterable[Site], latents: Size) -> tuple[Site, ...]:
        return self.select.sites(available, "cross", latents)

    def __call__(self, observation: Observation) -> Float[Tensor, "batch"]:
        branch = observation.adversarial
        sites = self.sites(branch.attention, size_of(branch.latents))
        maps = (
            token_maps(branch.attention, sites, self.select, span, image)
            for image, span in enumerate(observation.tokens)
        )
        return torch.stack([each.var() for each in maps])


@dataclass(frozen=True)
class Entropy:
    """1 - H of the true class's token maps, H their mean entropy over positions, relative to the
    highest possible.

    In [0,1]; lowering it spreads the attention over the picture, also off the object, so no mask
    weights it. ``order`` takes the mean over sites, heads and steps before the entropy or after it.
    ``dropout`` is the probability that a head is left out, per image, site and iteration, the same
    for all steps; one head always stays. ``smoothing``: ``ema`` takes the entropy of a mean in
    which the maps of the iterations before weigh ``strength`` (constants; the gradient goes through
    the newest map); ``tv`` adds ``strength`` times the mean total variation between successive
    denoising steps, itself in [0,1]. ``temperature`` T takes the entropy of maps to the power 1/T:
    a map with all of its mass on one position has next to no gradient at 1, and one above.
    """

    __pydantic_config__ = STRICT
    reads_interference: ClassVar[bool] = False
    reads_mask: ClassVar[bool] = False
    stateful: ClassVar[bool] = True
    acts_with: ClassVar[Mapping[str, tuple[str, ...]]] = {"strength": ("smoothing", "ema", "tv")}
    order: Literal["mean_then_entropy", "per_head"] = "mean_then_entropy"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    smoothing: Literal["none", "ema", "tv"] = "none"
    strength: Annotated[float, Field(ge=0, lt=1)] = 0.5
    temperature: Annotated[float, Field(ge=1, le=100)] = 1.0
    select: Selection = field(default_factory=Selection)

    def sites(self, available: Iterable[Site], latents: Size) -> tuple[Site, ...]:
        return self.select.sites(available, "cross", latents)

    def __call__(
        self, observation: Observation, state: TermState | None
    ) -> tuple[Float[Tensor, "batch"], TermState | None]:
        """The state of an image is its smoothed maps, in one row; there is none without ``ema``."""
        values, smoothed = [], []
        for image in range(len(observation.tokens)):
            maps = self._maps(observation, state, image)
            values.append(self._value(observation, image, maps))
            smoothed.append(torch.cat([each.detach().flatten() for each in maps.values()]))
        return torch.stack(values), tuple(smoothed) if self.smoothing == "ema" else None

    def _value(self, observation: Observation, image: int, maps: Mapping[Site, Tensor]) -> Float[Tensor, ""]:
        kept = [self._kept(observation, site, image, each) for site, each in maps.items()]
        if self.order == "mean_then_entropy":
            grid = max(site.grid for site in maps)
            means = [resized(_over_heads(each, shares).mean(0), grid) for each, shares in kept]
            value = 1 - relative_entropy(torch.stack(means).mean(0), self.temperature).mean()
        else:
            per_site = [_over_heads(relative_entropy(each, self.temperature), shares).mean() for each, shares in kept]
            value = 1 - torch.stack(per_site).mean()
        if self.smoothing == "tv":
            value = value + self.strength * torch.stack([_variation(each, shares) for each, shares in kept]).mean()
        return value

    def _maps(
        self, observation: Observation, state: TermState | None, image: int
    ) -> dict[Site, Float[Tensor, "steps heads tokens rows columns"]]:
        """Each site's maps, smoothed over iterations if that is asked for."""
        branch, span = observation.adversarial, observation.tokens[image]
        sites = self.sites(branch.attention, size_of(branch.latents))
        maps = {site: site_maps(branch.attention, site, self.select, span, image) for site in sites}
        if self.smoothing != "ema" or state is None:
            return maps
        past = state[image].split([each.numel() for each in maps.values()])
        return {
            site: torch.lerp(each, old.view_as(each), self.strength)
            for (site, each), old in zip(maps.items(), past, strict=True)
        }

    def _kept(
        self, observation: Observation, site: Site, image: int, maps: Float[Tensor, "steps heads tokens rows columns"]
    ) -> tuple[Float[Tensor, "steps kept tokens rows columns"], Float[Tensor, "kept"]]:
        """The heads that stay, and their shares in a mean. They are chosen on the host."""
        shares = self.select.head_weights(torch.empty(site.heads), 0)
        if self.dropout:
            key = observation.key
            draw = generator(key.seed, key.ids[image], key.iteration, "head dropout", site.layer)
            # The head with the largest draw stays in any case.
            draws_of_heads = torch.from_numpy(draw.random(site.heads)).to(shares).where(shares > 0, -1.0)
            stay = (draws_of_heads >= self.dropout) | (draws_of_heads == draws_of_heads.max())
            shares = shares * stay
        at = [head for head, share in enumerate(shares.tolist()) if share]
        return maps[:, at], (shares[at] / shares.sum()).to(maps)


def _over_heads(
    values: Float[Tensor, "steps heads *rest"], shares: Float[Tensor, "heads"]
) -> Float[Tensor, "steps *rest"]:
    """Mean over the heads, which count by their ``shares``."""
    return torch.einsum("sh...,h->s...", values, shares)


def _variation(
    maps: Float[Tensor, "steps heads tokens rows columns"], shares: Float[Tensor, "heads"]
) -> Float[Tensor, ""]:
    """Mean total variation distance between successive steps of maps, in [0,1]."""
    if len(maps) < 2:
        return maps.sum() * 0
    return _over_heads(shares_over_positions(maps).diff(dim=0).abs().sum((-2, -1)), shares).mean() / 2


@dataclass(frozen=True)
class Contrast:
    """Excess of the true class's attention m_true over the interference phrase's m_int.

    A mass m is the mean of a phrase map over positions, weighted by the mask. ``form``: ``share``:
    relu(delta + (m_true - m_int) / (m_true + m_int)), free of the scale that token masses have in a
    model; ``raw``: relu(delta + m_true - m_int); ``log``: softplus(delta + log m_true - log m_int).

    ``tokens`` says where m_int comes from. ``probe``: the running pass's queries also meet the
    interference phrase's keys, in one softmax, without a further pass. ``joint``: the prompt names
    both. ``separate``: one more branch under the interference prompt. After Hertz et al.,
    Prompt-to-Prompt (ICLR 2023); the margin is ours.
    """

    __pydantic_config__ = STRICT
    reads_interference: ClassVar[bool] = True
    reads_mask: ClassVar[bool] = True
    form: Literal["share", "raw", "log"] = "share"
    delta: float = 0.2
    """Margin by which the interference phrase shall win."""
    tokens: Literal["probe", "joint", "separate"] = "probe"
    select: Selection = field(default_factory=Selection)

    def sites(self, available: Iterable[Site], latents: Size) -> tuple[Site, ...]:
        chosen = self.select.sites(available, "cross", latents)
        views: dict[str, tuple[AttentionView, ...]] = {
            "probe": ("probe",), "joint": ("prompt",), "separate": ("prompt", "separate"),
        }  # fmt: skip
        return tuple(site.seen(view) for view in views[self.tokens] for site in chosen)

    def __call__(self, observation: Observation) -> Float[Tensor, "batch"]:
        assert observation.interference is not None
        values = []
        for image, span in enumerate(observation.tokens):
            true, other = (self._mass(observation, *each, image) for each in self._phrases(observation, span, image))
            values.append(self._excess(true, other))
        return torch.stack(values)

    def _phrases(self, observation: Observation, span: TokenSpan, image: int) -> list[tuple[AttentionView, TokenSpan]]:
        """The views of the true phrase and of the interference phrase, and their token positions
        there."""
        interference = observation.interference
        assert interference is not None
        if self.tokens == "probe":
            return [("probe", span), ("probe", interference.probed[image])]
        if self.tokens == "separate":
            return [("prompt", span), ("separate", interference.tokens[image])]
        assert interference.joint is not None
        return [("prompt", span), ("prompt", interference.joint[image])]

    def _mass(self, observation: Observation, view: AttentionView, span: TokenSpan, image: int) -> Float[Tensor, ""]:
        branch = observation.adversarial
        sites = _chosen(self.select, branch.attention, size_of(branch.latents), view)
        keys = observation.interference.keys(image) if view == "probe" and observation.interference else None
        attended = phrase_map(branch.attention, sites, self.select, span, image, keys)
        weights = grid_weights(observation, image, size_of(attended))
        return (weights * attended).sum() / weights.sum()

    def _excess(self, true: Float[Tensor, ""], other: Float[Tensor, ""]) -> Float[Tensor, ""]:
        if self.form == "log":
            ratio = (true + _EPS).log() - (other + _EPS).log()
            return torch.nn.functional.softplus(self.delta + ratio)
        difference = true - other
        if self.form == "share":
            difference = difference / (true + other + _EPS)
        return torch.relu(self.delta + difference)


@dataclass(frozen=True)
class Replace:
    """Distance of the true phrase's attention T to R, the interference phrase's attention on the
    clean path.

    R is read once, under the interference prompt on the stored inversion latents, and constant.
    ``form``: ``shape``: sum |T - R|^p of phrase maps that sum to 1 (with p = 1 in [0,2]); ``mass``:
    |T - R|_p / |R|_p of phrase maps as they are; ``aligned``: as ``shape``, but token by token
    through Prompt-to-Prompt's word alignment, at each site by itself. The mask weights all of them.
    After Hertz et al., Prompt-to-Prompt (ICLR 2023), sections 3.2 and 3.3, as a loss.
    """

    __pydantic_config__ = STRICT
    reads_interference: ClassVar[bool] = True
    reads_mask: ClassVar[bool] = True
    form: Literal["shape", "mass", "aligned"] = "shape"
    p: Literal[1, 2] = 1
    """Power of the distance."""
    select: Selection = field(default_factory=Selection)

    def sites(self, available: Iterable[Site], latents: Size) -> tuple[Site, ...]:
        chosen = self.select.sites(available, "cross", latents)
        return (*chosen, *(site.seen("reference") for site in chosen))

    def __call__(self, observation: Observation) -> Float[Tensor, "batch"]:
        return torch.stack([self._distance(observation, image) for image in range(len(observation.tokens))])

    def _distance(self, observation: Observation, image: int) -> Float[Tensor, ""]:
        interference, branch = observation.interference, observation.adversarial
        assert interference is not None
        sites = self.select.sites(branch.attention, "cross", size_of(branch.latents))
        groups = [[site] for site in sites] if self.form == "aligned" else [sites]
        distances = []
        for group in groups:
            seen = [site.seen("reference") for site in group]
            running = token_maps(branch.attention, group, self.select, observation.tokens[image], image)
            wanted = token_maps(interference.attention, seen, self.select, interference.tokens[image], image)
            weights = grid_weights(observation, image, size_of(running))
            if self.form == "mass":
                distances.append(self._relative(weights * running.sum(0), weights * wanted.sum(0)))
                continue
            if self.form == "aligned":
                wanted = torch.einsum("ti,ixy->txy", interference.alignment[image].to(wanted), wanted)
            else:
                running, wanted = running.sum(0, keepdim=True), wanted.sum(0, keepdim=True)
            gap = (shares_over_positions(running) - shares_over_positions(wanted)).abs() ** self.p
            distances.append((weights * gap).sum((-2, -1)).mean())
        return torch.stack(distances).mean()

    def _relative(
        self, running: Float[Tensor, "rows columns"], wanted: Float[Tensor, "rows columns"]
    ) -> Float[Tensor, ""]:
        gap, size = ((each.abs() ** self.p).sum() for each in (running - wanted, wanted))
        if self.p == 2:
            # The derivative of a root is infinite at 0; the shift makes it finite and keeps the
            # value 0 there.
            gap, size = (gap + _EPS**2).sqrt() - _EPS, size.sqrt()
        return gap / (size + _EPS)


def _chosen(select: Selection, attention: AttentionMaps, latents: Size, view: AttentionView) -> tuple[Site, ...]:
    offered = [replace(site, view="prompt") for site in attention if site.view == view]
    return tuple(site.seen(view) for site in select.sites(offered, "cross", latents))
