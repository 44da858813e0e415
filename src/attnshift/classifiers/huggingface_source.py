"""Image classifiers in Hugging Face's format, with the preprocessing of their image processor."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageClassification, PreTrainedConfig
from transformers.models.auto.image_processing_auto import get_image_processor_config
from transformers.utils import logging

from attnshift.classifiers.classifier import Classifier, Interpolation, Preprocessing
from attnshift.classifiers.heads import check_head
from attnshift.classifiers.names import names_beside, words
from attnshift.errors import ModelError
from attnshift.randomness import generator
from attnshift.untrusted import UNUSABLE, check_finite, reason, safetensors_shapes

__all__ = ["LogitsAlone", "check_code", "load_huggingface", "load_network", "measure_preprocessing"]

Processor = Callable[[NDArray[numpy.uint8]], Tensor]
"""One image [height,width,3] -> the network's input [3,rows,columns]."""

_MOST_CLASSES = 10**6
"""Most classes of a model. transformers names each class, so a huge number would fill the memory.
"""


def load_huggingface(name: str) -> Classifier:
    """Classifier ``name`` of the Hugging Face hub, or in the folder ``name``.

    The folder holds config.json, preprocessor_config.json and model.safetensors. Code of a model is
    never run, and pickles are never opened. Raises ``ModelError`` for a model without a
    classification head, since transformers would give it random weights.
    """
    network, preprocessing = load_network(
        f"huggingface:{name}", name, AutoModelForImageClassification, "take a model with a classification head"
    )
    labels = network.config.id2label
    if sorted(labels) != list(range(len(labels))):
        raise ModelError(f"the classes of huggingface:{name} are numbered {sorted(labels)!s:.80}; expected 0, 1, 2, …")
    # transformers makes up names such as LABEL_3 if a model states none; they are no words.
    names = words([str(labels[index]) for index in range(len(labels))]) or names_beside(Path(name))
    return Classifier(f"huggingface:{name}", LogitsAlone(network), preprocessing, len(labels), names)


