"""Where a denoiser attends, and how its attention probabilities are read.

Only the sites that are asked for, and only the rows of the batch that are asked for, materialise their probabilities;
everything else keeps the fused kernel.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch import Tensor

from attnshift.types import Place, Site

__all__ = ["attention_sites", "record_attention"]

_LAYER = re.compile(r"^(?P<place>down_blocks|mid_block|up_blocks)(?:\.(?P<block>\d+))?\..*\.attn(?P<which>[12])$")
_PLACES: dict[str, Place] = {"down_blocks": "down", "mid_block": "mid", "up_blocks": "up"}


def attention_sites(unet: UNet2DConditionModel, latent_side: int) -> tuple[Site, ...]:
    """All attention sites of ``unet`` for square latents of side ``latent_side``, in the order of its modules."""
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
        side = latent_side
        for _ in range(level):
            side = (side + 1) // 2
        sites.append(Site(layer, "cross" if found["which"] == "2" else "self", place, side))
    return tuple(sites)


@contextmanager
def record_attention(
    unet: UNet2DConditionModel, sites: Collection[Site], rows: slice = slice(None)
) -> Iterator[dict[Site, Tensor]]:
    """Collect the attention probabilities of ``sites`` for the batch ``rows`` of the forward passes inside.

    Yields a dictionary that each forward pass fills anew, keyed by site, [rows, heads, queries, keys]. A pass that
    runs twice (a checkpointed one, in backward) overwrites instead of appending. On leaving, also by an exception,
    the processors are the ones that were there before.
    """
    recorded: dict[Site, Tensor] = {}
    replaced = []
    try:
        for site in sites:
            module = unet.get_submodule(site.layer)
            if not isinstance(module, Attention):
                raise TypeError(f"{site.layer} is a {type(module).__name__}, not an attention module")
            replaced.append((module, module.processor))
            module.processor = _Recorder(site, rows, recorded)  # type: ignore[assignment]
        yield recorded
    finally:
        for module, processor in replaced:
            module.processor = processor


class _Recorder:
    """Attention processor that computes its rows' probabilities in the open, and the others with the fused kernel."""

    def __init__(self, site: Site, rows: slice, recorded: dict[Site, Tensor]):
        self.site, self.rows, self.recorded = site, rows, recorded

    def __call__(
        self,
        attention: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        if attention_mask is not None or hidden_states.ndim != 3:
            raise NotImplementedError(f"{self.site.layer}: masked or spatial attention cannot be recorded")
        assert attention.to_k is not None
        assert attention.to_v is not None
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        queries, keys, values = (
            projection(source).unflatten(2, (attention.heads, -1)).transpose(1, 2)
            for projection, source in (
                (attention.to_q, hidden_states),
                (attention.to_k, context),
                (attention.to_v, context),
            )
        )
        start, stop, _ = self.rows.indices(len(queries))
        read = slice(start, stop)
        scores = torch.matmul(queries[read] * attention.scale, keys[read].transpose(2, 3))
        probabilities = scores.float().softmax(-1)
        self.recorded[self.site] = probabilities
        mixed = torch.matmul(probabilities.to(values.dtype), values[read])
        if start > 0 or stop < len(queries):
            fused = [_fused(queries[part], keys[part], values[part], attention.scale) for part in _outside(read)]
            mixed = torch.cat([fused[0], mixed, fused[1]])
        mixed = mixed.transpose(1, 2).flatten(2)
        output = attention.to_out[1](attention.to_out[0](mixed))  # type: ignore[index]
        return output / attention.rescale_output_factor


def _outside(rows: slice) -> tuple[slice, slice]:
    return slice(0, rows.start), slice(rows.stop, None)


def _fused(queries: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
    return torch.nn.functional.scaled_dot_product_attention(queries, keys, values, scale=scale)
