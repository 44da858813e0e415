"""Weights of the tests' pipelines in single files, under the names that their authors gave them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

__all__ = ["open_clip", "plain_clip", "sd3_transformer", "unet", "vae", "write"]

Weights = dict[str, Tensor]
Renames = Iterable[tuple[str, str]]

_RESNET = (
    (r"\.norm1\.", ".in_layers.0."), (r"\.conv1\.", ".in_layers.2."), (r"\.time_emb_proj\.", ".emb_layers.1."),
    (r"\.norm2\.", ".out_layers.0."), (r"\.conv2\.", ".out_layers.3."), (r"\.conv_shortcut\.", ".skip_connection."),
)  # fmt: skip
_UNET_ENDS = (
    ("^time_embedding.linear_1", "time_embed.0"), ("^time_embedding.linear_2", "time_embed.2"),
    ("^add_embedding.linear_1", "label_emb.0.0"), ("^add_embedding.linear_2", "label_emb.0.2"),
    ("^conv_in", "input_blocks.0.0"), ("^conv_norm_out", "out.0"), ("^conv_out", "out.2"),
)  # fmt: skip


def _renamed(key: str, renames: Renames) -> str:
    for pattern, replacement in renames:
        key = re.sub(pattern, replacement, key)
    return key


def unet(network: Any) -> Weights:
    """Blocks are counted through, and a block of diffusers takes one more place than it has layers."""
    depth = network.config["layers_per_block"] + 1
    made = {}
    for key, value in network.state_dict().items():
        kind, *rest = key.split(".")
        inside = ".".join(rest[3:])
        if kind == "mid_block":
            number = 1 if rest[0] == "attentions" else 2 * int(rest[1])
            name = f"middle_block.{number}.{'.'.join(rest[2:])}"
        elif kind in ("down_blocks", "up_blocks"):
            block, layers, layer = int(rest[0]), rest[1], int(rest[2])
            at = depth * block + layer
            if layers == "downsamplers":
                name = f"input_blocks.{depth * (block + 1)}.0.op.{rest[-1]}"
            elif layers == "upsamplers":
                behind = 1 + hasattr(network.up_blocks[block], "attentions")
                name = f"output_blocks.{depth * (block + 1) - 1}.{behind}.{inside}"
            else:
                place = f"input_blocks.{at + 1}" if kind == "down_blocks" else f"output_blocks.{at}"
                name = f"{place}.{int(layers == 'attentions')}.{inside}"
        else:
            name = _renamed(key, _UNET_ENDS)
        made[name if ".transformer_blocks." in name else _renamed(name, _RESNET)] = value
    return {f"model.diffusion_model.{name}": value for name, value in made.items()}


def vae(network: Any) -> Weights:
    """Levels of the decoder are counted from the finest; attention is a convolution."""
    highest = len(network.config["up_block_types"]) - 1
    made = {}
    for key, value in network.state_dict().items():
        name = re.sub(r"up_blocks\.(\d)", lambda found: f"up.{highest - int(found[1])}", key)
        name = re.sub(r"mid_block\.resnets\.(\d)", lambda found: f"mid.block_{int(found[1]) + 1}", name)
        name = _renamed(
            name,
            [
                (r"down_blocks\.", "down."), (r"mid_block\.attentions\.0", "mid.attn_1"),
                (r"\.resnets\.", ".block."), (r"(down|up)samplers\.0", r"\1sample"),
                ("conv_shortcut", "nin_shortcut"), ("conv_norm_out", "norm_out"), ("group_norm", "norm"),
                (r"to_out\.0", "proj_out"), (r"to_([qkv])", r"\1"),
            ],
        )  # fmt: skip
        made[f"first_stage_model.{name}"] = value[..., None, None] if "attn_1" in name and value.ndim == 2 else value
    return made


def plain_clip(network: Any, prefix: str) -> Weights:
    """Under transformers' names of before they were shortened."""
    named = {key.removeprefix("text_model."): value for key, value in network.state_dict().items()}
    return {
        f"{prefix}{key}" if key.startswith("text_projection") else f"{prefix}text_model.{key}": value
        for key, value in named.items()
    }