def load_network(called: str, name: str, kind: Any, otherwise: str) -> tuple[Any, Preprocessing]:
    """Model ``name``, loaded by transformers' automatic class ``kind``, and its preprocessing.

    Raises ``ModelError`` for a model that contains code, is incomplete or is of another kind.
    Messages call the model ``called``; if weights are missing, they end with the advice
    ``otherwise``.
    """
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        config, _ = PreTrainedConfig.get_config_dict(name)
        check_code(called, config, get_image_processor_config(name))
        _check_classes(called, config)
        if kind is AutoModelForImageClassification:
            check_head(called, config)
        _check_extent(called, Path(name), kind)
        processor = AutoImageProcessor.from_pretrained(name, trust_remote_code=False)
        network, found = kind.from_pretrained(
            name,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=torch.float32,
            # Weights that do not fit are refused below, by name.
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except UNUSABLE as error:
        raise ModelError(
            f"cannot load '{called}': {reason(error)}; check the name, the network or the folder (safetensors only)"
        ) from error
    absent = sorted({*found["missing_keys"], *(each[0] for each in found["mismatched_keys"])})
    if absent:
        raise ModelError(f"{called} has no weights that fit {absent[0]} ({len(absent)} in all); {otherwise}")
    check_finite(network.state_dict(), called)
    return network, measure_preprocessing(called, _processor(processor), _interpolation(processor))


def check_code(called: str, *configs: dict[str, Any]) -> None:
    """Raise ``ModelError`` if one of ``configs`` asks to run code, or if the model is timm's.

    The first of them is the model's own configuration.
    """
    if any("auto_map" in config for config in configs):
        raise ModelError(f"{called} asks to run code of its own (auto_map), which is never done")
    if configs[0].get("model_type") == "timm_wrapper" or "architecture" in configs[0]:
        raise ModelError(f"{called} is a timm model; load it as timm:FOLDER, or from the hub as timm:hf-hub:USER/MODEL")


def _check_classes(called: str, config: dict[str, Any]) -> None:
    classes = config.get("num_labels", 2)
    if type(classes) is not int or not 1 <= classes <= _MOST_CLASSES:
        raise ModelError(f"{called}: num_labels is {classes!r:.80}; expected a whole number from 1 to {_MOST_CLASSES}")


def _check_extent(called: str, folder: Path, kind: Any) -> None:
    """Raise ``ModelError`` if the configuration describes far more weights than the file holds.

    transformers would allocate memory for them and fill them at random.
    """
    file = folder / "model.safetensors"
    if not file.is_file():
        return
    with torch.device("meta"):
        network = kind.from_config(AutoConfig.from_pretrained(folder, trust_remote_code=False), trust_remote_code=False)
    asked = sum(value.numel() for value in network.state_dict().values())
    there = sum(map(math.prod, safetensors_shapes(file).values()))
    if asked > 2 * there:
        raise ModelError(f"{called}: config.json describes {asked} weights, and model.safetensors holds {there}")


def measure_preprocessing(name: str, processor: Processor, interpolation: Interpolation) -> Preprocessing:
    """Preprocessing that equals ``processor`` on square images, found by measurement.

    A wide image tells whether it resizes the shorter side or squashes the whole.

    The values in the configuration are not enough: ConvNeXT's processor crops a larger image, and
    EfficientNet's normalises twice. Black and white images give mean and std, and ramps give the
    size before the crop. A smooth image then shows that the processor does nothing else.

    Raises ``ModelError`` if the two differ on that image by more than 4 levels of 255 on average.
    The choice of the side at which an odd pixel is cropped makes a smaller difference.
    """
    black, white = (processor(numpy.full((256, 256, 3), level, numpy.uint8)).double() for level in (0, 255))
    spread = (white - black).mean((1, 2))
    if not bool((spread > 0).all()):
        raise ModelError(f"the image processor of {name} does not tell black from white")
    std = 1 / spread
    mean = -black.mean((1, 2)) * std
    rows, columns = black.shape[1:]
    side = 2 * max(rows, columns)
    ramp = _ramp(side)
    down = _length(processor(ramp).double().mean((0, 2)) / spread.mean(), side)
    across = _length(processor(ramp.swapaxes(0, 1)).double().mean((0, 1)) / spread.mean(), side)
    resized = None if (down, across) == (rows, columns) else (down, across)
    measured = Preprocessing((rows, columns), interpolation, _three(mean), _three(std), resized)
    _prove(name, processor, measured, side)
    return min((measured, replace(measured, squash=True)), key=lambda each: _gap(processor, each, (side, 2 * side)))


_RISE, _TILT = 239, 16
"""Levels of 255 that a ramp rises by, along its axis and across it.

The tilt averages rounding errors out.
"""


def _ramp(side: int) -> NDArray[numpy.uint8]:
    along, across = numpy.linspace(0, _RISE, side)[:, None], numpy.linspace(0, _TILT, side)[None]
    return numpy.repeat((along + across).round().astype(numpy.uint8)[..., None], 3, 2)


def _length(ramp: Tensor, side: int) -> int:
    """Length in pixels of a resized image, from a ramp over ``side`` pixels.

    ``ramp`` holds the means of the pixels left after the crop. The slope is fitted to inner pixels,
    whose kernels lie inside the image. The error from rounding to 8 bits is below half a pixel.
    """
    inner = ramp[4:-4] if len(ramp) > 16 else ramp
    places = torch.arange(len(inner), dtype=torch.float64)
    places = places - places.mean()
    slope = float((places * inner).sum() / (places**2).sum())
    # The ramp rises from the centre of the first pixel to the centre of the last.
    return round(_RISE / 255 * side / (side - 1) / slope) if slope > 0 else len(ramp)


def _prove(name: str, processor: Processor, measured: Preprocessing, side: int) -> None:
    for sides in (side, 3 * side // 2):
        if _gap(processor, measured, (sides, sides)) > 4 / 255:
            raise ModelError(
                f"the image processor of {name} does more than to resize, cut and normalise; load the network yourself "
                "and give it to attnshift.Classifier.wrap"
            )


def _gap(processor: Processor, measured: Preprocessing, sides: tuple[int, int]) -> float:
    """Mean difference of the two on a smooth image with these rows and columns, in [0,1] and above;
    infinite where their shapes differ."""
    coarse = (generator("image processor", sides[0]).random((3, 3, 3)) * 255).astype(numpy.uint8)
    image = numpy.asarray(Image.fromarray(coarse).resize((sides[1], sides[0]), Image.Resampling.BICUBIC))
    given = processor(image)
    expected = measured(torch.from_numpy(image.copy()).movedim(2, 0)[None] / 255)[0]
    std = torch.tensor(measured.std).view(3, 1, 1)
    return float(((given - expected) * std).abs().mean()) if given.shape == expected.shape else math.inf


def _processor(processor: Any) -> Processor:
    return lambda image: processor(images=Image.fromarray(image), return_tensors="pt")["pixel_values"][0].float()


def _interpolation(processor: Any) -> Interpolation:
    """Interpolation of ``processor``, by Pillow's number.

    Bicubic stands for unknown ones, such as Lanczos.
    """
    known: dict[int | None, Interpolation] = {0: "nearest", 2: "bilinear", None: "bilinear"}
    return known.get(getattr(processor, "resample", 3), "bicubic")


class LogitsAlone(nn.Module):
    """Network of transformers that returns only its logits."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network(pixel_values=images).logits


def _three(values: Tensor) -> tuple[float, float, float]:
    first, second, third = (round(value, 6) for value in values.tolist())
    return first, second, third
