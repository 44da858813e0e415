"""LoRAs with random matrices for the pipelines of the tests, in the layouts in which people publish them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["ALPHA", "LAYOUTS", "RANK", "Pairs", "diffusers_layout", "kohya", "layers_of", "pairs_of", "peft", "save"]

RANK, ALPHA = 2, 3.0

Pairs = dict[tuple[str, str], tuple[Tensor, Tensor]]
"""Upper and lower matrix, by part and layer."""


def layers_of(part: str, network: nn.Module, kinds: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    """Linear layers and convolutions of ``network``; only those that end in one of ``kinds`` where these are given.

    Never the one that reads the guidance of a consistency model, for which kohya's scripts have no name.
    """
    for name, layer in network.named_modules():
        if name.endswith("cond_proj"):
            continue
        if isinstance(layer, nn.Linear | nn.Conv2d) and (not kinds or name.endswith(kinds)):
            yield part, name


def pairs_of(networks: Mapping[str, Any], layers: Iterable[tuple[str, str]], seed: int = 0) -> Pairs:
    """Random matrices for ``layers``; those of a convolution have its kernel in the lower one."""
    draw, made = torch.Generator().manual_seed(seed), {}
    for part, layer in layers:
        outputs, inputs, *kernel = networks[part].get_submodule(layer).weight.shape
        up = torch.randn(outputs, RANK, *(1 for _ in kernel), generator=draw)
        made[part, layer] = (up, torch.randn(RANK, inputs, *kernel, generator=draw))
    return made


def kohya(pairs: Pairs) -> dict[str, Tensor]:
    """As kohya's scripts write them, alpha beside each pair."""
    fronts = {"text_encoder": "lora_te", "text_encoder_2": "lora_te2"}
    numbered = any(part == "text_encoder_2" for part, _ in pairs)
    if numbered:
        fronts["text_encoder"] = "lora_te1"
    made = {}
    for (part, layer), (up, down) in pairs.items():
        # Only the flattened networks of a newer transformers lack this prefix.
        inside = f"text_model_{layer}" if part in fronts and layer.startswith("encoder.") else layer
        for ours, theirs in (("add_embedding.linear_1", "label_emb_0_0"), ("add_embedding.linear_2", "label_emb_0_2")):
            inside = inside.replace(ours, theirs)
        name = f"{fronts.get(part, 'lora_unet')}_{inside}".replace(".", "_")
        made |= {f"{name}.lora_up.weight": up, f"{name}.lora_down.weight": down, f"{name}.alpha": torch.tensor(ALPHA)}
    return made


def diffusers_layout(pairs: Pairs) -> dict[str, Tensor]:
    """As diffusers wrote them before it used peft; such files have no alpha."""
    made = {}
    for (part, layer), (up, down) in pairs.items():
        inside = "lora_linear_layer" if part.startswith("text_encoder") else "lora"
        made |= {f"{part}.{layer}.{inside}.up.weight": up, f"{part}.{layer}.{inside}.down.weight": down}
    return made


def peft(pairs: Pairs) -> dict[str, Tensor]:
    """As diffusers writes them today, alpha in the header."""
    return {
        f"{part}.{layer}.lora_{name}.weight": matrix
        for (part, layer), (up, down) in pairs.items()
        for name, matrix in (("A", down), ("B", up))
    }


LAYOUTS: dict[str, tuple[Callable[[Pairs], dict[str, Tensor]], float]] = {
    "kohya": (kohya, ALPHA / RANK),
    "diffusers": (diffusers_layout, 1.0),
    "peft": (peft, ALPHA / math.sqrt(RANK)),
}
"""Layouts, and by what each multiplies the product of its matrices."""


def save(path: Path, tensors: Mapping[str, Tensor], trained: Iterable[str] = ()) -> Path:
    """Write ``tensors``; the header states ALPHA and a rank-stabilised scale for the parts ``trained``."""
    from safetensors.torch import save_file

    options = {"lora_alpha": ALPHA, "use_rslora": True}
    stated = {f"{part}.{key}": value for part in trained for key, value in options.items()}
    metadata = {"lora_adapter_metadata": json.dumps(stated)} if stated else None
    save_file({key: value.contiguous() for key, value in tensors.items()}, path, metadata)
    return path
