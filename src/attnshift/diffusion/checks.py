"""What a pipeline must be.

Its folder is read as data before anything is loaded, its parts are compared afterwards.
"""

# The stubs of transformers lack classes that it has.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderTiny, FluxTransformer2DModel, SD3Transformer2DModel, UNet2DConditionModel
from jaxtyping import Float
from torch import Tensor, nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    PretrainedConfig,
    PreTrainedTokenizerBase,
    T5Config,
    T5EncoderModel,
)

from attnshift.diffusion.autoencoder import AUTOENCODERS
from attnshift.diffusion.layout import Layout
from attnshift.diffusion.names import Lora, PipelineName
from attnshift.errors import ModelError
from attnshift.untrusted import UNUSABLE, read_object, reason, safetensors_shapes

__all__ = [
    "check_betas",
    "check_folder",
    "check_latents",
    "check_levels",
    "check_network",
    "check_parts",
    "check_shapes",
    "check_tokenizer",
    "check_unet",
    "check_unexpected",
    "check_width",
    "network_class",
    "outline_of",
]

Shapes = Mapping[str, tuple[int, ...]]
"""Shapes of weights by their names."""

_DENOISERS = {each.__name__: each for each in (UNet2DConditionModel, SD3Transformer2DModel, FluxTransformer2DModel)}
_ENCODERS: dict[str, tuple[Any, type[PretrainedConfig]]] = {
    "CLIPTextModel": (CLIPTextModel, CLIPTextConfig),
    "CLIPTextModelWithProjection": (CLIPTextModelWithProjection, CLIPTextConfig),
    "T5EncoderModel": (T5EncoderModel, T5Config),
}
"""Text encoders, and the classes of their configurations."""

_FLOW = "FlowMatchEulerDiscreteScheduler"
_UNUSED = ("safety_checker", "feature_extractor", "image_encoder")
_LIBRARIES = (None, "diffusers", "transformers", "stable_diffusion")
_VOCABULARIES = (("tokenizer.json",), ("vocab.json", "merges.txt"), ("spiece.model",))
_DEPTHS = (
    "layers_per_block", "transformer_layers_per_block", "num_hidden_layers", "num_encoder_blocks", "num_decoder_blocks",
    "num_layers", "num_single_layers",
)  # fmt: skip
_DEEPEST = 100
"""Layers in a row: more are no network that anybody trained, and would be built one by one before
they do not fit."""

_WIDEST = 8192
"""Numbers by which a denoiser is told its guidance, at most."""

_CONDITIONS = ("addition_embed_type", "class_embed_type", "num_class_embeds", "encoder_hid_dim", "encoder_hid_dim_type")
"""What a denoiser may want to be told beside the noise level and the text."""

_BLOCKS = (
    "DownBlock2D", "CrossAttnDownBlock2D", "UpBlock2D", "CrossAttnUpBlock2D",
    "UNetMidBlock2DCrossAttn", "UNetMidBlock2D", None,
)  # fmt: skip
_USUAL_ATTENTION = {
    "dual_cross_attention": False,
    "only_cross_attention": False,
    "mid_block_only_cross_attention": False,
    "cross_attention_norm": None,
    "attention_type": "default",
}
"""Options that Stable Diffusion leaves alone.

With others, attention is not computed as it is read here.
"""

_BESIDE_TEXT = ("vision_model.", "text_projection.", "visual_projection.", "logit_scale", "embeddings.position_ids")
"""Weights of CLIP that do not act on the states of a text."""


