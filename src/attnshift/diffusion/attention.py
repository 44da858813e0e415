"""Attention sites of a denoiser, and the recorder of their attention probabilities.

Only maps that are asked for, and only at the rows of the batch that are asked for, are
materialised; everything else keeps the fused kernel. So do sites that are read as queries and keys.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from jaxtyping import Float
from torch import Tensor, nn

from attnshift.attention.projections import projections
from attnshift.diffusion.backbone import Read
from attnshift.sizes import Size
from attnshift.types import Kind, Place, Site

__all__ = ["attention_sites", "record_attention"]

_LAYER = re.compile(r"^(?P<place>down_blocks|mid_block|up_blocks)(?:\.(?P<block>\d+))?\..*\.attn(?P<which>[12])$")
_PLACES: dict[str, Place] = {"down_blocks": "down", "mid_block": "mid", "up_blocks": "up"}


def attention_sites(unet: UNet2DConditionModel, latents: Size) -> tuple[Site, ...]:
    """All attention sites of ``unet`` for ``latents`` of this size, in the order of its modules.

    Those of cross-attention are read as queries and keys: terms need a phrase's columns alone.
    """
    levels = len(unet.config["block_out_channels"])
    sites = []
    for layer, module in unet.named_modules():
        found = _LAYER.match(layer)
        if not found or not isinstance(module, Attention):
            continue
        place = _PLACES[found["place"]]
        level = {"down": int(found["block"] or 0), "mid": levels - 1, "up": levels - 1 - int(found["block"] or 0)}[
            place
        ]
        kind: Kind = "cross" if found["which"] == "2" else "self"
        site = Site(layer, kind, place, latents.shrunk(2**level), module.heads)
        sites.append(site.projected() if kind == "cross" else site)
    return tuple(sites)


@contextmanager
def record_attention(
    denoiser: nn.Module, reads: Sequence[Read], recorder: Callable[..., Any] | None = None
) -> Iterator[dict[Site, Tensor]]:
    """Collect the attention probabilities that ``reads`` asks for in the forward passes inside.

    Yields a dictionary by site, which each forward pass fills again, [rows, heads, queries, keys].
    Of a site in the form "projections", [rows, heads, queries + keys, width]; in the view "probe",
    which is always read in this form, the phrase's keys stand behind the prompt's. ``recorder`` is
    the processor that reads, by default that of a U-Net. A pass that runs twice (a checkpointed
    one, in backward) overwrites instead of appending. On leaving, also by an exception, the
    processors are the ones that were there.
    """
    recorded: dict[Site, Tensor] = {}
    layers: dict[str, list[Read]] = defaultdict(list)
    for read in reads:
        layers[read.site.layer].append(read)
    replaced = []
    try:
        for layer, wanted in layers.items():
            module: Any = denoiser.get_submodule(layer)
            if not hasattr(module, "processor"):
                raise TypeError(f"{layer} is a {type(module).__name__}, not an attention module")
            replaced.append((module, module.processor))
            module.processor = (recorder or _Recorder)(layer, wanted, recorded)
        yield recorded
    finally:
        for module, processor in replaced:
            module.processor = processor


class _Recorder:
    """Attention processor that computes the rows it reads in the open, and all others with the
    fused kernel.

    Projections only measure: the output is the one that it would be without them, to the bit.
    """

    def __init__(self, layer: str, reads: Sequence[Read], recorded: dict[Site, Tensor]):
        self.layer, self.recorded = layer, recorded
        self.projections = [read for read in reads if read.site.form == "projections"]
        maps = (read for read in reads if read.site.form == "map")
        self.reads = sorted(maps, key=lambda read: read.rows.start or 0)

    def __call__(
        self,
        attention: Attention,
        hidden_states: Float[Tensor, "batch ..."],
        encoder_hidden_states: Float[Tensor, "batch tokens width"] | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Float[Tensor, "batch ..."]:
        if attention_mask is not None or hidden_states.ndim != 3:
            raise NotImplementedError(f"{self.layer}: masked or spatial attention cannot be recorded")
        assert attention.to_k is not None
        assert attention.to_v is not None
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        queries, keys, values = (
            _by_head(attention, projection(source))
            for projection, source in (
                (attention.to_q, hidden_states),
                (attention.to_k, context),
                (attention.to_v, context),
            )
        )
        if self.projections and attention.scale != queries.shape[3] ** -0.5:
            raise NotImplementedError(f"{self.layer}: figures of rows scale scores by the root of the width")
        for read in self.projections:
            further = []
            if read.probe is not None:
                further = [_by_head(attention, attention.to_k(read.probe.states.to(keys.dtype)))]
            self.recorded[read.site] = projections(queries[read.rows], keys[read.rows], *further)
        mixed, done = [], 0
        for read in self.reads:
            start, stop, _ = read.rows.indices(len(queries))
            if start > done:
                mixed.append(_fused(attention, queries[done:start], keys[done:start], values[done:start]))
            probabilities = _scores(attention, queries[start:stop], keys[start:stop]).softmax(-1)
            self.recorded[read.site] = probabilities
            mixed.append(torch.matmul(probabilities.to(values.dtype), values[start:stop]))
            done = stop
        if done < len(queries):
            mixed.append(_fused(attention, queries[done:], keys[done:], values[done:]))
        output = torch.cat(mixed).transpose(1, 2).flatten(2)
        output = attention.to_out[1](attention.to_out[0](output))  # type: ignore[index]
        return output / attention.rescale_output_factor


def _by_head(
    attention: Attention, projected: Float[Tensor, "batch positions _"]
) -> Float[Tensor, "batch heads positions width"]:
    return projected.unflatten(2, (attention.heads, -1)).transpose(1, 2)


def _scores(
    attention: Attention,
    queries: Float[Tensor, "batch heads queries width"],
    keys: Float[Tensor, "batch heads keys width"],
) -> Float[Tensor, "batch heads queries keys"]:
    return torch.matmul(queries * attention.scale, keys.transpose(2, 3)).float()


def _fused(
    attention: Attention,
    queries: Float[Tensor, "batch heads queries width"],
    keys: Float[Tensor, "batch heads keys width"],
    values: Float[Tensor, "batch heads keys width"],
) -> Float[Tensor, "batch heads queries width"]:
    return torch.nn.functional.scaled_dot_product_attention(queries, keys, values, scale=attention.scale)
