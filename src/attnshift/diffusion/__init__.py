"""Diffusion models as the attack sees them: encode, decode, embed, denoise, and where they look."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

from attnshift.errors import ModelError
from attnshift.registry import Entry, Table, look_up

if TYPE_CHECKING:
    from attnshift.diffusion.backbone import Backbone

Precision = Literal["float32", "bfloat16"]

BACKBONES: Table = {
    "stable_diffusion": Entry(
        "Stable Diffusion 1.x and 2.x, epsilon and v-prediction, from a diffusers folder or hub name",
        "Rombach et al., CVPR 2022",
        "attnshift.diffusion.stable_diffusion:load_stable_diffusion",
    ),
    "lab": Entry(
        "the Stable Diffusion of the built-in tabletop world",
        "docs/lab.md",
        "attnshift.lab.shipped:load_lab_pipeline",
    ),
}

RECONSTRUCTIONS: Table = {
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
}


def as_precision(text: str) -> Precision:
    """``text`` if it names one, else a ``ModelError``."""
    for each in get_args(Precision):
        if each == text:
            return each
    raise ModelError(f"--precision {text}: known are {', '.join(get_args(Precision))}")


def load_pipeline(source: str, precision: Precision = "float32") -> Backbone:
    """The pipeline called ``source``: ``BACKBONE:SOURCE``, ``lab``, a folder in diffusers' layout, or a hub name.

    ``precision`` is that of its weights; steps and losses are in float32 in any case.
    """
    backbone, _, model = source.partition(":")
    if backbone not in BACKBONES:
        backbone, model = "stable_diffusion", source
    return look_up(BACKBONES, "backbone", backbone)(model, precision)
