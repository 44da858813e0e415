"""What a pipeline must be.

Its folder is read as data before anything is loaded, its parts are compared afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from attnshift.errors import ModelError
from attnshift.untrusted import UNUSABLE, read_object, reason, safetensors_shapes

__all__ = ["check_folder", "check_levels", "check_parts"]

_CLASSES = {
    "unet": ("UNet2DConditionModel",),
    "vae": ("AutoencoderKL",),
    "text_encoder": ("CLIPTextModel",),
    "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast"),
}
"""The classes of a Stable Diffusion.

Its scheduler may be any of diffusers': only its noise levels are used.
"""

_UNUSED = ("safety_checker", "feature_extractor", "image_encoder")
_LIBRARIES = (None, "diffusers", "transformers", "stable_diffusion")
_VOCABULARIES = (("tokenizer.json",), ("vocab.json", "merges.txt"))
_DEPTHS = ("layers_per_block", "transformer_layers_per_block", "num_hidden_layers")
_DEEPEST = 100
"""Layers in a row: more are no network that anybody trained, and would be built one by one before
they do not fit."""

_CONDITIONS = ("addition_embed_type", "class_embed_type", "num_class_embeds", "encoder_hid_dim", "encoder_hid_dim_type")
"""What a denoiser may want to be told beside the noise level and the text."""


def check_folder(folder: Path) -> dict[str, str | None]:
    """Read ``folder`` as data, and return for each network the variant of its weights, "fp16" or
    none.

    Raises ModelError for a folder that brings or asks for code, that lacks a part, whose weights
    are no safetensors files or do not have the shapes that its configurations describe, and for
    pipelines of another kind.
    """
    _check_index(read_object(folder / "model_index.json"), folder)
    for part in ("", *_CLASSES, "scheduler"):
        _check_code(folder / part)
    _check_vocabulary(folder / "tokenizer")
    _check_scheduler(folder / "scheduler" / "scheduler_config.json")
    return {part: _check_network(folder / part) for part in ("unet", "vae", "text_encoder")}


def _check_index(index: Mapping[str, Any], folder: Path) -> None:
    path = folder / "model_index.json"
    if "custom_pipeline" in index or not isinstance(index.get("_class_name", ""), str):
        raise ModelError(f"{path} asks for a pipeline class of its own; code that comes with a model is never run")
    for part, value in index.items():
        if part in (*_CLASSES, "scheduler") or isinstance(value, list):
            _check_part(path, part, value)
    for part in (*_CLASSES, "scheduler"):
        if part not in index or not (folder / part).is_dir():
            raise ModelError(f"{folder} has no {part}; is the pipeline complete?")


def _check_part(path: Path, part: str, value: object) -> None:
    library, name = value if isinstance(value, list) and len(value) == 2 else ("", value)
    if library not in _LIBRARIES:
        raise ModelError(
            f"{path} names {value!r:.80} for {part}; only classes of diffusers and transformers are used, and code "
            "that comes with a model is never run"
        )
    if part in _UNUSED or (name is None and part not in (*_CLASSES, "scheduler")):
        return
    if part == "scheduler":
        fits, expected = library == "diffusers" and str(name).endswith("Scheduler"), "a scheduler of diffusers"
    else:
        fits, expected = name in _CLASSES.get(part, ()), " or ".join(_CLASSES.get(part, ("nothing",)))
    if not fits:
        raise ModelError(
            f"{path} names {name!r:.80} for {part}, expected {expected}; Stable Diffusion 1.x and 2.x are supported"
        )


def _check_code(folder: Path) -> None:
    code = sorted(folder.glob("*.py"))
    if code:
        raise ModelError(f"{code[0]} is code, which is never run; take it out, or take a pipeline without it")
    for path in sorted(folder.glob("*config.json")):
        if "auto_map" in read_object(path):
            raise ModelError(f"{path} asks to run code of its own (auto_map), which is never done")


def _check_vocabulary(folder: Path) -> None:
    if not any(all((folder / file).is_file() for file in files) for files in _VOCABULARIES):
        raise ModelError(f"{folder} has no vocabulary: neither tokenizer.json nor vocab.json and merges.txt")


def _check_scheduler(path: Path) -> None:
    config = read_object(path)
    steps = config.get("num_train_timesteps", 1000)
    if type(steps) is not int or not 2 <= steps <= 100_000:
        raise ModelError(f"{path}: num_train_timesteps is {steps!r:.80}; expected a whole number from 2 to 100000")


def _check_network(folder: Path) -> str | None:
    files, variant = _weights(folder)
    shapes = {key: shape for file in files for key, shape in safetensors_shapes(file).items()}
    config = read_object(folder / "config.json")
    wanted = {key: tuple(value.shape) for key, value in _outline(folder, config).state_dict().items()}
    for key, expected in wanted.items():
        # transformers has dropped this prefix, and files keep it.
        found = shapes.get(key, shapes.get(f"text_model.{key}"))
        if found is not None and found != expected:
            raise ModelError(
                f"{files[0]} does not fit {folder / 'config.json'}: it has {found} for {key}, expected {expected}"
            )
    asked, there = (sum(map(math.prod, each.values())) for each in (wanted, shapes))
    if asked > 2 * there:
        raise ModelError(f"{folder / 'config.json'} describes {asked} weights, and {files[0]} holds {there}")
    return variant


def _weights(folder: Path) -> tuple[list[Path], str | None]:
    """The weights' files, and their variant."""
    stem = "model" if folder.name == "text_encoder" else "diffusion_pytorch_model"
    if (folder / f"{stem}.safetensors").is_file():
        return [folder / f"{stem}.safetensors"], None
    index = folder / f"{stem}.safetensors.index.json"
    if index.is_file():
        return _shards(index), None
    if (folder / f"{stem}.fp16.safetensors").is_file():
        return [folder / f"{stem}.fp16.safetensors"], "fp16"
    pickles = sorted(each.name for each in folder.iterdir() if each.suffix in (".bin", ".pt", ".pth", ".ckpt", ".pkl"))
    found = f"; pickles such as {pickles[0]} are never opened" if pickles else ""
    raise ModelError(f"{folder} has no {stem}.safetensors{found}; save the pipeline with safe_serialization=True")


