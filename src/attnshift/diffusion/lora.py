"""LoRAs: changes of low rank, trained by others, added to a pipeline's weights when it is
loaded."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from diffusers.utils import convert_state_dict_to_peft, convert_unet_state_dict_to_peft
from diffusers.utils.state_dict_utils import StateDictType
from jaxtyping import Float
from safetensors import safe_open
from torch import Tensor, nn

from attnshift.diffusion.layout import Layout
from attnshift.diffusion.names import Lora
from attnshift.errors import ModelError
from attnshift.untrusted import UNUSABLE, check_finite, reason, safetensors_shapes

__all__ = ["LoraPair", "LoraPairs", "fuse", "read_loras"]

_MATRIX = re.compile(r"lora\w*[._](down|up|A|B)\.weight$")
_DOWN, _UP, _ALPHA = ".lora_A.weight", ".lora_B.weight", ".alpha"
_OPTIONS = "lora_adapter_metadata"
"""Entry of a file's header in which diffusers keeps the options of the training, alpha among
them."""


@dataclass(frozen=True)
class LoraPair:
    """What a LoRA adds to the weights of one layer: ``up`` times ``down``, its scale among them.
    The inputs of a convolution are those of its whole kernel."""

    up: Float[Tensor, "outputs rank"]
    down: Float[Tensor, "rank inputs"]


LoraPairs = Mapping[str, Mapping[str, Sequence[LoraPair]]]
"""Pairs of a pipeline, by the names of its parts and of the layers in them."""
Matrices = dict[str, Tensor]


def read_loras(loras: Sequence[Lora], layout: Layout, outline: Callable[[str], nn.Module]) -> LoraPairs:
    """What the files of ``loras`` add to a pipeline of the family that ``layout`` describes.

    ``outline`` gives the network of a part, which needs no memory for its weights. Files are read
    as diffusers reads them: those of kohya's scripts, of diffusers, and for Flux of XLabs. A change
    is scale * alpha / rank * B A, in float64 (Hu et al., "LoRA", ICLR 2022, section 4.1).
    ``ModelError`` for a file that holds anything else, or of which a part would not act.
    """
    found: dict[str, dict[str, list[LoraPair]]] = {}
    for lora in loras:
        given, options = _read(lora.file)
        parts = _by_part(_converted(lora.file, _with_alphas(lora.file, given), layout, outline), layout)
        _check_nothing_lost(lora.file, given, parts, layout)
        for part, matrices in parts.items():
            network = outline(part)
            for layer, (up, down) in _fitting(lora.file, part, matrices, layout, network).items():
                scale = lora.scale * _scale(options, part, layer, len(down))
                found.setdefault(part, {}).setdefault(layer, []).append(LoraPair(scale * up, down))
    return found


@torch.no_grad()
def fuse(network: nn.Module, changes: Mapping[str, Sequence[LoraPair]]) -> None:
    """Add its ``changes`` to each layer of ``network``; the sum is in float64 and rounded once.
    ``ModelError`` if it is too large for the layer's precision."""
    for layer, some in changes.items():
        weight = network.get_parameter(f"{layer}.weight")
        fused = weight.double().flatten(1)
        for each in some:
            fused = fused + each.up @ each.down
        weight.copy_(fused.view_as(weight))
        if not bool(weight.isfinite().all()):
            raise ModelError(f"with the LoRA, {layer} has weights that are not finite; use a smaller scale")


def _read(file: str) -> tuple[Matrices, Mapping[str, Any]]:
    """Tensors of ``file`` in float64, and the options of its training if they are stated."""
    # It says what is wrong with a file that is none of safetensors.
    keys = list(safetensors_shapes(Path(file)))
    others = [key for key in keys if not (_MATRIX.search(key) or key.endswith(_ALPHA))]
    if others or not keys:
        raise ModelError(
            f"{file} holds {others[0] if others else 'nothing'} ({len(others)} of {len(keys)} entries), which no plain "
            "LoRA has; DoRA, LoHa, LoKr, biases and whole models cannot be added to a pipeline: take a LoRA"
        )
    with safe_open(file, framework="pt") as opened:
        given = {key: opened.get_tensor(key).double() for key in keys}
        stated = (opened.metadata() or {}).get(_OPTIONS)
    check_finite(given, file)
    empty = [key for key in keys if not given[key].numel()]
    if empty:
        raise ModelError(f"{file} holds no numbers for {empty[0]}; is it damaged?")
    try:
        options = json.loads(stated) if stated else {}
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{file} states its training ({_OPTIONS}) in no JSON: {reason(error)}") from None
    if not isinstance(options, dict):
        raise ModelError(f"{file} states its training ({_OPTIONS}) as a {type(options).__name__}; expected an object")
    return given, options


def _is_up(key: str) -> bool:
    found = _MATRIX.search(key)
    return found is not None and found[1] in ("up", "B")


def _with_alphas(file: str, given: Matrices) -> Matrices:
    """``given`` with alpha / rank in the upper matrices, and each alpha equal to its rank, so that
    it changes nothing more: diffusers leaves some of them out."""
    folded = dict(given)
    for key in (each for each in given if each.endswith(_ALPHA)):
        pair = [each for each in given if each.startswith(key.removesuffix("alpha")) and _MATRIX.search(each)]
        ups = [each for each in pair if _is_up(each)]
        if len(pair) != 2 or len(ups) != 1 or given[key].numel() != 1 or given[ups[0]].ndim < 2:
            raise ModelError(f"{file} holds {key} without its two matrices; is it whole?")
        rank = given[ups[0]].shape[1]
        folded[ups[0]] = given[ups[0]] * (float(given[key]) / rank)
        folded[key] = torch.full_like(given[key], rank)
    return folded


