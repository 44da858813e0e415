"""Loading of a pipeline's folder, of a single file, or of what the Hugging Face hub has under a
name."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from attnshift.diffusion import Precision
from attnshift.diffusion.checks import check_folder, network_class, outline_of
from attnshift.diffusion.hub import download
from attnshift.diffusion.int8 import in_eight_bits
from attnshift.diffusion.layout import Layout
from attnshift.diffusion.lora import LoraPairs, fuse, read_loras
from attnshift.diffusion.names import PipelineName, check_pipeline_source, is_hub_name, read_name
from attnshift.diffusion.networks import fill_checked, load_checked, silence
from attnshift.diffusion.single_file import SingleFile
from attnshift.errors import ModelError
from attnshift.untrusted import UNUSABLE, reason

__all__ = ["Reload", "load_family"]

Reload = Callable[[], Mapping[str, nn.Module]]
"""Loads the text encoders of a pipeline once more, by their names."""
Made = TypeVar("Made")


def load_family(
    source: str, precision: Precision, name: str, layout: Layout, make: Callable[[Any, Reload], Made]
) -> Made:
    """What ``make`` does with the pipeline of diffusers that ``source`` stands for, and with what
    loads its text encoders again.

    Safetensors only, in whatever precision they were saved; code that comes with a pipeline is
    never run. LoRAs behind the name are part of the weights, also of text encoders that are loaded
    again. ``ModelError``, about ``name``, for what cannot be loaded.
    """
    silence()
    try:
        check_pipeline_source(source)
        called = read_name(source)
        files = _find(called, getattr(torch, precision), layout)
        changes = read_loras(called.loras, layout, cache(lambda part: outline_of(files.folder, part, layout)))
        networks = files.load((*files.variants, *files.in_file), changes)
        if called.int8:
            in_eight_bits(networks[layout.denoiser])
        absent = {part: None for part in layout.optional if not (files.folder / part).is_dir()}
        pipeline = layout.pipeline.from_pretrained(
            files.folder, **networks, **absent, **layout.left_out, local_files_only=True, trust_remote_code=False
        )
        encoders = [part for part in layout.encoders if part in networks]
        # Those of the denoiser, which is not loaded again, may leave memory.
        kept = {part: changes[part] for part in encoders if part in changes}
        return make(pipeline, partial(files.load, encoders, kept))
    except UNUSABLE as error:
        raise ModelError(f"cannot load the pipeline {name}: {reason(error)}") from error


@dataclass(frozen=True)
class _Files:
    """The networks of a pipeline, each in its ``folder``, in the variant that ``variants`` has for
    it, or ``in_file``."""

    folder: Path
    layout: Layout
    dtype: torch.dtype
    variants: Mapping[str, str | None]
    file: SingleFile | None
    in_file: Sequence[str]

    def load(self, parts: Iterable[str], changes: LoraPairs) -> dict[str, nn.Module]:
        """The networks ``parts``, with the ``changes`` of LoRAs."""
        networks = {part: self._load(part) for part in parts}
        for part, network in networks.items():
            fuse(network, changes.get(part, {}))
        return networks

    def _load(self, part: str) -> nn.Module:
        folder = self.folder / part
        if self.file is None or part not in self.in_file:
            return load_checked(folder, network_class(folder, part, self.layout), self.variants[part], self.dtype)
        outline = outline_of(self.folder, part, self.layout)
        return fill_checked(outline, self.file.weights(part), self.dtype, self.file.path / part)


def _find(called: PipelineName, dtype: torch.dtype, layout: Layout) -> _Files:
    """The files of the pipeline ``called`` so, checked as data; what a name of the hub stands for
    is fetched."""
    if called.config is None:
        folder, file, shapes = _folder(called, layout), None, {}
    else:
        folder = Path(called.config)
        file = SingleFile(Path(called.place), folder, layout)
        shapes = {part: file.shapes(part) for part in file.parts()}
        _check_held(file, folder, layout, shapes)
    return _Files(folder, layout, dtype, check_folder(folder, called, layout, shapes), file, tuple(shapes))


def _folder(called: PipelineName, layout: Layout) -> Path:
    folder = Path(called.place)
    if is_hub_name(called.place) and not folder.exists():
        return download(called.place, called.variant, layout)
    if not (folder / "model_index.json").is_file():
        raise ModelError(f"{called.place} is not a diffusers pipeline: it holds no model_index.json")
    return folder


def _check_held(file: SingleFile, folder: Path, layout: Layout, in_file: Container[str]) -> None:
    """Raise ``ModelError`` for a network that lies neither in ``file`` nor in ``folder``."""
    for part in (*layout.networks, "vae"):
        inside = (folder / part).is_dir()
        if inside and part not in in_file and not any((folder / part).glob("*.safetensors")):
            spare = ", or leave it out of the folder and of its model_index.json" if part in layout.optional else ""
            raise ModelError(
                f"neither {file.path} nor {folder / part} holds weights for {part}; put its safetensors file into that "
                f"folder, as diffusers saves it{spare}"
            )