def open_clip(network: Any, prefix: str) -> Weights:
    """Queries, keys and values are one matrix, and the projection is transposed."""
    made: Weights = {}
    state = {key.removeprefix("text_model."): value for key, value in network.state_dict().items()}
    for key, value in state.items():
        name = _renamed(
            key,
            [
                (r"^encoder\.layers", "transformer.resblocks"), (r"\.self_attn", ".attn"),
                (r"layer_norm(\d)", r"ln_\1"), (r"\.fc1", ".c_fc"), (r"\.fc2", ".c_proj"),
                ("^final_layer_norm", "ln_final"), (r"^embeddings\.token_embedding", "token_embedding"),
                (r"^embeddings\.position.*", "positional_embedding"), (r"^text_projection\.weight", "text_projection"),
            ],
        )  # fmt: skip
        if "mlp" in name:
            made[prefix + name] = value
        elif ".q_proj." in name:
            parts = [state[key.replace("q_proj", f"{each}_proj")] for each in "qkv"]
            made[prefix + name.replace(".q_proj.", ".in_proj_")] = torch.cat(parts)
        elif not re.search(r"\.[kv]_proj\.", name):
            made[prefix + name] = value.T if name == "text_projection" else value
    return made


_OF_TEXT = r"attn\.(add_|to_add|norm_added)|norm1_context|ff_context"
_SD3 = (
    (r"^pos_embed\.pos_embed", "pos_embed"), (r"^pos_embed\.proj", "x_embedder.proj"),
    (r"^time_text_embed\.timestep_embedder\.linear_1", "t_embedder.mlp.0"),
    (r"^time_text_embed\.timestep_embedder\.linear_2", "t_embedder.mlp.2"),
    (r"^time_text_embed\.text_embedder\.linear_1", "y_embedder.mlp.0"),
    (r"^time_text_embed\.text_embedder\.linear_2", "y_embedder.mlp.2"),
    (rf"^transformer_blocks\.(\d+)\.({_OF_TEXT})", r"joint_blocks.\1.context_block.\2"),
    (r"^transformer_blocks\.(\d+)\.", r"joint_blocks.\1.x_block."),
    (r"\.norm1(_context)?\.linear", ".adaLN_modulation.1"), (r"\.ff(_context)?\.net\.0\.proj", ".mlp.fc1"),
    (r"\.ff(_context)?\.net\.2", ".mlp.fc2"), (r"\.(to_out\.0|to_add_out)", ".proj"),
    (r"\.norm_(added_)?([qk])\.", r".ln_\2."), (r"^proj_out", "final_layer.linear"),
    (r"^norm_out\.linear", "final_layer.adaLN_modulation.1"),
)  # fmt: skip


def sd3_transformer(network: Any) -> Weights:
    """Queries, keys and values are one matrix; the last modulations have shift and scale in the other order."""
    state, last = network.state_dict(), len(network.transformer_blocks) - 1
    made = {}
    for key, value in state.items():
        name = _renamed(key, _SD3)
        fused = re.search(r"\.(to|add)_([qkv])(_proj)?\.", key)
        if fused and fused[2] != "q":
            continue
        if fused:
            value = torch.cat([state[key.replace(fused[0], fused[0].replace("_q", f"_{each}"))] for each in "qkv"])
            name = name.replace(fused[0], ".qkv.")
        if key.startswith(("norm_out.", f"transformer_blocks.{last}.norm1_context.")):
            value = torch.cat(value.chunk(2)[::-1])
        made[f"model.diffusion_model.{name}"] = value
    return made


def write(path: Path, *parts: Mapping[str, Tensor]) -> Path:
    from safetensors.torch import save_file

    save_file({key: value.clone().contiguous() for part in parts for key, value in part.items()}, path)
    return path
