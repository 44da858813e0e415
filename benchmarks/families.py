"""Compute what the published shapes of every family take in memory, without having it.

    python benchmarks/families.py CONFIGURATIONS [--sides 512 1024]

CONFIGURATIONS is a folder with the published configurations of pipelines, without weights. Weights
are counted in bf16. A checkpointed attack holds at most one denoising step with its gradient, or
the decoder with its own: the larger of the two is computed on torch's fake tensors, for one image
without guidance.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers.utils import logging
from large_images import Alive
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from attnshift.diffusion.conditioning import Conditioning
from attnshift.diffusion.flux import Flux
from attnshift.diffusion.sd3 import StableDiffusion3
from attnshift.diffusion.sdxl import StableDiffusionXL

FAMILIES: dict[str, tuple[Callable[[Any, str], Any], str, int, int, int]] = {
    "stable-diffusion-xl-base-1.0": (StableDiffusionXL, "StableDiffusionXLPipeline", 77, 2048, 1280),
    "stable-diffusion-3-medium-diffusers": (StableDiffusion3, "StableDiffusion3Pipeline", 333, 4096, 2048),
    "stable-diffusion-3.5-large": (StableDiffusion3, "StableDiffusion3Pipeline", 333, 4096, 2048),
    "FLUX.1-dev": (Flux, "FluxPipeline", 512, 4096, 768),
    "FLUX.1-schnell": (Flux, "FluxPipeline", 256, 4096, 768),
}
"""For each: its backbone, its pipeline, its text tokens, their width, and that of the pooled text."""
LIKE_SD3 = "stable-diffusion-3-medium-diffusers"
"""Has the parts whose configurations another one lacks."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configurations", type=Path)
    parser.add_argument("--sides", nargs="+", type=int, default=[512, 1024])
    options = parser.parse_args(arguments)
    logging.set_verbosity_error()
    for name in FAMILIES:
        parts = meta_parts(options.configurations, name)
        networks = {part: each for part, each in parts.items() if isinstance(each, nn.Module)}
        texts = sum(2 * _count(each) for part, each in networks.items() if part.startswith("text_encoder"))
        rest = sum(2 * _count(each) for part, each in networks.items() if not part.startswith("text_encoder"))
        steps = (f"{side} px {step_bytes(parts, name, side) / 1e9:.1f} GB" for side in options.sides)
        print(name, f"texts {texts / 1e9:.1f} GB", f"others {rest / 1e9:.1f} GB", *steps, sep="  ")


def meta_parts(configurations: Path, name: str) -> dict[str, Any]:
    """The parts of the pipeline ``name``; networks are on the meta device."""
    own, other = configurations / name, configurations / LIKE_SD3
    folder = own if (own / "model_index.json").is_file() else other
    parts: dict[str, Any] = {}
    for part, value in json.loads((folder / "model_index.json").read_text()).items():
        if not isinstance(value, list):
            continue
        place = own / part if (own / part).is_dir() else other / part
        kind: Any = getattr(diffusers if value[0] == "diffusers" else transformers, value[1])
        if part.startswith("tokenizer") or part == "scheduler":
            parts[part] = kind.from_pretrained(place)
            continue
        config = json.loads((place / "config.json").read_text())
        with torch.device("meta"):
            parts[part] = kind.from_config(config) if value[0] == "diffusers" else kind(kind.config_class(**config))
    return parts


def step_bytes(parts: dict[str, Any], name: str, side: int) -> int:
    """Bytes that one differentiated step takes, or the decoder, on one image of ``side`` pixels."""
    backbone_of, pipeline, tokens, width, pooled = FAMILIES[name]
    backbone = backbone_of(getattr(diffusers, pipeline)(**parts), name)
    level = backbone.noise_schedule(20, 5, side).timesteps[0]
    peaks = []
    with FakeTensorMode(allow_non_fake_inputs=True):
        for network in (backbone.vae, backbone._denoiser):
            network.to(torch.bfloat16).to_empty(device="cpu")
        held = [each for network in (backbone.vae, backbone._denoiser) for each in network.state_dict().values()]
        text = Conditioning(torch.zeros(1, tokens, width), torch.zeros(1, pooled))
        channels, rows = backbone.vae.config["latent_channels"], backbone.latent_side(side)
        for run in (
            lambda latents: backbone.denoise(latents, level, text).output,
            lambda latents: backbone.decode(latents, checkpointing=True),
        ):
            latents = torch.zeros(1, channels, rows, rows, requires_grad=True)
            with Alive([*held, latents, text.states, text.pooled]) as alive:
                run(latents).sum().backward()
            peaks.append(alive.peak)
    for network in (backbone.vae, backbone._denoiser):
        network.to("meta")
    return max(peaks)


def _count(network: nn.Module) -> int:
    return sum(each.numel() for each in network.parameters())


if __name__ == "__main__":
    main()
