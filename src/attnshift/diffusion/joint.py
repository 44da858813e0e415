"""Joint attention of transformers (MM-DiT): image and text in one softmax, and its recorder.

Esser et al., "Scaling rectified flow transformers for high-resolution image synthesis" (ICML 2024),
figure 2. The image's tokens come first in SD3 and last in FLUX.1, whose single blocks get both as
one sequence; an image-only layer of SD3.5 has no text at all.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from diffusers.models.embeddings import apply_rotary_emb
from diffusers.models.transformers.transformer_flux import FluxAttention
from jaxtyping import Float
from torch import Tensor, nn

from attnshift.attention.projections import projections
from attnshift.diffusion.backbone import Read
from attnshift.sizes import Size
from attnshift.types import Place, Site

__all__ = ["JointRecorder", "joint_sites"]

_PLACES: tuple[Place, ...] = ("down", "mid", "up")


def joint_sites(blocks: Iterable[tuple[str, nn.Module]], grid: Size) -> tuple[Site, ...]:
    """All attention sites of the ``blocks`` of a transformer, named and in their order, on this
    ``grid``; their first, middle and last third are its places.

    Those of cross-attention are read as queries and keys: terms need a phrase's columns alone.
    """
    blocks = list(blocks)
    sites: list[Site] = []
    for depth, (name, block) in enumerate(blocks):
        place, heads = _PLACES[3 * depth // len(blocks)], block.attn.heads  # type: ignore[union-attr]
        joint = Site(f"{name}.attn", "cross", place, grid, int(heads), joint=True)  # type: ignore[arg-type]
        sites += [joint.projected(), Site(joint.layer, "self", place, grid, joint.heads, joint=True)]
        if getattr(block, "attn2", None) is not None:
            sites.append(Site(f"{name}.attn2", "self", place, grid, joint.heads))
    return tuple(sites)


class JointRecorder:
    """Attention processor that computes the image rows that it reads in the open, and all others
    with the fused kernel.

    Projections only measure: the output is the one that it would be without them.
    """

    def __init__(self, layer: str, reads: Sequence[Read], recorded: dict[Site, Tensor]):
        self.recorded = recorded
        self.measured = [read for read in reads if read.site.form == "projections"]
        self.whole: dict[tuple[int, int | None], list[Read]] = defaultdict(list)
        for read in reads:
            if read.site.form == "map":
                self.whole[read.rows.start or 0, read.rows.stop].append(read)
        self.image = reads[0].site.positions

    def __call__(
        self,
        attention: Any,
        hidden_states: Float[Tensor, "batch positions _"],
        encoder_hidden_states: Float[Tensor, "batch tokens _"] | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: Any = None,
    ) -> Any:
        if attention_mask is not None:
            raise NotImplementedError("masked attention cannot be recorded")
        parts = [_projected(attention, hidden_states, ("to_q", "to_k", "to_v"), ("norm_q", "norm_k"))]
        text_first = isinstance(attention, FluxAttention)
        if encoder_hidden_states is not None:
            text = _projected(
                attention,
                encoder_hidden_states,
                ("add_q_proj", "add_k_proj", "add_v_proj"),
                ("norm_added_q", "norm_added_k"),
            )
            parts.insert(0 if text_first else 1, text)
        queries, keys, values = (torch.cat(each, 2) for each in zip(*parts, strict=True))
        if image_rotary_emb is not None:
            queries, keys = _turned(queries, image_rotary_emb), _turned(keys, image_rotary_emb)
        tokens = queries.shape[2] - self.image
        image, words = slice(0, self.image), slice(self.image, None)
        if text_first:
            words, image = slice(0, tokens), slice(tokens, None)
        self._measure(queries, keys, image, words)
        mixed = self._mixed(queries, keys, values, image, words).transpose(1, 2).flatten(2)
        if encoder_hidden_states is None:
            return mixed if getattr(attention, "pre_only", False) else _out(attention, mixed)
        seen, told = mixed[:, image], mixed[:, words]
        return _out(attention, seen), told if attention.context_pre_only else attention.to_add_out(told)

    def _measure(self, queries: Tensor, keys: Tensor, image: slice, words: slice) -> None:
        """Record the image's queries, its keys, and behind them those of the text that are read."""
        for read in self.measured:
            own, ours = queries[read.rows][:, :, image], keys[read.rows]
            further = []
            if read.site.kind == "cross":
                further.append(ours[:, :, words])
            if read.probe is not None:
                assert read.apart is not None
                assert read.probe.tokens is not None
                told = keys[read.apart][:, :, words]
                at = read.probe.tokens[:, None, :, None].expand(-1, told.shape[1], -1, told.shape[3])
                further.append(told.gather(2, at))
            self.recorded[read.site] = projections(own, ours[:, :, image], *further)

    def _mixed(
        self, queries: Tensor, keys: Tensor, values: Tensor, image: slice, words: slice
    ) -> Float[Tensor, "batch heads positions width"]:
        """The values that every row takes; the maps of the rows that are read are recorded."""
        mixed, done = [], 0
        for (first, last), reads in sorted(self.whole.items(), key=lambda each: each[0][0]):
            start, stop, _ = slice(first, last).indices(len(queries))
            mixed.append(_fused(queries[done:start], keys[done:start], values[done:start]))
            scores = torch.matmul(queries[start:stop][:, :, image] * queries.shape[3] ** -0.5, keys[start:stop].mT)
            masses = scores.float().softmax(-1)
            for read in reads:
                self.recorded[read.site] = masses[..., words if read.site.kind == "cross" else image]
            seen = torch.matmul(masses.to(values.dtype), values[start:stop])
            told = _fused(queries[start:stop][:, :, words], keys[start:stop], values[start:stop])
            mixed.append(torch.cat([seen, told] if not image.start else [told, seen], 2))
            done = stop
        mixed.append(_fused(queries[done:], keys[done:], values[done:]))
        return torch.cat(mixed)


def _projected(
    attention: Any, states: Float[Tensor, "batch positions _"], layers: Sequence[str], norms: Sequence[str]
) -> list[Float[Tensor, "batch heads positions width"]]:
    """Queries, keys and values of one part of the sequence, by head; the first two are normed."""
    made = [getattr(attention, each)(states).unflatten(2, (attention.heads, -1)).transpose(1, 2) for each in layers]
    for at, norm in enumerate(norms):
        if getattr(attention, norm) is not None:
            made[at] = getattr(attention, norm)(made[at])
    return made


def _turned(values: Tensor, places: Any) -> Tensor:
    """Queries or keys by head, turned by their ``places`` (RoPE)."""
    turned = apply_rotary_emb(values, places)
    assert isinstance(turned, Tensor)
    return turned


def _fused(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    if not len(queries) or not queries.shape[2]:
        return queries
    return torch.nn.functional.scaled_dot_product_attention(queries, keys, values)


def _out(attention: Any, mixed: Tensor) -> Tensor:
    return attention.to_out[1](attention.to_out[0](mixed))
