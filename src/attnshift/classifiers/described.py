"""Networks that a JSON file describes by names and plain values.

Names are looked up in the tables of libraries. Nothing in the file is run.
"""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import timm
import torch
from pydantic import BaseModel, Field, ValidationError, model_validator
from torch import nn
from torchvision import models
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES

from attnshift.classifiers.classifier import Interpolation, Preprocessing
from attnshift.classifiers.heads import check_head
from attnshift.classifiers.names import IMAGENET, imagenet_names
from attnshift.errors import ModelError
from attnshift.registry import STRICT, describe, suggest
from attnshift.untrusted import UNUSABLE, read_object, reason

__all__ = ["Description", "about", "read_description"]

Library = Literal["timm", "torchvision", "transformers"]

_Value = bool | int | float | str | None
_Plain = _Value | tuple[_Value, ...]

_LARGEST = 8192
"""Largest number among arguments, and most values in one. No network that anybody trained has more.
"""

_DECIDED = (
    "num_classes",
    "num_labels",
    "in_chans",
    "num_channels",
    "features_only",
    "id2label",
    "label2id",
    "progress",
)
"""Arguments that the weights or this package decide."""

_LOADING = ("weights", "pretrained", "checkpoint", "cfg", "config", "cache", "backbone", "implementation", "auto_map")
"""Parts of the names of arguments by which a library would read files or fetch code."""

_CLASS_LISTS = {IMAGENET: imagenet_names}
"""Lists of class names that are known by a name."""


class PreprocessingSection(BaseModel):
    """Preprocessing of square images in [0,1].

    The image is resized to ``size`` / ``crop_pct``, its centre of ``size`` is cut out, and each
    channel is normalised. ``size`` is a side, or rows and columns, in pixels.
    """

    model_config = STRICT

    size: Annotated[int, Field(ge=1, le=4096)] | tuple[Annotated[int, Field(ge=1, le=4096)], ...]
    crop_pct: float = Field(default=1.0, gt=0, le=1)
    interpolation: Interpolation
    mean: tuple[Annotated[float, Field(ge=0, le=1)], ...]
    std: tuple[Annotated[float, Field(gt=0, le=1)], ...]

    @model_validator(mode="after")
    def _has_three_channels(self) -> PreprocessingSection:
        if len(self.mean) != 3 or len(self.std) != 3:
            raise ValueError("mean and std must have three values, for images in [0,1]")
        if isinstance(self.size, tuple) and len(self.size) != 2:
            raise ValueError("size must be one side, or rows and columns")
        return self

    def build(self) -> Preprocessing:
        """The same as ``Preprocessing``."""
        size = (self.size, self.size) if isinstance(self.size, int) else (self.size[0], self.size[1])
        resized = (math.floor(size[0] / self.crop_pct), math.floor(size[1] / self.crop_pct))
        (red, green, blue), (*std,) = self.mean, self.std
        return Preprocessing(
            size, self.interpolation, (red, green, blue), (std[0], std[1], std[2]), None if resized == size else resized
        )


class Description(BaseModel):
    """A network of a ``library`` by the name of its ``architecture``, with ``arguments`` for it.

    ``class_names`` are a list in label order, or the name of a known list; without them the classes
    have no names.
    """

    model_config = STRICT

    library: Library
    architecture: str
    arguments: dict[str, _Plain] = Field(default_factory=dict)
    preprocessing: PreprocessingSection
    class_names: tuple[str, ...] | str = ()

    def network(self, classes: int) -> nn.Module:
        """The network with random weights and a head of ``classes``.

        ``ModelError`` is raised for what the library refuses.
        """
        try:
            return _BUILDERS[self.library](self.architecture, classes, self._arguments)
        except UNUSABLE as error:
            raise ModelError(
                f"{self.library} does not build {self.architecture} with these arguments: {reason(error)}"
            ) from None

    def outline(self, classes: int) -> nn.Module:
        """The same without memory for its weights."""
        with torch.device("meta"):
            return self.network(classes)

    def names_of(self, classes: int) -> tuple[str, ...]:
        """Names of the ``classes``; a list of another length is a ``ModelError``."""
        names = _CLASS_LISTS[self.class_names]() if isinstance(self.class_names, str) else self.class_names
        if names and len(names) != classes:
            raise ModelError(f"class_names has {len(names)} names, and the head of the weights has {classes} classes")
        return names

    @property
    def _arguments(self) -> dict[str, Any]:
        return {name: list(value) if isinstance(value, tuple) else value for name, value in self.arguments.items()}


