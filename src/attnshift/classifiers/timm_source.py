"""Classifiers from timm, with the preprocessing that their own configuration states."""

from __future__ import annotations

import difflib
import zlib
from pathlib import Path

import timm
import torch
from safetensors import SafetensorError
from timm.data import ImageNetInfo, resolve_data_config
from torch import nn

from attnshift.classifiers.classifier import Classifier, Preprocessing
from attnshift.errors import ModelError
from attnshift.weights import classifier_folder

__all__ = ["load_lab", "load_random", "load_timm"]


def load_timm(name: str) -> Classifier:
    """Pretrained model ``name`` of timm, or the folder ``name`` with config.json and model.safetensors."""
    if Path(name).is_dir():
        return _wrap(f"timm:{name}", _create(f"local-dir:{name}", pretrained=True))
    _check(name)
    return _wrap(f"timm:{name}", _create(name, pretrained=True))


def load_random(name: str) -> Classifier:
    """Architecture ``name`` with random weights that depend on the name alone."""
    _check(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(zlib.crc32(name.encode()))
        return _wrap(f"random:{name}", _create(name, pretrained=False))


def load_lab(name: str) -> Classifier:
    return _wrap(f"lab:{name}", _create(f"local-dir:{classifier_folder(name)}", pretrained=True))


def _check(name: str) -> None:
    if not timm.is_model(name.partition(".")[0]):
        near = difflib.get_close_matches(name, timm.list_models(), n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise ModelError(f"timm has no model '{name}'{hint}; timm.list_models() lists them")


def _create(name: str, pretrained: bool) -> nn.Module:
    try:
        return timm.create_model(name, pretrained=pretrained)
    except (OSError, RuntimeError, ValueError, KeyError, SafetensorError) as error:
        raise ModelError(
            f"cannot load '{name}': {str(error).strip().splitlines()[0]}; check the name, the network or the folder"
        ) from error


def _wrap(name: str, network: nn.Module) -> Classifier:
    config = resolve_data_config({}, model=network)
    classes = int(network.num_classes)  # type: ignore[arg-type]
    names = tuple((network.pretrained_cfg or {}).get("label_names") or ())  # type: ignore[union-attr, operator]
    if not names and classes == 1000:
        info = ImageNetInfo()
        names = tuple(info.index_to_description(index).split(",")[0] for index in range(classes))
    height, width = config["input_size"][1:]
    interpolation = config["interpolation"] if config["interpolation"] in ("bilinear", "nearest") else "bicubic"
    preprocessing = Preprocessing((height, width), interpolation, config["mean"], config["std"])
    return Classifier(name, network, preprocessing, classes, names)