def _converted(file: str, given: Matrices, layout: Layout, outline: Callable[[str], nn.Module]) -> Matrices:
    """``given`` under the names that diffusers gives to a LoRA of this family."""
    further = {}
    if layout.denoiser == "unet":
        config: Any = outline("unet").config
        further["unet_config"] = SimpleNamespace(**config)
    try:
        made = layout.pipeline.lora_state_dict(given, **further)
    except UNUSABLE as error:
        raise ModelError(
            f"{file} cannot be read as a LoRA of {layout.family} ({reason(error).strip():.200}); take one that was "
            "trained for this pipeline"
        ) from None
    return made[0] if isinstance(made, tuple) else made


def _by_part(converted: Matrices, layout: Layout) -> dict[str, Matrices]:
    """Matrices by part, as LAYER.lora_A.weight and LAYER.lora_B.weight."""
    parts: dict[str, Matrices] = {}
    for key, value in converted.items():
        if not key.endswith(_ALPHA):
            first, _, rest = key.partition(".")
            part, name = (first, rest) if first in layout.networks else (layout.denoiser, key)
            parts.setdefault(part, {})[name] = value
    return {part: _renamed(matrices, part == layout.denoiser) for part, matrices in parts.items()}


def _renamed(matrices: Matrices, of_denoiser: bool) -> Matrices:
    if all(key.endswith((_DOWN, _UP)) for key in matrices):
        return {key.replace(".processor.", "."): value for key, value in matrices.items()}
    if of_denoiser:
        return convert_unet_state_dict_to_peft(matrices)
    # Its guess of the type takes every text encoder's LoRA to change the output projections.
    for kind in (StateDictType.DIFFUSERS_OLD, StateDictType.DIFFUSERS):
        matrices = convert_state_dict_to_peft(matrices, kind)
    return matrices


def _check_nothing_lost(file: str, given: Matrices, parts: Mapping[str, Matrices], layout: Layout) -> None:
    """Raise ``ModelError`` if the conversion has left pairs out; one pair may become several."""
    kept = [(part != layout.denoiser, key) for part, matrices in parts.items() for key in matrices]
    for of_texts, what in ((False, "denoiser"), (True, "text encoders")):
        before = sum(_is_up(key) for key in given if key.startswith(("lora_te", "text_encoder")) == of_texts)
        after = sum(_is_up(key) for of_text, key in kept if of_text == of_texts)
        if after < before:
            raise ModelError(
                f"{file}: only {after} of its {before} changes of the {what} can be read as a LoRA of "
                f"{layout.family}; take one that was trained for this pipeline"
            )


def _fitting(
    file: str, part: str, matrices: Matrices, layout: Layout, network: nn.Module
) -> dict[str, tuple[Tensor, Tensor]]:
    """The upper and the lower matrix of each layer of ``network`` that ``file`` changes, both with
    two dimensions. ``ModelError`` for a layer that there is not, or of another shape."""
    shapes = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    found, absent = {}, []
    for layer in dict.fromkeys(key.removesuffix(_DOWN).removesuffix(_UP) for key in matrices):
        up, down = matrices.get(layer + _UP), matrices.get(layer + _DOWN)
        # transformers has dropped this prefix, and files keep it.
        both = (layer, layer.removeprefix("text_model."))
        names = [each for each in both if len(shapes.get(f"{each}.weight", ())) > 1]
        if not names:
            absent.append(layer)
            continue
        if up is None or down is None:
            raise ModelError(f"{file} holds one of two matrices for {layer} of {part}; is it whole?")
        if min(up.ndim, down.ndim) < 2:
            raise ModelError(f"{file} holds a vector for {layer} of {part}; expected two matrices")
        up, down = up.flatten(1), down.flatten(1)
        _check_shapes(file, f"{layer} of {part}", up, down, shapes[f"{names[0]}.weight"])
        found[names[0]] = up, down
    if absent:
        raise ModelError(
            f"{file} does not fit the pipeline: it changes {absent[0]} of {part}, which is not there ({len(absent)} of "
            f"{len(absent) + len(found)} such layers); take a LoRA that was trained for this pipeline ({layout.family})"
        )
    return found


def _check_shapes(file: str, layer: str, up: Tensor, down: Tensor, wanted: tuple[int, ...]) -> None:
    if up.shape[1] != down.shape[0]:
        raise ModelError(
            f"{file}: the matrices for {layer} have the ranks {up.shape[1]} and {down.shape[0]}; is it damaged?"
        )
    made, expected = (up.shape[0], down.shape[1]), (wanted[0], math.prod(wanted[1:]))
    if made != expected:
        raise ModelError(
            f"{file} does not fit the pipeline: its change of {layer} has the shape {made}, expected {expected}; take "
            "a LoRA that was trained for this pipeline"
        )


def _scale(options: Mapping[str, Any], part: str, layer: str, rank: int) -> float:
    """Factor of the product of the two matrices, by the ``options`` of the training; 1 without
    any."""
    alpha = options.get(f"{part}.lora_alpha", rank)
    patterns = options.get(f"{part}.alpha_pattern") or {}
    for pattern, value in patterns.items():
        if f".{layer}".endswith(f".{pattern.removeprefix('^')}"):
            alpha = value
            break
    return alpha / (math.sqrt(rank) if options.get(f"{part}.use_rslora") else rank)
