"""A timm architecture with weights from a file on this machine."""

from __future__ import annotations

from pathlib import Path

import timm
from safetensors.torch import load_file
from torch import Tensor, nn

from attnshift.classifiers.classifier import Classifier
from attnshift.classifiers.names import names_beside
from attnshift.classifiers.timm_source import check_architecture, preprocessing, wrapping
from attnshift.errors import ModelError
from attnshift.untrusted import check_finite, read_json, safetensors_shapes

__all__ = ["load_checkpoint"]


def load_checkpoint(name: str) -> Classifier:
    """Classifier ``ARCHITECTURE@PATH.safetensors``: a timm network with the weights in that file.

    The keys are those of the network's ``state_dict``, and may all begin with a prefix that
    ``wrapping`` finds. The head gives the number of classes. ``PATH.classes.json`` may name the
    classes, as a list in label order, or ``class_names.txt`` beside it, one a line. The
    preprocessing is that of the architecture's timm configuration, which a tag selects:
    ``resnet50.tv_in1k@PATH…``.

    Raises ``ModelError`` if the file is not a safetensors file, or if a key, a shape or a value
    does not fit.
    """
    architecture, _, file = name.partition("@")
    path = Path(file)
    if path.suffix != ".safetensors":
        raise ModelError(
            f"checkpoint '{name}' is not of the form ARCHITECTURE@PATH.safetensors; pickles (.pt, .pth, .bin) are "
            "never opened: save the state_dict with safetensors.torch.save_file"
        )
    check_architecture(architecture)
    if path.is_dir():
        raise ModelError(f"{path} is a folder; give the safetensors file in it, or load the folder as timm:{path}")
    prefix = wrapping(safetensors_shapes(path))
    weights = {key.removeprefix(prefix): value for key, value in load_file(path).items()}
    network = _network(architecture, weights, path)
    classes = int(network.num_classes)  # type: ignore[arg-type]
    return Classifier(f"checkpoint:{name}", network, preprocessing(network), classes, _class_names(path, classes))


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
    wanted = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    found = {key: tuple(value.shape) for key, value in weights.items()}
    for key in sorted(wanted.keys() | found.keys()):
        if wanted.get(key) != found.get(key):
            there, expected = (str(shapes[key]) if key in shapes else "nothing" for shapes in (found, wanted))
            raise ModelError(f"{path} does not fit {architecture}: it has {there} for {key}, expected {expected}")
    network.load_state_dict(weights)
    check_finite(network.state_dict(), path)
    return network


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
