"""The published configurations and tokenizers of every family, with small widths and random weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from attnshift.classifiers.names import imagenet_names
from attnshift.diffusion.texts import TextStream, locate
from attnshift.testing.backbones import BACKBONE_CHECKS
from later import later
from tiers import fast_where

diffusers = later("diffusers")
transformers = later("transformers")

CLIP = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "projection_dim": 16,
}
T5 = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 1, "num_heads": 2}
VAE = {"block_out_channels": [8] * 4, "layers_per_block": 1, "norm_num_groups": 4, "sample_size": 64}
SDXL = {
    "block_out_channels": [8, 8, 16], "attention_head_dim": [1, 2, 2], "transformer_layers_per_block": [1, 1, 1],
    "layers_per_block": 1, "cross_attention_dim": 32, "norm_num_groups": 4, "sample_size": 8,
    "projection_class_embeddings_input_dim": 16 + 6 * 256,
}  # fmt: skip
SD3 = {
    "num_layers": 2, "attention_head_dim": 8, "num_attention_heads": 2, "joint_attention_dim": 32,
    "caption_projection_dim": 16, "pooled_projection_dim": 32, "sample_size": 8,
}  # fmt: skip
FLUX = {
    "num_layers": 1, "num_single_layers": 1, "attention_head_dim": 16, "num_attention_heads": 2,
    "joint_attention_dim": 32, "pooled_projection_dim": 16, "axes_dims_rope": [4, 6, 6],
}  # fmt: skip
SD = {
    "block_out_channels": [8, 8, 16, 16], "attention_head_dim": 2, "layers_per_block": 1, "cross_attention_dim": 16,
    "norm_num_groups": 4, "sample_size": 8, "_diffusers_version": "0.42.0",
}  # fmt: skip
FAMILIES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "stable-diffusion-v1-5": ("StableDiffusionPipeline", "unet", SD),
    "stable-diffusion-2-1": ("StableDiffusionPipeline", "unet", SD),
    "stable-diffusion-xl-base-1.0": ("StableDiffusionXLPipeline", "unet", SDXL),
    "stable-diffusion-3-medium-diffusers": ("StableDiffusion3Pipeline", "transformer", SD3),
    "stable-diffusion-3.5-large": ("StableDiffusion3Pipeline", "transformer", SD3),
    "FLUX.1-dev": ("FluxPipeline", "transformer", FLUX),
    "FLUX.1-schnell": ("FluxPipeline", "transformer", FLUX),
}


@pytest.fixture(scope="session")
def configurations(material: Path) -> Path:
    folder = material / "pipelines"
    if not folder.is_dir():
        pytest.skip("there are no published configurations beside the real weights")
    return folder


def small(folder: Path, name: str, changes: dict[str, Any]) -> Any:
    """The network of the class ``name`` that ``folder / config.json`` describes with ``changes``."""
    config = json.loads((folder / "config.json").read_text()) | changes
    if "_class_name" in config:
        return getattr(diffusers, name).from_config(config)
    kind = getattr(transformers, name)
    return kind(kind.config_class.from_dict(config))


def saved(configurations: Path, family: str, out: Path) -> Path:
    """The pipeline with small widths; parts that a family lacks here come from SD3 medium, whose class it has."""
    pipeline, denoiser, widths = FAMILIES[family]
    own, other = configurations / family, configurations / "stable-diffusion-3-medium-diffusers"
    parts: dict[str, Any] = {}
    index = json.loads(((own if (own / "model_index.json").exists() else other) / "model_index.json").read_text())
    torch.manual_seed(0)
    for part, value in index.items():
        if not isinstance(value, list):
            continue
        if part in ("safety_checker", "feature_extractor"):
            parts[part] = None
            continue
        folder = (own if (own / part).is_dir() else other) / part
        if part.startswith("tokenizer"):
            parts[part] = getattr(transformers, value[1]).from_pretrained(folder)
        elif part == "scheduler":
            parts[part] = getattr(diffusers, value[1]).from_pretrained(folder)
        else:
            changes = (
                widths if part == denoiser else VAE if part == "vae" else T5 if value[1].startswith("T5") else CLIP
            )
            parts[part] = small(folder, value[1], changes)
    getattr(diffusers, pipeline)(**parts).save_pretrained(out, safe_serialization=True)
    return out


@pytest.mark.parametrize("family", fast_where(lambda each: each in ("stable-diffusion-v1-5", "FLUX.1-dev"), FAMILIES))
def test_a_pipeline_of_the_published_configuration_keeps_the_contract(
    configurations: Path, tmp_path: Path, family: str
) -> None:
    from attnshift.diffusion import load_pipeline

    backbone = load_pipeline(str(saved(configurations, family, tmp_path)))
    checks: tuple[Callable[..., None], ...] = BACKBONE_CHECKS
    for check in checks:
        check(backbone)


@pytest.mark.parametrize(
    ("folder", "kind", "length"),
    [
        ("stable-diffusion-v1-5/tokenizer", "CLIPTokenizer", 77),
        ("stable-diffusion-xl-base-1.0/tokenizer_2", "CLIPTokenizer", 77),
        ("stable-diffusion-3-medium-diffusers/tokenizer_3", "T5TokenizerFast", 256),
        ("FLUX.1-dev/tokenizer_2", "T5TokenizerFast", 512),
    ],
)
def test_names_of_imagenet_are_found(configurations: Path, folder: str, kind: str, length: int) -> None:
    """The tokens of a span say the name, the whole name and nothing else."""
    tokenizer = getattr(transformers, kind).from_pretrained(configurations / folder)
    stream = TextStream("text", tokenizer, length, start=7)
    for name in imagenet_names()[::5]:
        prompt = f"a photo of a {name}, on the table"
        codes = tokenizer(prompt).input_ids
        span = locate("it", [stream], prompt, name, None, "all")
        said = tokenizer.decode([codes[at - 7] for at in span])
        assert "".join(said.split()).lower() == "".join(name.split()).lower()
