"""Compute the memory of an attack on every family of backbones at its true shape, without having it.

    python benchmarks/families.py FOLDER [--sides 512 1024] [--quick]

FOLDER holds pipelines in diffusers' layout; their configurations and tokenizers are enough. Weights
are those of denoiser, autoencoder and one surrogate, and apart from them the text encoders, which
leave before an iteration. One iteration of preset ``fast`` on one image, as in large_images.py. --quick
writes nothing.
"""

from __future__ import annotations

import argparse
import copy
import importlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers.utils import logging
from large_images import iteration_bytes, with_levels
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from attnshift.attack.method import Method
from attnshift.classifiers import load_classifier
from attnshift.diffusion.flux import Flux
from attnshift.diffusion.sd3 import StableDiffusion3
from attnshift.diffusion.sdxl import StableDiffusionXL
from attnshift.diffusion.stable_diffusion import StableDiffusion
from attnshift.recipes.reading import load_latent_recipe
from results import read, record

CLASSES = {
    "StableDiffusionPipeline": StableDiffusion,
    "StableDiffusionXLPipeline": StableDiffusionXL,
    "StableDiffusion3Pipeline": StableDiffusion3,
    "FluxPipeline": Flux,
}
ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")
VARIANTS = {"plain": (), "checkpointed": ("diffusion.checkpointing=true",)}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sides", nargs="+", type=int, default=[512, 1024])
    parser.add_argument("--models", nargs="+", default=[])
    parser.add_argument("--quick", action="store_true", help="nothing is written")
    options = parser.parse_args(arguments)
    logging.set_verbosity_error()
    for source in sorted(path.parent for path in options.folder.glob("*/model_index.json")):
        if options.models and source.name not in options.models:
            continue
        unreal = Unreal(source)
        found: dict[str, Any] = dict(unreal.weights())
        for side in options.sides:
            for variant, settings in VARIANTS.items():
                found[f"{side} {variant}"] = unreal.computed(side, settings)
        print(source.name, *(f"{key} {value / 1e9:.2f} GB" for key, value in found.items()), sep="  ", flush=True)
        if not options.quick:
            families = read("cpu").get("families", {}).get("bytes", {}) | {source.name: found}
            record("cpu", "families", {"bytes": families}, "bytes", {"figures": "computed", "torch": torch.__version__})


class Unreal:
    """A pipeline's backbone in bf16 and a surrogate, with weights that have shapes and no values."""

    def __init__(self, source: Path):
        self.mode = FakeTensorMode(allow_non_fake_inputs=True)
        index = json.loads((source / "model_index.json").read_text())
        parts = {name: _part(source, name, *value) for name, value in index.items() if isinstance(value, list)}
        networks = {name: part for name, part in parts.items() if isinstance(part, nn.Module)}
        real = load_classifier("random:resnet50")
        networks["surrogate"] = copy.deepcopy(real.network).to("meta")
        for network in networks.values():
            network.to(dtype=torch.bfloat16).eval()
        made = getattr(importlib.import_module("diffusers"), index["_class_name"])(**parts)
        self.backbone = with_levels(CLASSES[index["_class_name"]])(made, source.name)
        self.classifier = replace(real, network=networks["surrogate"])
        with self.mode:
            _fill(networks.values())
        for network in networks.values():
            # They are where they belong, and torch cannot move weights that are shared.
            network.__dict__["to"] = partial(_stay, network)
        self.backbone.device = torch.device("cpu")
        self.networks = networks

    def weights(self) -> Mapping[str, int]:
        def held(names: Sequence[str]) -> int:
            return sum(each.nbytes for name in names for each in self.networks[name].parameters())

        encoders = [name for name in self.networks if name in ENCODERS]
        return {"weights": held([name for name in self.networks if name not in encoders]), "texts": held(encoders)}

    def computed(self, side: int, settings: Sequence[str]) -> int:
        """Bytes above the weights of one iteration, preparation included."""
        guided = getattr(self.backbone, "guided", True)
        recipe = load_latent_recipe("fast", ["diffusion.guidance=1", *settings] if not guided else settings)
        return iteration_bytes(self, side, Method.of(recipe))

    def held(self) -> Iterable[torch.Tensor]:
        """Return every tensor that exists before an attack."""
        for network in self.networks.values():
            yield from network.parameters()
            yield from network.buffers()


def _part(source: Path, name: str, library: str | None, kind: str | None) -> Any:
    if library is None or kind is None or name in ("safety_checker", "feature_extractor", "image_encoder"):
        return None
    made = getattr(importlib.import_module(library), kind)
    if name.startswith("tokenizer") or name == "scheduler":
        return made.from_pretrained(source / name)
    with torch.device("meta"):
        if library == "diffusers":
            return made.from_config(made.load_config(source / name))
        return made(made.config_class.from_pretrained(source / name))


def _fill(networks: Iterable[nn.Module]) -> None:
    """Have all weights on the CPU; those that modules share stay shared."""
    made: dict[int, torch.Tensor] = {}
    for module in (each for network in networks for each in network.modules()):
        for kind in ("_parameters", "_buffers"):
            held: dict[str, torch.Tensor | None] = getattr(module, kind)
            for name, each in held.items():
                if each is not None:
                    empty = torch.empty_like(each, device="cpu")
                    filled = nn.Parameter(empty, requires_grad=False) if isinstance(each, nn.Parameter) else empty
                    held[name] = made.setdefault(id(each), filled)


def _stay(network: nn.Module, *_: object) -> nn.Module:
    return network


if __name__ == "__main__":
    main()