def check_folder(
    folder: Path, called: PipelineName, layout: Layout, elsewhere: Mapping[str, Shapes] = {}
) -> dict[str, str | None]:
    """Read ``folder``, that of the pipeline ``called`` so, as data, and return for each network in
    it the variant of its weights: "fp16", None.

    A network comes in the variant that is asked for if its folder has that, else as its plain
    files, else in the only variant that is there. ``elsewhere`` has the shapes of those whose
    weights the single file holds in place of the folder.

    Raises ModelError for a folder that brings or asks for code, that lacks a part, whose weights
    are no safetensors files or do not have the shapes that its configurations describe, and for
    pipelines of another kind.
    """
    index = read_object(folder / "model_index.json")
    _check_index(index, folder, layout)
    there = [part for part in _classes(layout) if (folder / part).is_dir()]
    for part in ("", *there, "scheduler"):
        _check_code(folder / part)
    for part in set(layout.tokenizers) & set(there):
        _check_vocabulary(folder / part)
    _check_scheduler(folder / "scheduler" / "scheduler_config.json", layout.flow)
    layout.check(folder)
    _check_loras(folder, called.loras)
    stated, wanted = network_class(folder / "vae", "vae").__name__, index["vae"][1]
    if stated != wanted:
        raise ModelError(f"{folder / 'model_index.json'} names {wanted} for vae, and vae/config.json is a {stated}'s")
    networks = [part for part in (*layout.networks, "vae") if part in there]
    for part, shapes in elsewhere.items():
        check_shapes(Path(called.place), shapes, folder / part, part, layout)
    inside = [part for part in networks if part not in elsewhere]
    variants = {part: check_network(folder / part, part, called.variant, layout) for part in inside}
    if called.variant not in (None, *variants.values()):
        raise ModelError(
            f"{folder} holds no weights of the variant {called.variant!r}; leave `,variant={called.variant}` out"
        )
    return variants


def _classes(layout: Layout) -> dict[str, tuple[str, ...]]:
    """The classes of every part but the scheduler, which may be any of diffusers' where there are
    betas: only their noise levels are used."""
    return {**layout.networks, "vae": tuple(AUTOENCODERS), **layout.tokenizers}


def _check_index(index: Mapping[str, Any], folder: Path, layout: Layout) -> None:
    path = folder / "model_index.json"
    if "custom_pipeline" in index or not isinstance(index.get("_class_name", ""), str):
        raise ModelError(f"{path} asks for a pipeline class of its own; code that comes with a model is never run")
    known = (*_classes(layout), "scheduler")
    for part, value in index.items():
        if part in known or isinstance(value, list):
            _check_part(path, part, value, layout)
    for part in known:
        absent = part not in index or not (folder / part).is_dir()
        if absent and not (part in layout.optional and index.get(part) in (None, [None, None])):
            raise ModelError(f"{folder} has no {part}; is the pipeline complete?")


def _check_part(path: Path, part: str, value: object, layout: Layout) -> None:
    classes = _classes(layout)
    if value is None and part in layout.optional:
        return
    library, name = value if isinstance(value, list) and len(value) == 2 else ("", value)
    if library not in _LIBRARIES:
        raise ModelError(
            f"{path} names {value!r:.80} for {part}; only classes of diffusers and transformers are used, and code "
            "that comes with a model is never run"
        )
    if part in _UNUSED or (name is None and part not in ({*classes, "scheduler"} - {*layout.optional})):
        return
    if part == "scheduler" and not layout.flow:
        fits, expected = library == "diffusers" and str(name).endswith("Scheduler"), "a scheduler of diffusers"
    else:
        allowed = (_FLOW,) if part == "scheduler" else classes.get(part, ())
        fits, expected = name in allowed, " or ".join(allowed) or "nothing"
    if not fits:
        raise ModelError(f"{path} names {name!r:.80} for {part}, expected {expected}; {layout.family} are supported")


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


def _check_scheduler(path: Path, flow: bool) -> None:
    config = read_object(path)
    steps = config.get("num_train_timesteps", 1000)
    if type(steps) is not int or not 2 <= steps <= 100_000:
        raise ModelError(f"{path}: num_train_timesteps is {steps!r:.80}; expected a whole number from 2 to 100000")
    if not flow:
        check_betas(path, config)
    elif config.get("invert_sigmas") or config.get("stochastic_sampling"):
        raise ModelError(f"{path}: invert_sigmas and stochastic_sampling are not supported; only straight flows are")


def check_betas(where: object, config: Mapping[str, Any]) -> None:
    """Raise ModelError, about ``where``, unless ``config`` states the noise levels of a scheduler.

    In place of those that are not stated, diffusers takes DDPM's.
    """
    needed = ["beta_schedule"]
    if config.get("beta_schedule") != "squaredcos_cap_v2":
        needed += ["beta_start", "beta_end"]
    absent = [key for key in needed if config.get(key) is None]
    if config.get("use_flow_sigmas") or (config.get("trained_betas") is None and absent):
        raise ModelError(
            f"{where} states no {absent[0] if absent else 'betas in use'} ({config.get('_class_name')!r:.80}); models "
            "of flow matching, EDM and consistency are not supported; for a Stable Diffusion, write the beta_start, "
            "beta_end and beta_schedule that it was trained with"
        )


