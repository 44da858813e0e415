"""Names of pipelines: a folder, a single file or a name of the Hugging Face hub, and options behind
it. Needs no torch."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from attnshift.errors import ModelError

__all__ = [
    "Lora",
    "PipelineName",
    "check_pipeline_source",
    "exists",
    "is_file_name",
    "is_hub_name",
    "read_name",
    "split_options",
]

_HUB = re.compile(r"[A-Za-z0-9_][\w.-]*(/[A-Za-z0-9_][\w.-]*)?", re.ASCII)
_VARIANT = re.compile(r"[\w-]+", re.ASCII)
_OPTION = re.compile(r",(variant|config|lora|scale|weights)=")
_PICKLES = (".ckpt", ".pt", ".pth", ".bin", ".pkl")


@dataclass(frozen=True)
class Lora:
    """A change of low rank in a safetensors ``file``, which acts ``scale`` times as strongly as it
    was trained."""

    file: str
    scale: float = 1.0


@dataclass(frozen=True)
class PipelineName:
    """A pipeline's name in its parts:
    ``PLACE,variant=NAME,config=FOLDER,lora=FILE,scale=NUMBER,weights=int8``.

    The ``place`` is a folder, a name of the hub, or a single safetensors file, whose configuration
    the folder ``config`` holds. With ``int8`` the denoiser's linear layers have weights of 8 bits.
    """

    place: str
    variant: str | None = None
    config: str | None = None
    loras: tuple[Lora, ...] = ()
    int8: bool = False


def split_options(source: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """The place of a pipeline's name, and the options behind it in their order.

    >>> split_options("models/sd,lora=ink.safetensors,scale=0.8")
    ('models/sd', (('lora', 'ink.safetensors'), ('scale', '0.8')))
    """
    if exists(source):
        return source, ()
    place, *rest = _OPTION.split(source)
    return place, tuple(zip(rest[::2], rest[1::2], strict=True))


def read_name(source: str) -> PipelineName:
    """The parts of a pipeline's name. Raises ``ModelError`` for options that mean nothing.

    >>> read_name("models/sd,variant=fp16").variant, read_name("models/sd").variant
    ('fp16', None)
    """
    place, options = split_options(source)
    single: dict[str, str] = {}
    loras: list[Lora] = []
    scaled = True
    for key, value in options:
        if key == "lora":
            loras.append(Lora(value))
            scaled = False
        elif key == "scale":
            if scaled:
                raise ModelError(f"pipeline '{source}': scale={value} must stand right behind a lora=FILE of its own")
            loras[-1] = Lora(loras[-1].file, _scale(value, source))
            scaled = True
        elif key in single:
            raise ModelError(f"pipeline '{source}': {key} is given twice; give it once")
        else:
            single[key] = value
    variant = single.get("variant")
    if variant is not None and not _VARIANT.fullmatch(variant):
        raise ModelError(f"pipeline '{source}': {variant!r:.80} is no variant of weights; known from files: fp16, bf16")
    weights = single.get("weights")
    if weights not in (None, "int8"):
        raise ModelError(f"pipeline '{source}': weights is {weights!r:.80}; known is int8, weights of 8 bits")
    return PipelineName(place, variant, single.get("config"), tuple(loras), weights == "int8")


def _scale(text: str, source: str) -> float:
    try:
        scale = float(text)
    except ValueError:
        scale = math.nan
    if not math.isfinite(scale):
        raise ModelError(f"pipeline '{source}': scale is {text!r:.80}; expected a number, such as 0.8")
    return scale


def is_hub_name(source: str) -> bool:
    """True for ``NAME`` or ``USER/NAME`` that can be no folder of this machine.

    >>> names = ("user/model", "./nope", "/models/sd", "a/b/c", "~/sd", "sd\\\\v1", "a.safetensors")
    >>> [is_hub_name(each) for each in names]
    [True, False, False, False, False, False, False]
    """
    there = "/" in source and exists(source.partition("/")[0])
    return _HUB.fullmatch(source) is not None and not (there or is_file_name(source))


def is_file_name(source: str) -> bool:
    """True for the name of a file of weights, whether it is there or not."""
    return source.endswith((".safetensors", *_PICKLES))


def check_pipeline_source(source: str) -> None:
    """Raise ``ModelError`` if ``source`` names a file or folder that does not exist, or one of
    another kind."""
    for complaint in _complaints(read_name(source)):
        raise ModelError(f"cannot load the pipeline {source}: {complaint}")


def _complaints(name: PipelineName) -> Iterator[str]:
    unknown = None if exists(name.place) else re.search(r",(\w+)=", name.place)
    if unknown:
        yield f"{unknown[1]} is no option behind a name; known are variant, config, lora, scale and weights"
    if is_file_name(name.place):
        yield from _not_weights(name.place, "pipelines")
        if name.config is None:
            yield (
                f"{name.place} is a single file, which holds no configuration; name a folder that does, in diffusers' "
                f"layout: {name.place},config=FOLDER"
            )
        if name.variant is not None:
            yield "a single file has no variants; leave variant out"
    elif not (exists(name.place) or is_hub_name(name.place)):
        yield (
            "there is no such folder; give a folder in diffusers' layout, a name of the Hugging Face hub (USER/NAME), "
            "or lab"
        )
    elif name.config is not None:
        yield "config goes with a single .safetensors file; leave it out"
    if name.config is not None and not exists(f"{name.config}/model_index.json"):
        yield f"config={name.config} is no folder in diffusers' layout: it holds no model_index.json"
    for lora in name.loras:
        yield from _not_weights(lora.file, "LoRAs")


def _not_weights(file: str, kind: str) -> Iterator[str]:
    """Complaint about a ``file`` that can hold no ``kind``: "pipelines", "LoRAs"."""
    if not file.endswith(".safetensors"):
        known = "; pickles are never opened" if file.endswith(_PICKLES) else ""
        inside = "; name the file in it" if exists(file) and Path(file).is_dir() else ""
        yield f"{file or 'nothing'} is no .safetensors file, and {kind} are read from those alone{known}{inside}"
    elif not (exists(file) and Path(file).is_file()):
        yield f"there is no file {file}; give the path of a .safetensors file"


def exists(source: str) -> bool:
    """True if a file or folder has this name; False also for names that nothing can have."""
    try:
        return Path(source).exists()
    except (OSError, ValueError):
        # Too long, or with a character that no path has.
        return False
