"""Classifiers from timm, with the preprocessing of their configuration."""

from __future__ import annotations

import math
import zlib
from pathlib import Path

import timm
import torch
from timm.data import ImageNetInfo, resolve_data_config
from torch import nn

from attnshift.classifiers.classifier import Classifier, Preprocessing
from attnshift.errors import ModelError
from attnshift.registry import suggest
from attnshift.untrusted import UNUSABLE, check_finite, read_object, reason, safetensors_shapes

__all__ = ["check_architecture", "load_random", "load_timm", "preprocessing"]

_MOST_CLASSES = 10**6
"""Most classes of a model. A huge number in a configuration would fill the memory."""


def load_timm(name: str) -> Classifier:
    """Pretrained model ``name`` of timm, or of the folder ``name``.

    A folder holds config.json and model.safetensors. Raises ``ModelError`` if it cannot be loaded.
    """
    if Path(name).is_dir():
        _check_folder(Path(name))
        network = _create(f"local-dir:{name}", pretrained=True)
        stated = (network.pretrained_cfg or {}).get("num_classes")  # type: ignore[union-attr, operator]
        if stated not in (None, network.num_classes):
            # In this case timm keeps the head's random weights.
            raise ModelError(f"{name}/config.json states {stated} classes, and its model_args {network.num_classes}")
        return _wrap(f"timm:{name}", network)
    check_architecture(name)
    return _wrap(f"timm:{name}", _create(name, pretrained=True))


def load_random(name: str) -> Classifier:
    """Architecture ``name`` of timm with random weights that depend on the name alone.

    Raises ``ModelError`` if timm does not know it.
    """
    check_architecture(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(zlib.crc32(name.encode()))
        return _wrap(f"random:{name}", _create(name, pretrained=False))


def check_architecture(name: str) -> None:
    """Raise ``ModelError`` unless timm knows the architecture ``name``, with or without a tag."""
    if not timm.is_model(name.partition(".")[0]):
        hint = suggest(name, timm.list_models())
        raise ModelError(f"timm has no model '{name}'{hint}; timm.list_models() lists them")


def preprocessing(network: nn.Module) -> Preprocessing:
    """Preprocessing in the configuration of ``network``, including timm's crop at evaluation.

    timm's modes of cropping are all the same on square images.
    """
    config = resolve_data_config({}, model=network)
    height, width = config["input_size"][1:]
    resized = (math.floor(height / config["crop_pct"]), math.floor(width / config["crop_pct"]))
    interpolation = config["interpolation"] if config["interpolation"] in ("bilinear", "nearest") else "bicubic"
    return Preprocessing(
        (height, width), interpolation, config["mean"], config["std"], None if resized == (height, width) else resized
    )


def _create(name: str, pretrained: bool) -> nn.Module:
    try:
        network = timm.create_model(name, pretrained=pretrained)
    except UNUSABLE as error:
        raise ModelError(f"cannot load '{name}': {reason(error)}; check the name, the network or the folder") from error
    check_finite(network.state_dict(), name)
    return network


def _check_folder(folder: Path) -> None:
    """Raise ``ModelError`` unless ``folder`` holds safetensors, else timm would open a pickle."""
    path = folder / "config.json"
    classes = read_object(path).get("num_classes", 1)
    if type(classes) is not int or not 1 <= classes <= _MOST_CLASSES:
        raise ModelError(f"{path}: num_classes is {classes!r:.80}; expected a whole number from 1 to {_MOST_CLASSES}")
    safetensors_shapes(folder / "model.safetensors")


def _wrap(name: str, network: nn.Module) -> Classifier:
    classes = int(network.num_classes)  # type: ignore[arg-type]
    names = tuple((network.pretrained_cfg or {}).get("label_names") or ())  # type: ignore[union-attr, operator]
    if not names and classes == 1000:
        info = ImageNetInfo()
        names = tuple(info.index_to_description(index).split(",")[0] for index in range(classes))
    return Classifier(name, network, preprocessing(network), classes, names)
