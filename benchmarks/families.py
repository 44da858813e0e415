"""Compute the memory of an attack on every family of backbones at its true shape, without having it.

    python benchmarks/families.py FOLDER [--sides 512 1024] [--models NAME …] [--quick]
    python benchmarks/families.py FOLDER --run NAME [--weights int8] [--variant checkpointed] [--sides 256] [--quick]

FOLDER holds pipelines in diffusers' layout; their configurations and tokenizers are enough. Weights
are those of denoiser, autoencoder and one surrogate, and apart from them the text encoders, which
leave before an iteration. One iteration of preset ``fast`` on one image, as in large_images.py.

--run carries such an iteration out, with random weights in bf16, or those of the denoiser's linear
layers in 8 bits, and measures it: CPU seconds once it is warm, and memory above the weights. It takes
the memory of the weights and more, without those of the text encoders: texts are random states of
their shapes. --quick writes nothing.
"""

from __future__ import annotations

import argparse
import copy
import importlib
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers.utils import logging
from large_images import iteration_bytes, with_levels
from peak import above, held
from timing import machine, take_turns
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from attnshift.attack.loop import AttackState, value_and_grad
from attnshift.attack.method import Method
from attnshift.attack.prepare import Task, prepare_batch
from attnshift.classifiers import load_classifier
from attnshift.diffusion.conditioning import Conditioning
from attnshift.diffusion.flux import Flux
from attnshift.diffusion.int8 import in_eight_bits
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
    parser.add_argument("--run", default="", metavar="NAME", help="carry one iteration out on this pipeline")
    parser.add_argument("--weights", choices=("bf16", "int8"), default="bf16", help="of the denoiser's linear layers")
    parser.add_argument("--variant", choices=VARIANTS, default="plain")
    parser.add_argument("--quick", action="store_true", help="nothing is written")
    options = parser.parse_args(arguments)
    logging.set_verbosity_error()
    if options.run:
        for side in options.sides:
            figures = carried_out(options.folder / options.run, side, options.weights, options.variant)
            print(options.run, side, figures)
            if not options.quick:
                before = read("cpu").get("families", {}).get("carried_out", {})
                record(
                    "cpu", "families", {"carried_out": before | {options.run: figures}}, "carried_out", machine("cpu")
                )
        return
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


def carried_out(source: Path, side: int, weights: str, variant: str) -> dict[str, float | str]:
    """Return seconds and bytes of an iteration of preset ``fast`` on a pipeline with random weights."""
    parts, kind = _parts(source)
    for part in parts.values():
        if isinstance(part, nn.Module):
            part.to(dtype=torch.bfloat16).eval()
    real = [part for name, part in parts.items() if isinstance(part, nn.Module) and name not in ENCODERS]
    if weights == "int8":
        in_eight_bits(parts["transformer"] if "transformer" in parts else parts["unet"])
    _fill(real)
    for network in real:
        _randomise(network)
    unreal = FakeTensorMode(allow_non_fake_inputs=True)
    with unreal:
        _fill(part for name, part in parts.items() if name in ENCODERS and part is not None)
    for name in ENCODERS:
        if parts.get(name) is not None:
            parts[name].__dict__["to"] = partial(_stay, parts[name])
    backbone = CLASSES[kind](getattr(importlib.import_module("diffusers"), kind)(**parts), source.name)
    backbone.__dict__["embed"] = partial(_random_texts, unreal, backbone.embed)
    task = Task("one", torch.rand(3, side, side), 0, "mug")
    batch = prepare_batch(_method(backbone, VARIANTS[variant]), backbone, [load_classifier("random:resnet50")], [task])

    def iteration() -> None:
        found = value_and_grad(batch, batch.render.trajectory.start.clone(), 1, AttackState.start(batch))
        assert bool(found.gradient.isfinite().all()), "the gradient of random weights is not finite"

    # Measuring its memory warms it up.
    taken = above(held("cpu"), iteration, "cpu")
    (seconds,) = take_turns({source.name: iteration}, 1, warm_up=0, now=time.process_time)[source.name]
    return {
        "side": side,
        "weights": weights if variant == "plain" else f"{weights}, {variant}",
        "bytes": taken,
        "cpu_seconds": seconds,
        "threads": torch.get_num_threads(),
    }


@torch.no_grad()
def _randomise(network: nn.Module) -> None:
    """Give a network small weights, which keep one of any depth finite; norms scale by 1."""
    for parameter in network.parameters():
        parameter.normal_(0, 0.02) if parameter.ndim > 1 else parameter.fill_(1)
    for name, buffer in network.named_buffers():
        if name.endswith("position_ids"):
            buffer.copy_(torch.arange(buffer.shape[-1]))
        elif name.endswith("whole"):
            buffer.random_(-127, 128)
        else:
            # Evenly spread whole numbers deviate by 73.
            buffer.fill_(0.02 / 73 if name.endswith("step") else 0)


def _random_texts(unreal: FakeTensorMode, embed: Callable[..., Conditioning], prompts: Sequence[str]) -> Conditioning:
    """Return states of the shapes that encoders without values would give."""
    with unreal:
        made = embed(prompts)
    shapes = [each if each is None else each.shape for each in (made.states, made.pooled)]
    return Conditioning(*(each if each is None else torch.randn(each) for each in shapes))


def _method(backbone: Any, settings: Sequence[str] = ()) -> Method:
    """Return preset ``fast`` with ``settings``, without guidance where ``backbone`` takes none."""
    unguided = [] if getattr(backbone, "guided", True) else ["diffusion.guidance=1"]
    return Method.of(load_latent_recipe("fast", [*unguided, *settings]))


class Unreal:
    """A pipeline's backbone in bf16 and a surrogate, with weights that have shapes and no values."""

    def __init__(self, source: Path):
        self.mode = FakeTensorMode(allow_non_fake_inputs=True)
        parts, kind = _parts(source)
        networks = {name: part for name, part in parts.items() if isinstance(part, nn.Module)}
        real = load_classifier("random:resnet50")
        networks["surrogate"] = copy.deepcopy(real.network).to("meta")
        for network in networks.values():
            network.to(dtype=torch.bfloat16).eval()
        made = getattr(importlib.import_module("diffusers"), kind)(**parts)
        self.backbone = with_levels(CLASSES[kind])(made, source.name)
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
        return iteration_bytes(self, side, _method(self.backbone, settings))

    def held(self) -> Iterable[torch.Tensor]:
        """Return every tensor that exists before an attack."""
        for network in self.networks.values():
            yield from network.parameters()
            yield from network.buffers()


def _parts(source: Path) -> tuple[dict[str, Any], str]:
    """Return the parts of a pipeline, with weights that have shapes alone, and the name of its class."""
    index = json.loads((source / "model_index.json").read_text())
    return (
        {name: _part(source, name, *value) for name, value in index.items() if isinstance(value, list)},
        index["_class_name"],
    )


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
