"""Diffusion models as the attack uses them: encode, decode, embed, denoise, and read attention."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from attnshift.diffusion.names import check_pipeline_source, exists, read_name, split_options
from attnshift.errors import ModelError, PluginError
from attnshift.registry import Entry, Table, look_up, suggest

if TYPE_CHECKING:
    from attnshift.diffusion.backbone import Backbone, Loader

Precision = Literal["float32", "bfloat16"]

BACKBONES = Table(
    "backbone",
    {
        "stable_diffusion": Entry(
            "Stable Diffusion 1.x and 2.x, epsilon and v-prediction, from a diffusers folder or hub name",
            "Rombach et al., CVPR 2022",
            "attnshift.diffusion.stable_diffusion:STABLE_DIFFUSION",
        ),
        "lcm": Entry(
            "latent consistency models of Stable Diffusion 1.x, which take no negative prompt",
            "Luo et al., arXiv 2310.04378",
            "attnshift.diffusion.lcm:LCM",
        ),
        "sdxl": Entry(
            "Stable Diffusion XL, also distilled (Turbo, Lightning)",
            "Podell et al., ICLR 2024",
            "attnshift.diffusion.sdxl:SDXL",
        ),
        "sd3": Entry(
            "Stable Diffusion 3 and 3.5, with T5 or without",
            "Esser et al., ICML 2024",
            "attnshift.diffusion.sd3:SD3",
        ),
        "flux": Entry(
            "FLUX.1 dev and schnell, which take no negative prompt",
            "Black Forest Labs, 2024",
            "attnshift.diffusion.flux:FLUX",
        ),
        "lab": Entry(
            "the Stable Diffusion of the built-in tabletop world",
            "docs/lab.md",
            "attnshift.lab.shipped:LAB",
        ),
        "lab-flow": Entry(
            "a small Stable Diffusion 3 of the same world, a rectified flow with joint attention",
            "docs/lab.md",
            "attnshift.lab.shipped_flow:LAB_FLOW",
        ),
    },
    group="attnshift.backbones",
    contract=("attnshift.diffusion.backbone:Loader",),
)

RECONSTRUCTIONS = Table(
    "reconstruction",
    {
        "null_text": Entry(
            "tune the unconditional embedding of each step (70 updates for 5 steps)",
            "Mokady et al., CVPR 2023",
            "attnshift.diffusion.reconstruction:NullText",
        ),
        "negative_prompt": Entry(
            "the conditional embedding in place of the unconditional one",
            "Miyake et al., WACV 2025",
            "attnshift.diffusion.reconstruction:NegativePrompt",
        ),
        "offset": Entry(
            "add the constant by which each step misses its stored latent",
            "Ju et al., ICLR 2024",
            "attnshift.diffusion.reconstruction:Offset",
        ),
    },
    contract=("attnshift.diffusion.reconstruction:Reconstruction",),
)


_USUAL = "stable_diffusion"
_SHIPPED = ("lab", "lab-flow")
"""Backbones whose pipelines are part of this package."""
_OURS = tuple(name for name in BACKBONES.own if name not in _SHIPPED)
"""Those of this package whose pipelines lie in files."""


def as_precision(text: str) -> Precision:
    """``text`` if it names one, else a ``ModelError``."""
    for each in get_args(Precision):
        if each == text:
            return each
    raise ModelError(f"`precision` is {text}; known are {', '.join(get_args(Precision))}")


def load_pipeline(source: str, precision: Precision = "float32") -> Backbone:
    """Load the pipeline ``source``: ``BACKBONE:SOURCE``, ``lab`` or ``lab-flow``, a folder in
    diffusers' layout, a hub name, or a single file as ``FILE,config=FOLDER``.

    Without a backbone's name in front, the pipeline class in the folder's model_index.json chooses
    it; a name of the hub is read as Stable Diffusion. ``precision`` is that of the weights; steps
    and losses are in float32 in any case. Behind the name, ``,variant=fp16`` asks for that variant
    of its files, and ``,lora=FILE,scale=0.8`` adds a LoRA to the weights. ``ModelError`` for a
    pipeline that cannot be loaded.
    """
    backbone, model = _named(source)
    return look_up(BACKBONES, backbone)(model, precision)


def takes_guidance(source: str) -> bool:
    """False if the pipeline ``source`` is of a kind that takes no classifier-free guidance; nothing
    of it is loaded."""
    loader = _loader(source)
    return loader is None or loader.guided


def is_flow(source: str) -> bool:
    """False if the pipeline ``source`` is of a kind that predicts no velocity; nothing of it is
    loaded."""
    loader = _loader(source)
    return loader is None or loader.flow


def is_shipped(source: str) -> bool:
    """True for a pipeline that is part of this package, with any options behind its name."""
    return _prefixed(source)[0] in _SHIPPED


def _loader(source: str) -> Loader | None:
    """The loader of the pipeline ``source``; None where loading it says why there is none."""
    try:
        return look_up(BACKBONES, _named(source)[0])
    except ModelError:
        return None


def check_pipeline_name(source: str) -> None:
    """Raise ``ModelError``, without loading anything, for a name that no pipeline can have.

    Such names have an unknown backbone in front, mean a file or folder that does not exist, or have
    options behind them that mean nothing.
    """
    backbone, model = _prefixed(source)
    if backbone in ("", *_OURS):
        check_pipeline_source(model)
    elif backbone in _SHIPPED:
        check_pipeline_source(source)


def _named(source: str) -> tuple[str, str]:
    """Backbone of a pipeline's name, and what the backbone is asked to load."""
    backbone, model = _prefixed(source)
    if backbone:
        return backbone, model
    called = read_name(model)
    return _backbone_of(Path(called.config or called.place)), model


def _prefixed(source: str) -> tuple[str, str]:
    """Backbone in front of a pipeline's name, empty if there is none, and the rest."""
    place, _ = split_options(source)
    prefix, colon, _ = place.partition(":")
    # By itself, such a name is a folder's.
    if prefix in BACKBONES and (colon or prefix not in _OURS):
        return prefix, source.removeprefix(prefix).removeprefix(":")
    # One letter is a drive of Windows.
    if colon and len(prefix) > 1 and not exists(source):
        known = ", ".join(BACKBONES)
        raise ModelError(
            f"pipeline '{source}': unknown backbone '{prefix}'{suggest(prefix, BACKBONES)}; known: {known}"
        )
    return "", source


def _backbone_of(folder: Path) -> str:
    """Backbone that reads the pipeline class of ``folder``; Stable Diffusion for what names
    none."""
    index = folder / "model_index.json"
    if not exists(str(folder)) or not index.is_file():
        return _USUAL
    # It needs torch, which listing the backbones does not.
    from attnshift.untrusted import read_object

    wanted = read_object(index).get("_class_name")
    if not isinstance(wanted, str):
        return _USUAL
    known = []
    for name in BACKBONES:
        try:
            pipelines = look_up(BACKBONES, name).pipelines
        except PluginError:
            # It is listed, and refused with its reason where it is asked for by name.
            continue
        if wanted in pipelines:
            return name
        known += [f"{each} ({name})" for each in pipelines]
    raise ModelError(
        f"{index} names the pipeline class {wanted!r:.80}, which no backbone reads; known: {', '.join(known)}; "
        "a folder of another class is read as one of them with BACKBONE: in front of its name"
    )