def _shards(index: Path) -> list[Path]:
    names = read_object(index).get("weight_map")
    names = set(names.values()) if isinstance(names, dict) else {None}
    if not names or not all(isinstance(name, str) and name and name == Path(name).name for name in names):
        raise ModelError(f"{index} must name files beside it in weight_map")
    return [index.parent / str(name) for name in sorted(map(str, names))]


def _outline(folder: Path, config: dict[str, Any]) -> nn.Module:
    """The network that ``config`` describes, without memory for its weights."""
    path = folder / "config.json"
    for key in _DEPTHS:
        depths = config.get(key)
        if any(type(each) is int and each > _DEEPEST for each in _flat(depths)):
            raise ModelError(f"{path}: {key} is {depths!r:.80}; at most {_DEEPEST} are supported")
    try:
        with torch.device("meta"):
            if folder.name == "text_encoder":
                return CLIPTextModel(CLIPTextConfig.from_dict(config))
            kind = UNet2DConditionModel if folder.name == "unet" else AutoencoderKL
            outline = kind.from_config(config)
            assert isinstance(outline, nn.Module)
            return outline
    except UNUSABLE as error:
        raise ModelError(f"{path} describes no network: {reason(error)}") from None


def _flat(value: object) -> Iterable[object]:
    if isinstance(value, list):
        for each in value:
            yield from _flat(each)
    else:
        yield value


def check_parts(
    name: str, unet: Mapping[str, Any], vae: Mapping[str, Any], text: CLIPTextConfig, tokenizer: CLIPTokenizer
) -> None:
    """Raise ModelError unless the parts of the pipeline ``name``, by their configurations, are a
    Stable Diffusion."""
    if unet["in_channels"] != vae["latent_channels"]:
        raise ModelError(
            f"{name}: the denoiser takes {unet['in_channels']} channels but the autoencoder makes "
            f"{vae['latent_channels']}; inpainting and editing variants are not supported"
        )
    if unet["out_channels"] != unet["in_channels"]:
        raise ModelError(
            f"{name}: the denoiser gives {unet['out_channels']} channels for {unet['in_channels']}; models that "
            "predict more than the noise are not supported"
        )
    wanted = [key for key in _CONDITIONS if unet.get(key) is not None]
    if wanted:
        raise ModelError(
            f"{name}: the denoiser asks for more than a text ({wanted[0]} is {unet[wanted[0]]!r}), as SDXL's does; "
            "Stable Diffusion 1.x and 2.x are supported"
        )
    if any(width != text.hidden_size for width in _flat(unet["cross_attention_dim"])):
        raise ModelError(
            f"{name}: the denoiser reads texts of width {unet['cross_attention_dim']} but the text encoder gives "
            f"{text.hidden_size}; do they belong together?"
        )
    side, factor = unet["sample_size"], vae["scaling_factor"]
    if type(side) is not int or not 1 <= side <= 1024:
        raise ModelError(f"{name}: the denoiser's sample_size is {side!r:.80}; expected a whole number from 1 to 1024")
    if type(factor) not in (int, float) or not 0 < factor < math.inf:
        raise ModelError(f"{name}: the autoencoder's scaling_factor is {factor!r:.80}; expected a number above 0")
    moved = [key for key in ("shift_factor", "latents_mean") if vae.get(key) is not None]
    if moved:
        raise ModelError(f"{name}: the autoencoder has a {moved[0]}, which Stable Diffusion 1.x and 2.x do not have")
    _check_tokenizer(name, text, tokenizer)


def _check_tokenizer(name: str, text: CLIPTextConfig, tokenizer: CLIPTokenizer) -> None:
    highest = max(tokenizer.get_vocab().values(), default=0)
    if highest >= text.vocab_size:
        raise ModelError(
            f"{name}: the tokenizer counts tokens up to {highest} but the text encoder knows {text.vocab_size}; do "
            "they belong together?"
        )
    # Without its files transformers makes a tokenizer that knows no words.
    if "photo" not in str(tokenizer.decode(tokenizer("photo")["input_ids"])).replace(" ", ""):  # type: ignore[index]
        raise ModelError(f"{name}: the tokenizer cannot read 'photo'; are its files whole?")


def check_levels(alphas: Tensor, name: str) -> None:
    """Raise ModelError unless ``alphas`` [timesteps] are cumulative alphas: in [0,1], and lower
    from step to step."""
    if not (bool(alphas.isfinite().all()) and float(alphas.min()) >= 0 and float(alphas.max()) <= 1):
        raise ModelError(f"{name}: the scheduler's noise levels are not in [0,1]; are its betas damaged?")
    if bool((alphas.diff() > 0).any()):
        raise ModelError(f"{name}: the scheduler's noise levels do not rise from step to step; are its betas damaged?")
