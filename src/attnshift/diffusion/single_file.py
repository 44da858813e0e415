"""Pipelines in single files, as their authors publish them, beside a folder that holds their
configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES
from diffusers.loaders.single_file_utils import convert_open_clip_checkpoint
from safetensors import safe_open
from torch import Tensor, nn

from attnshift.diffusion.checks import network_class, outline_of
from attnshift.diffusion.layout import Layout
from attnshift.errors import ModelError
from attnshift.untrusted import UNUSABLE, read_object, reason, safetensors_shapes

__all__ = ["SingleFile"]

_DENOISER = "model.diffusion_model."
_VAE = ("first_stage_model.", "vae.")
_TEXTS = {
    "text_encoder": (
        "cond_stage_model.transformer.", "cond_stage_model.model.", "conditioner.embedders.0.transformer.",
        "text_encoders.clip_l.transformer.",
    ),
    "text_encoder_2": ("conditioner.embedders.1.model.", "text_encoders.clip_g.transformer."),
}  # fmt: skip
_T5 = ("text_encoders.t5xxl.transformer.",)
_OTHERS = (*_VAE, "cond_stage_model.", "conditioner.", "text_encoders.", "model_ema.")
"""Beginnings of the names of all tensors but the denoiser's."""


@dataclass(frozen=True)
class SingleFile:
    """The networks in a safetensors file, in the layout of Stable Diffusion's, SD3's or Flux's
    authors or, a denoiser alone, in diffusers'. ``folder`` configures them."""

    path: Path
    folder: Path
    layout: Layout

    def parts(self) -> tuple[str, ...]:
        """The networks that the file holds. ``ModelError`` if it is no safetensors file, or has no
        denoiser."""
        keys = list(safetensors_shapes(self.path))
        if not self._own(keys, self.layout.denoiser):
            raise ModelError(f"{self.path} holds no denoiser; name the file of a pipeline of {self.layout.family}")
        there = [part for part in (*self.layout.networks, "vae") if (self.folder / part / "config.json").is_file()]
        return tuple(part for part in there if self._own(keys, part))

    def shapes(self, part: str) -> dict[str, tuple[int, ...]]:
        """Shapes of the weights of ``part``, under the names of its network; no tensor is read."""
        shapes = safetensors_shapes(self.path)
        own = {key: torch.empty(shapes[key], device="meta") for key in self._own(list(shapes), part)}
        return {key: tuple(value.shape) for key, value in self._converted(own, part).items()}

    def weights(self, part: str) -> dict[str, Tensor]:
        """Weights of ``part``, under the names of its network."""
        keys = self._own(list(safetensors_shapes(self.path)), part)
        with safe_open(self.path, framework="pt") as file:
            return self._converted({key: file.get_tensor(key) for key in keys}, part)

    def _own(self, keys: list[str], part: str) -> list[str]:
        """Those of ``keys`` that belong to ``part``."""
        if part == self.layout.denoiser:
            own = [key for key in keys if key.startswith(_DENOISER)]
            return own or [key for key in keys if not key.startswith(_OTHERS)]
        if part == "vae":
            # A tiny autoencoder is published in diffusers' layout alone.
            known = network_class(self.folder / "vae", "vae").__name__ in SINGLE_FILE_LOADABLE_CLASSES
            prefixes: tuple[str, ...] = _VAE if known else ()
        else:
            prefixes = _T5 if self.layout.networks[part] == ("T5EncoderModel",) else _TEXTS[part]
        return [key for key in keys if key.startswith(prefixes)]

    def _converted(self, own: dict[str, Tensor], part: str) -> dict[str, Tensor]:
        outline = outline_of(self.folder, part, self.layout)
        try:
            made = self._text(own, part, outline) if part in self.layout.encoders else self._network(own, part, outline)
        except UNUSABLE as error:
            raise ModelError(
                f"{self.path} holds no {part} that {self.folder / part / 'config.json'} describes "
                f"({reason(error):.200}); is it a pipeline of {self.layout.family}?"
            ) from None
        before, after = (sum(value.numel() for value in each.values()) for each in (own, made))
        if part == self.layout.denoiser and before != after:
            raise ModelError(
                f"{self.path} holds {before} weights of the denoiser, of which {self.folder / part / 'config.json'} "
                f"describes {after}; name the configuration that belongs to it, and merge a LoRA before you save it"
            )
        return made

    def _network(self, own: dict[str, Tensor], part: str, outline: nn.Module) -> dict[str, Tensor]:
        if set(own) == set(outline.state_dict()):
            return own
        kind = type(outline).__name__
        convert: Any = SINGLE_FILE_LOADABLE_CLASSES[kind]["checkpoint_mapping_fn"]
        # It takes out what it has read.
        return convert(checkpoint=dict(own), config=read_object(self.folder / part / "config.json"))

    def _text(self, own: Mapping[str, Tensor], part: str, outline: nn.Module) -> dict[str, Tensor]:
        prefix = next(each for each in (*_TEXTS.get(part, ()), *_T5) if any(key.startswith(each) for key in own))
        if prefix.endswith(".model."):
            # The names of open_clip.
            made = convert_open_clip_checkpoint(outline, dict(own), prefix=prefix)
        else:
            made = {key.removeprefix(prefix): value for key, value in own.items()}
        wanted = outline.state_dict()
        if not any(key.startswith("text_model.") for key in wanted):
            made = {key.removeprefix("text_model."): value for key, value in made.items()}
        projection = "text_projection.weight"
        if prefix == "text_encoders.clip_l.transformer." and projection in wanted:
            # SD3 was trained without the projection of this encoder, which such files may lack.
            made[projection] = torch.eye(wanted[projection].shape[0])
        return made