def check_unet(path: Path, family: str, told: bool = False) -> None:
    """Raise ModelError for a U-Net, configured at ``path``, that attends in another way than Stable
    Diffusion's, or wants its guidance where ``told`` is False, or does not where it is True;
    ``family`` is supported."""
    config = read_object(path)
    for key, usual in _USUAL_ATTENTION.items():
        if any(value not in (usual, None) for value in _flat(config.get(key))):
            raise ModelError(
                f"{path}: {key} is {config[key]!r:.80}; the attention of such denoisers cannot be read, and only that "
                f"of {family} is supported"
            )
    for key in ("down_block_types", "mid_block_type", "up_block_types"):
        for block in _flat(config.get(key)):
            if block not in _BLOCKS:
                raise ModelError(f"{path}: {key} has {block!r:.80}, which {family} do not have")
    width = config.get("time_cond_proj_dim")
    if told and not (type(width) is int and 2 <= width <= _WIDEST):
        raise ModelError(
            f"{path}: time_cond_proj_dim is {width!r:.80}; {family} are told their guidance in 2 to {_WIDEST} numbers"
        )
    if width is not None and not told:
        raise ModelError(
            f"{path}: time_cond_proj_dim is {width!r:.80}: the denoiser wants to be told its guidance, as latent "
            "consistency models do; of these the ones of the class LatentConsistencyModelPipeline are supported"
        )


def _check_loras(folder: Path, named: Sequence[Lora]) -> None:
    """Raise ModelError for a LoRA in ``folder`` that is not among those ``named``."""
    acting = {Path(each.file).absolute() for each in named}
    silent = [each for each in sorted(folder.glob("pytorch_lora_weights*")) if each.absolute() not in acting]
    if silent:
        raise ModelError(
            f"{silent[0]} is a LoRA, which would not act; name it behind the pipeline, as in "
            f"{folder},lora={silent[0]}, or take it out"
        )


def check_unexpected(keys: Iterable[str], where: Path) -> None:
    """Raise ModelError if weights in the folder ``where`` have ``keys``
    that its network does not take.

    A text encoder may come with the rest of its CLIP, which does not act on texts.
    """
    ignored = _BESIDE_TEXT if where.name.startswith("text_encoder") else ()
    found = sorted(key for key in keys if not key.removeprefix("text_model.").startswith(ignored))
    if found:
        some = ", ".join(found[:3]) + (", …" if len(found) > 3 else "")
        raise ModelError(
            f"{where} holds weights that its network does not take: {some} ({len(found)} in all); merge a LoRA into "
            "the weights before you save them, and take out what belongs to other networks"
        )


def network_class(folder: Path, part: str, layout: Layout | None = None) -> type[nn.Module]:
    """Class of the network in ``folder``, which is the ``part`` of a pipeline that ``layout``
    describes; without one it is a vae.

    The autoencoder's stands in its configuration, else it is Stable Diffusion's own.
    """
    if layout is not None and part != "vae":
        (stated,) = layout.networks[part]
        return _DENOISERS[stated] if stated in _DENOISERS else _ENCODERS[stated][0]
    path = folder / "config.json"
    name = read_object(path).get("_class_name", "AutoencoderKL")
    if name not in AUTOENCODERS:
        raise ModelError(f"{path}: _class_name is {name!r:.80}; autoencoders of {' and '.join(AUTOENCODERS)} are read")
    return AUTOENCODERS[name]


def check_network(folder: Path, part: str, variant: str | None = None, layout: Layout | None = None) -> str | None:
    """Read the network in ``folder`` as data, and return the variant of its weights.

    It is the ``part`` of a pipeline that ``layout`` describes; without one a vae. Raises ModelError
    if its weights are no safetensors files or do not have the shapes that its configuration
    describes.
    """
    files, variant = _weights(folder, part, variant)
    shapes = {key: shape for file in files for key, shape in safetensors_shapes(file).items()}
    check_shapes(files[0], shapes, folder, part, layout)
    return variant


