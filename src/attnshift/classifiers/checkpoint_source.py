"""A network with weights from a file on this machine."""

from __future__ import annotations

from pathlib import Path

import timm
from safetensors.torch import load_file
from torch import Tensor, nn

from attnshift.classifiers.classifier import Classifier
from attnshift.classifiers.described import about, read_description
from attnshift.classifiers.huggingface_source import LogitsAlone
from attnshift.classifiers.names import names_beside
from attnshift.classifiers.timm_source import check_architecture, preprocessing, wrapping
from attnshift.errors import ModelError
from attnshift.untrusted import check_finite, read_json, safetensors_shapes

__all__ = ["load_checkpoint"]

_PROBED = 977
"""Classes of a network that is built to find its head: a prime, the width of no other layer."""


def load_checkpoint(name: str) -> Classifier:
    """Classifier ``PATH.safetensors`` with ``PATH.json``, or ``ARCHITECTURE@PATH.safetensors``.

    The JSON names a library, an architecture, arguments, the preprocessing and the class names
    (``Description``). Without it the architecture is timm's, and the preprocessing is that of its
    timm configuration, which a tag selects: ``resnet50.tv_in1k@PATH…``.

    The keys of the weights are those of the network's ``state_dict``, and may all begin with a
    prefix that ``wrapping`` finds. The head gives the number of classes. ``PATH.classes.json`` may
    name the classes, as a list in label order, or ``class_names.txt`` beside it, one a line.

    Raises ``ModelError`` if the file is not a safetensors file, or if a key, a shape or a value
    does not fit.
    """
    described = Path(name).with_suffix(".json")
    if name.endswith(".safetensors") and described.is_file():
        return _load_described(name, Path(name), described)
    architecture, _, file = name.partition("@")
    path = Path(file)
    if path.suffix != ".safetensors":
        raise ModelError(_no_form(name))
    check_architecture(architecture)
    weights = _weights(path)
    network = _network(architecture, weights, path)
    classes = int(network.num_classes)  # type: ignore[arg-type]
    return Classifier(f"checkpoint:{name}", network, preprocessing(network), classes, _class_names(path, classes))


def _no_form(name: str) -> str:
    if name.endswith(".safetensors"):
        return (
            f"checkpoint '{name}' has no {Path(name).with_suffix('.json')} that describes it; write one "
            "(docs/inputs.md), or name a timm architecture: ARCHITECTURE@PATH.safetensors"
        )
    return (
        f"checkpoint '{name}' is not of the form PATH.safetensors, with PATH.json beside it, or "
        "ARCHITECTURE@PATH.safetensors; pickles (.pt, .pth, .bin) are never opened: save the state_dict with "
        "safetensors.torch.save_file"
    )


def _load_described(name: str, path: Path, described: Path) -> Classifier:
    description, weights = read_description(described), _weights(path)
    called = f"{description.architecture} as {described.name} describes it"
    with about(described):
        outline = description.outline(_PROBED)
    classes = _classes(outline, weights, path, called)
    with about(described):
        names, outline = description.names_of(classes), description.outline(classes)
    # Before memory is taken for it.
    _check_fit(outline, weights, path, called)
    network = description.network(classes)
    _fill(network, weights, path)
    if description.library == "transformers":
        network = LogitsAlone(network)
    names = names or _class_names(path, classes)
    return Classifier(f"checkpoint:{name}", network, description.preprocessing.build(), classes, names)


def _weights(path: Path) -> dict[str, Tensor]:
    """Weights in the safetensors file ``path``, without the prefix of a wrapper."""
    if path.is_dir():
        raise ModelError(f"{path} is a folder; give the safetensors file in it, or load the folder as timm:{path}")
    prefix = wrapping(safetensors_shapes(path))
    return {key.removeprefix(prefix): value for key, value in load_file(path).items()}


def _classes(outline: nn.Module, weights: dict[str, Tensor], path: Path, called: str) -> int:
    """Number of classes in ``weights``. ``outline`` is their network with a head of ``_PROBED``."""
    heads = [key for key, value in outline.state_dict().items() if value.ndim and len(value) == _PROBED]
    head = next((key for key in heads if key in weights), None)
    if head is None:
        missing = heads[0] if heads else "head"
        raise ModelError(f"{path} has no {missing}, the head of {called}; are these the weights of another network?")
    if not weights[head].ndim:
        raise ModelError(f"{path} has a single value for {head}; are these the weights of another network?")
    return max(len(weights[head]), 1)


def _head(architecture: str) -> str:
    heads = timm.get_pretrained_cfg_value(architecture, "classifier") or ()
    return f"{heads if isinstance(heads, str) else next(iter(heads), 'head')}.weight"


def _network(architecture: str, weights: dict[str, Tensor], path: Path) -> nn.Module:
    """Network with ``weights`` and as many classes as their head has.

    Raises ``ModelError`` if a key or a shape does not fit.
    """
    head = _head(architecture)
    if head not in weights:
        raise ModelError(f"{path} has no {head}, the head of {architecture}; are these the weights of another network?")
    if weights[head].ndim == 0:
        raise ModelError(f"{path} has a single value for {head}; are these the weights of another network?")
    network = timm.create_model(architecture, pretrained=False, num_classes=len(weights[head]))
    _check_fit(network, weights, path, architecture)
    _fill(network, weights, path)
    return network


def _check_fit(network: nn.Module, weights: dict[str, Tensor], path: Path, called: str) -> None:
    """Raise ``ModelError`` unless ``weights`` have the keys and shapes of ``network``.

    Messages call the network ``called``.
    """
    wanted = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    found = {key: tuple(value.shape) for key, value in weights.items()}
    for key in sorted(wanted.keys() | found.keys()):
        if wanted.get(key) != found.get(key):
            there, expected = (str(shapes[key]) if key in shapes else "nothing" for shapes in (found, wanted))
            raise ModelError(f"{path} does not fit {called}: it has {there} for {key}, expected {expected}")


def _fill(network: nn.Module, weights: dict[str, Tensor], path: Path) -> None:
    """Give ``network`` the ``weights``, in its own precision."""
    network.load_state_dict(weights)
    check_finite(network.state_dict(), path)


def _class_names(path: Path, classes: int) -> tuple[str, ...]:
    """Class names in ``PATH.classes.json`` or in ``class_names.txt`` beside it; empty without
    either."""
    listed = path.with_suffix(".classes.json")
    if not listed.exists():
        return names_beside(path.parent)
    names = read_json(listed)
    if not isinstance(names, list) or not all(isinstance(each, str) and each.strip() for each in names):
        raise ModelError(f"{listed} must be a list of class names")
    if len(names) != classes:
        raise ModelError(f"{listed} has {len(names)} class names, and the head of {path} has {classes} classes")
    return tuple(names)
