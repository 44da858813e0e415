"""Classifiers from timm, with the preprocessing of their configuration."""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import HfApi, hf_hub_download, try_to_load_from_cache
from safetensors.torch import load_file
from timm.data import resolve_data_config
from timm.data.imagenet_info import infer_imagenet_subset
from torch import nn

from attnshift.classifiers.classifier import Classifier, Preprocessing
from attnshift.classifiers.heads import check_head
from attnshift.classifiers.names import IMAGENET, imagenet_names, is_word, names_beside, words
from attnshift.errors import ModelError
from attnshift.registry import suggest
from attnshift.untrusted import UNUSABLE, check_finite, read_object, reason, safetensors_shapes

__all__ = ["check_architecture", "load_random", "load_timm", "preprocessing", "wrapping"]

_MOST_CLASSES = 10**6
"""Most classes of a model. A huge number in a configuration would fill the memory."""

_WRAPPERS = ("module.", "model.", "_orig_mod.")
"""Prefixes of keys by torch's DataParallel,
by Lightning and other trainers, and by torch.compile."""

_HUB = re.compile(r"hf[-_]hub:(?P<model>.+)")

_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""Files in which the hub has weights of timm."""

_HUB_SECONDS = 5.0
"""Longest wait for the first answer of the hub, in seconds."""


def load_timm(name: str) -> Classifier:
    """Pretrained model ``name`` of timm, of the folder ``name``,
    or of the hub as ``hf-hub:USER/MODEL``.

    A folder holds config.json and model.safetensors, whose keys may all begin with a prefix that
    ``wrapping`` finds. Its classes have the names that config.json or
    ``class_names.txt`` states. timm's own weights, and a folder whose model card states the data
    set imagenet-1k, have ImageNet's names. Raises ``ModelError`` if it cannot be loaded.
    """
    hub = _HUB.fullmatch(name)
    if hub is not None:
        return _load_folder(name, _downloaded(hub["model"]), own=hub["model"].startswith("timm/"))
    if Path(name).is_dir():
        return _load_folder(name, Path(name))
    check_architecture(name)
    try:
        source = timm.get_pretrained_cfg(name)
    except RuntimeError:
        architecture = name.partition(".")[0]
        raise ModelError(f"timm has no weights '{name}'; timm.list_pretrained('{architecture}*') lists them") from None
    if source is not None and source.hf_hub_id:
        _ask_hub(source.hf_hub_id, name)
    network = _create(name, pretrained=True)
    return _wrap(f"timm:{name}", network, _imagenet_names(network))


def _load_folder(name: str, folder: Path, own: bool = False) -> Classifier:
    """Classifier in ``folder``, called ``name``;
    ``own`` is true for weights that timm publishes."""
    config = _check_folder(folder)
    network = _create(f"local-dir:{folder}", pretrained=True, overlay=_unwrapped(folder / "model.safetensors"))
    settings: dict[str, Any] = network.pretrained_cfg or {}  # type: ignore[assignment]
    settings.pop("state_dict", None)
    stated = settings.get("num_classes")
    if stated not in (None, network.num_classes):
        # In this case timm keeps the head's random weights.
        raise ModelError(f"{folder}/config.json states {stated} classes, and its model_args {network.num_classes}")
    names = _stated_names(config, int(network.num_classes), folder / "config.json")  # type: ignore[arg-type]
    names = words(names) or names_beside(folder)
    if not names and (own or _states_imagenet(folder)):
        names = _imagenet_names(network)
    return _wrap(f"timm:{name}", network, names)


def load_random(name: str) -> Classifier:
    """Architecture ``name`` of timm with random weights that depend on the name alone.

    Raises ``ModelError`` if timm does not know it.
    """
    check_architecture(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(zlib.crc32(name.encode()))
        network = _create(name, pretrained=False)
        return _wrap(f"random:{name}", network, _imagenet_names(network))


def check_architecture(name: str) -> None:
    """Raise ``ModelError`` unless timm knows the architecture ``name``, with or without a tag."""
    if not timm.is_model(name.partition(".")[0]):
        hint = suggest(name, timm.list_models())
        other = f"hf-hub:{name} is a model of the hub, " if name.count("/") == 1 else ""
        raise ModelError(f"timm has no model '{name}'{hint}; {other}timm.list_models() lists them")


def preprocessing(network: nn.Module) -> Preprocessing:
    """Preprocessing in the configuration of ``network``, including timm's crop at evaluation.

    timm's modes of cropping are all the same on square images. Of others, "center" and "squash" are
    followed, and "border", which frames an image, is taken as "center".
    """
    config = resolve_data_config({}, model=network)
    height, width = config["input_size"][1:]
    resized = (math.floor(height / config["crop_pct"]), math.floor(width / config["crop_pct"]))
    interpolation = config["interpolation"] if config["interpolation"] in ("bilinear", "nearest") else "bicubic"
    return Preprocessing(
        (height, width),
        interpolation,
        config["mean"],
        config["std"],
        None if resized == (height, width) else resized,
        config["crop_mode"] == "squash",
    )


def wrapping(keys: Iterable[str]) -> str:
    """Prefix that wrappers of a network put before all ``keys`` of its weights; empty if none did.

    >>> wrapping(["module.model.fc.weight", "module.model.fc.bias"]), wrapping(["model.a", "b"])
    ('module.model.', '')
    """
    prefix, keys = "", [*keys]
    while keys and (found := next((each for each in _WRAPPERS if all(key.startswith(each) for key in keys)), "")):
        prefix, keys = prefix + found, [key.removeprefix(found) for key in keys]
    return prefix


def _unwrapped(path: Path) -> dict[str, Any]:
    """Change of a configuration that gives timm the weights
    in ``path`` without the prefix of a wrapper."""
    prefix = wrapping(safetensors_shapes(path))
    if not prefix:
        return {}
    weights = {key.removeprefix(prefix): value for key, value in load_file(path).items()}
    return {"source": "", "state_dict": weights}


def _create(name: str, pretrained: bool, overlay: Mapping[str, Any] = {}) -> nn.Module:
    try:
        network = timm.create_model(name, pretrained=pretrained, pretrained_cfg_overlay=dict(overlay))
    except UNUSABLE as error:
        raise ModelError(f"cannot load '{name}': {reason(error)}; check the name, the network or the folder") from error
    check_finite(network.state_dict(), name)
    return network


def _ask_hub(model: str, name: str) -> None:
    """Ask the hub once for ``model`` unless its cache holds weights of it: a library that gets no
    answer asks a dozen times. Raises ``ModelError``, which calls it ``name``."""
    if any(isinstance(try_to_load_from_cache(model, file), str) for file in _WEIGHTS):
        return
    try:
        HfApi().model_info(model, timeout=_HUB_SECONDS)
    except Exception as error:  # noqa: BLE001
        # Each version of the library brings the exceptions of another network library.
        raise ModelError(
            f"cannot load '{name}': the Hugging Face hub gives no {model} ({reason(error)}); "
            "check the name and the network, or give a folder: timm:FOLDER"
        ) from None


def _downloaded(model: str) -> Path:
    """Folder with config.json and model.safetensors of the hub's ``model``,
    out of the cache if they are there.

    Raises ``ModelError`` if the hub cannot be reached or does not have them.
    """
    _ask_hub(model, f"timm:hf-hub:{model}")
    try:
        files = [
            hf_hub_download(model, file, etag_timeout=_HUB_SECONDS) for file in ("config.json", "model.safetensors")
        ]
    except UNUSABLE as error:
        raise ModelError(
            f"cannot load 'timm:hf-hub:{model}': {reason(error)}; check the name and the network; "
            "config.json and model.safetensors are needed, and a folder that holds them does as well: timm:FOLDER"
        ) from error
    return Path(files[0]).parent


def _check_folder(folder: Path) -> dict[str, Any]:
    """Configuration of ``folder``.

    Raises ``ModelError`` unless the folder holds safetensors, else timm would open a pickle.
    """
    path = folder / "config.json"
    config = read_object(path)
    classes = config.get("num_classes", 1)
    if type(classes) is not int or not 1 <= classes <= _MOST_CLASSES:
        raise ModelError(f"{path}: num_classes is {classes!r:.80}; expected a whole number from 1 to {_MOST_CLASSES}")
    check_head(str(folder), config)
    safetensors_shapes(folder / "model.safetensors")
    return config


def _stated_names(config: Mapping[str, Any], classes: int, path: Path) -> tuple[str, ...]:
    """Names that a configuration in timm's format states for ``classes`` classes; empty if none.

    ``label_names`` is a list in label order, or an object from number to name that may have gaps: a
    class without a name gets the name ``""``. A name that is no word, such as a synset, stands for
    its text in ``label_descriptions``. Raises ``ModelError`` for anything else.
    """
    inner = config.get("pretrained_cfg")
    places = [config, *([inner] if isinstance(inner, dict) else [])]
    listed = next((value for each in places for key in ("label_names", "labels") if (value := each.get(key))), None)
    described = next((value for each in places if (value := each.get("label_descriptions"))), {})
    if listed is None:
        return ()
    numbered = _numbered(listed, path)
    outside = [number for number in numbered if not 0 <= number < classes]
    if outside:
        raise ModelError(f"{path}: label_names names class {outside[0]}, and the head has {classes} classes from 0 on")
    if isinstance(listed, list) and len(listed) != classes:
        raise ModelError(f"{path}: label_names has {len(listed)} names, and the head has {classes} classes")
    if not isinstance(described, dict):
        described = dict(zip(numbered.values(), described, strict=False)) if isinstance(described, list) else {}
    return tuple(_spoken(numbered.get(number, ""), described) for number in range(classes))


def _numbered(listed: object, path: Path) -> dict[int, str]:
    """Number -> name of ``label_names``, whichever way round an object has them."""
    if isinstance(listed, list) and all(isinstance(name, str) for name in listed):
        return dict(enumerate(listed))
    if isinstance(listed, dict):
        if all(key.isdecimal() and isinstance(name, str) for key, name in listed.items()):
            return {int(key): name for key, name in listed.items()}
        if all(type(number) is int for number in listed.values()) and len({*listed.values()}) == len(listed):
            return {number: name for name, number in listed.items()}
    raise ModelError(f"{path}: label_names must be a list of names, or an object from class number to name")


def _spoken(name: str, described: Mapping[str, object]) -> str:
    """``name`` if it is a word, else the first synonym of its description."""
    text = described.get(name)
    if is_word(name) or not isinstance(text, str):
        return name
    return text.partition(":")[0].partition(",")[0]


def _states_imagenet(folder: Path) -> bool:
    """True if the model card of ``folder`` states the data set imagenet-1k."""
    card = folder / "README.md"
    head = card.read_bytes()[:10_000].decode(errors="replace") if card.is_file() else ""
    front = re.match(r"---\s*\n(.*?)\n---", head, re.DOTALL)
    return front is not None and re.search(rf"(?m)^\W*(datasets:.*)?\b{IMAGENET}\b", front[1]) is not None


def _imagenet_names(network: nn.Module) -> tuple[str, ...]:
    """Names of ImageNet's classes, for a network with a head and weights of timm's own that was
    trained on them; empty for any other."""
    subset = infer_imagenet_subset(network)
    trained = re.search(r"in(1k|12k|21k|22k)", str((network.pretrained_cfg or {}).get("tag")))  # type: ignore[union-attr, operator]
    return imagenet_names(subset) if subset and trained else ()


def _wrap(name: str, network: nn.Module, names: tuple[str, ...]) -> Classifier:
    classes = int(network.num_classes)  # type: ignore[arg-type]
    return Classifier(name, network, preprocessing(network), classes, names)