def check_shapes(file: Path, shapes: Shapes, folder: Path, part: str, layout: Layout | None = None) -> None:
    """Raise ModelError unless the ``shapes`` of the weights in ``file`` are those that the
    configuration in ``folder`` describes; ``part`` as in ``check_network``."""
    config = read_object(folder / "config.json")
    wanted = {key: tuple(value.shape) for key, value in _outline(folder, part, config, layout).state_dict().items()}
    for key, expected in wanted.items():
        # transformers has dropped this prefix, and files keep it.
        found = shapes.get(key, shapes.get(f"text_model.{key}"))
        if found is not None and found != expected:
            raise ModelError(
                f"{file} does not fit {folder / 'config.json'}: it has {found} for {key}, expected {expected}"
            )
    asked, there = (sum(map(math.prod, each.values())) for each in (wanted, shapes))
    if asked > 2 * there:
        raise ModelError(f"{folder / 'config.json'} describes {asked} weights, and {file} holds {there}")


def _weights(folder: Path, part: str, variant: str | None) -> tuple[list[Path], str | None]:
    """Files of the weights, and their variant: ``variant`` if it is there,
    else none, else the only one."""
    stem = "model" if part.startswith("text_encoder") else "diffusion_pytorch_model"
    found = _variants(folder, stem)
    chosen = variant if variant in found else None if None in found else next(iter(found), None)
    if chosen is None and None not in found:
        raise ModelError(_no_weights(folder, stem))
    if chosen != variant and chosen is not None and len(found) > 1:
        names = " and ".join(sorted(filter(None, found)))
        raise ModelError(
            f"{folder} holds weights in the variants {names}; choose one behind the pipeline's name, as in "
            f"FOLDER,variant={chosen}"
        )
    file = found[chosen]
    return ([file] if file.suffix == ".safetensors" else _shards(file)), chosen


def _variants(folder: Path, stem: str) -> dict[str | None, Path]:
    """Variants of the weights in ``folder``, None for plain ones: their file,
    or the index of their shards."""
    forms = (rf"{stem}\.safetensors\.index(\.[\w-]+)?\.json", rf"{stem}(\.[\w-]+)?\.safetensors")
    found: dict[str | None, Path] = {}
    for form in forms:
        for path in sorted(folder.iterdir()):
            match = re.fullmatch(form, path.name)
            if match and not re.search(r"-\d+-of-\d+$", match[1] or ""):
                found[match[1][1:] if match[1] else None] = path
    return found


def _no_weights(folder: Path, stem: str) -> str:
    names = sorted(each.name for each in folder.iterdir())
    others = [name for name in names if name.endswith(".safetensors")]
    if others:
        return f"{folder} has no {stem}.safetensors; {others[0]} is not a name that diffusers gives; save it again"
    pickles = [name for name in names if name.endswith((".bin", ".pt", ".pth", ".ckpt", ".pkl"))]
    found = f"; pickles such as {pickles[0]} are never opened" if pickles else ""
    return f"{folder} has no {stem}.safetensors{found}; save the pipeline with safe_serialization=True"


def _shards(index: Path) -> list[Path]:
    names = read_object(index).get("weight_map")
    names = set(names.values()) if isinstance(names, dict) else {None}
    if not names or not all(isinstance(name, str) and name and name == Path(name).name for name in names):
        raise ModelError(f"{index} must name files beside it in weight_map")
    return [index.parent / str(name) for name in sorted(map(str, names))]


def outline_of(folder: Path, part: str, layout: Layout) -> nn.Module:
    """The network that is the ``part`` of the pipeline in ``folder``, without memory for its
    weights."""
    return _outline(folder / part, part, read_object(folder / part / "config.json"), layout)


def _outline(folder: Path, part: str, config: dict[str, Any], layout: Layout | None) -> nn.Module:
    """The network that ``config`` describes, without memory for its weights."""
    path = folder / "config.json"
    for key in _DEPTHS:
        depths = config.get(key)
        if any(type(each) is int and each > _DEEPEST for each in _flat(depths)):
            raise ModelError(f"{path}: {key} is {depths!r:.80}; at most {_DEEPEST} are supported")
    kind: Any = network_class(folder, part, layout)
    if kind is AutoencoderTiny:
        _check_tiny(path, config)
    try:
        with torch.device("meta"):
            if kind.__name__ in _ENCODERS:
                return kind(_ENCODERS[kind.__name__][1].from_dict(config))
            outline = kind.from_config(config)
            assert isinstance(outline, nn.Module)
            return outline
    except UNUSABLE as error:
        raise ModelError(f"{path} describes no network: {reason(error)}") from None