def read_description(path: Path) -> Description:
    """Description in the JSON file ``path``.

    Raises ``ModelError`` for an unknown key, a value of another type, an architecture that the
    library does not have, and an argument that is not the architecture's.
    """
    values = read_object(path)
    with about(path):
        try:
            description = Description.model_validate_json(json.dumps(values))
        except ValidationError as error:
            raise ModelError(_told(error)) from None
        _check_class_names(description.class_names)
        _check_architecture(description)
        _check_arguments(description)
        check_head("the network", description.arguments)
    return description


@contextmanager
def about(path: Path) -> Iterator[None]:
    """Put ``path`` in front of a ``ModelError``."""
    try:
        yield
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None


def _check_class_names(given: tuple[str, ...] | str) -> None:
    if isinstance(given, str) and given not in _CLASS_LISTS:
        known = ", ".join(_CLASS_LISTS)
        raise ModelError(f"class_names is '{given:.80}'; give a list of names, or the name of a known list: {known}")
    if not all(name.strip() for name in given):
        raise ModelError("class_names has an empty name; give each class a name, in label order")


def _told(error: ValidationError) -> str:
    """First complaint, without the names that pydantic gives to the choices of a union."""
    place = [str(each) for each in error.errors()[0]["loc"]]
    match place:
        case ["arguments", name, *_]:
            return f"arguments.{name:.80}: expected a text, a number, true, false, null or a list of these"
        case ["class_names", *_]:
            return "class_names: expected a list of texts, or the name of a known list"
        case ["preprocessing", "size", *_]:
            return "preprocessing.size: expected a whole number of pixels from 1 to 4096, or a list of two"
        case ["preprocessing", "mean" | "std" as name, *_]:
            return f"preprocessing.{name}: expected three numbers from 0 to 1, for images in [0,1]; 0 is no std"
    return describe(error, Description)


def _check_architecture(description: Description) -> None:
    known = _architectures(description.library)
    name = description.architecture
    if name not in known:
        raise ModelError(f"{description.library} has no architecture '{name}'{suggest(name, known)}")


def _architectures(library: Library) -> list[str]:
    if library == "timm":
        return timm.list_models()
    if library == "torchvision":
        return models.list_models(module=models)
    # timm_wrapper would hand its arguments to timm.
    return [name for kind, name in _TRANSFORMERS if kind != "timm_wrapper"]


_TRANSFORMERS = [
    (kind, name)
    for kind, names in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES.items()
    for name in ([names] if isinstance(names, str) else names)
]
"""Kinds and class names of the image classifiers of transformers."""


def _check_arguments(description: Description) -> None:
    for name, value in description.arguments.items():
        if name in _DECIDED:
            raise ModelError(f"arguments.{name} is decided by the weights; leave it out")
        if name.startswith("_") or any(part in name for part in _LOADING):
            raise ModelError(f"arguments.{name} would let {description.library} load something; leave it out")
        values = value if isinstance(value, tuple) else (value,)
        large = [each for each in values if isinstance(each, int | float) and not -_LARGEST <= each <= _LARGEST]
        if large or len(values) > _LARGEST:
            raise ModelError(f"arguments.{name} is {value!r:.80}; at most {_LARGEST} is supported")
    if description.library == "transformers":
        known = [*inspect.signature(_transformers_class(description.architecture).config_class).parameters]
        for name in description.arguments:
            if name not in known:
                raise ModelError(f"{description.architecture} has no argument '{name}'{suggest(name, known)}")


def _transformers_class(name: str) -> Any:
    import transformers

    return getattr(transformers, name)


def _timm(name: str, classes: int, arguments: dict[str, Any]) -> nn.Module:
    return timm.create_model(name, pretrained=False, num_classes=classes, **arguments)


def _torchvision(name: str, classes: int, arguments: dict[str, Any]) -> nn.Module:
    return models.get_model(name, weights=None, num_classes=classes, **arguments)


def _transformers(name: str, classes: int, arguments: dict[str, Any]) -> nn.Module:
    kind = _transformers_class(name)
    return kind(kind.config_class(num_labels=classes, **arguments))


_BUILDERS: dict[Library, Callable[[str, int, dict[str, Any]], nn.Module]] = {
    "timm": _timm,
    "torchvision": _torchvision,
    "transformers": _transformers,
}
assert {*_BUILDERS} == {*get_args(Library)}
