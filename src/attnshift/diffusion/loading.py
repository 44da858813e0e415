"""Loading of a pipeline's folder, or of what the Hugging Face hub has under a name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from attnshift.diffusion import Precision
from attnshift.diffusion.checks import check_folder, network_class
from attnshift.diffusion.hub import download
from attnshift.diffusion.layout import Layout
from attnshift.diffusion.names import check_pipeline_source, is_hub_name, split_variant
from attnshift.diffusion.networks import load_checked, silence
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
    never run. ``ModelError``, about ``name``, for what cannot be loaded.
    """
    silence()
    try:
        place, variant = split_variant(source)
        folder = _folder(place, variant, layout)
        variants = check_folder(folder, variant, layout)
        dtype = getattr(torch, precision)

        def load(parts: Mapping[str, str | None]) -> dict[str, nn.Module]:
            return {part: _network(folder, part, chosen, dtype, layout) for part, chosen in parts.items()}

        absent = {part: None for part in layout.optional if not (folder / part).is_dir()}
        pipeline = layout.pipeline.from_pretrained(
            folder, **load(variants), **absent, **layout.left_out, local_files_only=True, trust_remote_code=False
        )
        encoders = {part: chosen for part, chosen in variants.items() if part in layout.encoders}
        return make(pipeline, partial(load, encoders))
    except UNUSABLE as error:
        raise ModelError(f"cannot load the pipeline {name}: {reason(error)}") from error


def _folder(source: str, variant: str | None, layout: Layout) -> Path:
    """Return where the pipeline lies, once what a name of the hub stands for has been fetched."""
    check_pipeline_source(source)
    folder = Path(source)
    if is_hub_name(source) and not folder.exists():
        return download(source, variant, layout)
    if not (folder / "model_index.json").is_file():
        raise ModelError(f"{source} is not a diffusers pipeline: it holds no model_index.json")
    return folder


def _network(folder: Path, part: str, variant: str | None, dtype: torch.dtype, layout: Layout) -> nn.Module:
    """The network in ``folder / part``."""
    return load_checked(folder / part, network_class(folder / part, part, layout), variant, dtype)