def _check_tiny(path: Path, config: Mapping[str, Any]) -> None:
    """Raise ModelError for a tiny autoencoder that cannot run,
    or whose images have another size than it was given."""
    for side in ("encoder", "decoder"):
        widths = config.get(f"{side}_block_out_channels", [64])
        if len({*map(str, _flat(widths))}) != 1:
            raise ModelError(f"{path}: {side}_block_out_channels is {widths!r:.80}; such blocks have one width")
    blocks = [config.get(f"num_{side}_blocks", [1, 3, 3, 3]) for side in ("encoder", "decoder")]
    factor = config.get("upsampling_scaling_factor", 2)
    if factor != 2 or not all(isinstance(each, list) for each in blocks) or len(blocks[0]) != len(blocks[1]):
        raise ModelError(
            f"{path}: num_encoder_blocks, num_decoder_blocks and upsampling_scaling_factor are {blocks[0]!r:.80}, "
            f"{blocks[1]!r:.80} and {factor!r:.80}; images would not come back at their size"
        )


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
    check_latents(name, unet, vae)
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
    moved = [key for key in ("shift_factor", "latents_mean") if vae.get(key) not in (None, 0)]
    if moved:
        raise ModelError(f"{name}: the autoencoder has a {moved[0]}, which Stable Diffusion 1.x and 2.x do not have")
    check_tokenizer(name, text, tokenizer)


def check_latents(name: str, denoiser: Mapping[str, Any], vae: Mapping[str, Any], packed: int = 1) -> None:
    """Raise ModelError unless the ``denoiser`` of the pipeline ``name`` takes the latents of its
    ``vae`` and gives as many back; it takes ``packed`` of them together."""
    made, taken, given = vae["latent_channels"] * packed, denoiser["in_channels"], denoiser.get("out_channels")
    if taken != made:
        raise ModelError(
            f"{name}: the denoiser takes {taken} channels but the autoencoder makes {made}; inpainting and editing "
            "variants are not supported"
        )
    if given not in (taken, None):
        raise ModelError(
            f"{name}: the denoiser gives {given} channels for {taken}; models that predict more than the noise are "
            "not supported"
        )
    side, factor, shift = denoiser.get("sample_size", 1), vae["scaling_factor"], vae.get("shift_factor") or 0.0
    if type(side) is not int or not 1 <= side <= 1024:
        raise ModelError(f"{name}: the denoiser's sample_size is {side!r:.80}; expected a whole number from 1 to 1024")
    if type(factor) not in (int, float) or not 0 < factor < math.inf:
        raise ModelError(f"{name}: the autoencoder's scaling_factor is {factor!r:.80}; expected a number above 0")
    if type(shift) not in (int, float) or not math.isfinite(shift):
        raise ModelError(f"{name}: the autoencoder's shift_factor is {shift!r:.80}; expected a number")


def check_width(name: str, key: str, denoiser: Mapping[str, Any], width: int) -> None:
    """Raise ModelError unless ``key`` of the ``denoiser`` of the pipeline ``name`` is the ``width``
    that its text encoders give."""
    if any(each != width for each in _flat(denoiser[key])):
        raise ModelError(
            f"{name}: {key} of the denoiser is {denoiser[key]} but the text encoders give {width}; do they belong "
            "together?"
        )


def check_tokenizer(name: str, text: PretrainedConfig, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise ModelError unless ``tokenizer`` has its words and counts no further than the encoder
    configured by ``text``."""
    highest = max(tokenizer.get_vocab().values(), default=0)
    if highest >= text.vocab_size:
        raise ModelError(
            f"{name}: the tokenizer counts tokens up to {highest} but the text encoder knows {text.vocab_size}; do "
            "they belong together?"
        )
    # Without its files transformers makes a tokenizer that knows no words.
    if "photo" not in str(tokenizer.decode(tokenizer("photo")["input_ids"])).replace(" ", ""):  # type: ignore[index]
        raise ModelError(f"{name}: the tokenizer cannot read 'photo'; are its files whole?")


def check_levels(alphas: Float[Tensor, "timesteps"], name: str) -> None:
    """Raise ModelError unless ``alphas`` are cumulative alphas: in [0,1], and lower from step to
    step."""
    if not (bool(alphas.isfinite().all()) and float(alphas.min()) >= 0 and float(alphas.max()) <= 1):
        raise ModelError(f"{name}: the scheduler's noise levels are not in [0,1]; are its betas damaged?")
    if bool((alphas.diff() > 0).any()):
        raise ModelError(f"{name}: the scheduler's noise levels do not rise from step to step; are its betas damaged?")
