"""Classifiers by name: ``source:name``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attnshift.errors import ModelError
from attnshift.registry import Entry, Table, check_known, look_up

if TYPE_CHECKING:
    from attnshift.classifiers.classifier import Classifier

SOURCES = Table(
    "classifier source",
    {
        "timm": Entry(
            "a pretrained timm model, a folder in timm's format, or hf-hub:USER/MODEL",
            "Wightman, timm",
            "attnshift.classifiers.timm_source:load_timm",
        ),
        "random": Entry(
            "a timm architecture with random weights, to try a set-up where nothing can be downloaded",
            "Wightman, timm",
            "attnshift.classifiers.timm_source:load_random",
        ),
        "torchvision": Entry(
            "a pretrained torchvision model, as NAME or NAME@WEIGHTS",
            "torchvision.models",
            "attnshift.classifiers.torchvision_source:load_torchvision",
        ),
        "huggingface": Entry(
            "an image classifier from the Hugging Face hub, or a folder in its format; safetensors, no remote code",
            "Wolf et al., transformers",
            "attnshift.classifiers.huggingface_source:load_huggingface",
        ),
        "zeroshot": Entry(
            "a CLIP or SigLIP model and the names of the classes, one a line in label order, as MODEL@NAMES.txt",
            "Radford et al., ICML 2021; Wolf et al., transformers",
            "attnshift.classifiers.zeroshot_source:load_zeroshot",
        ),
        "checkpoint": Entry(
            "weights in a local file, as PATH.safetensors with PATH.json beside it, or ARCHITECTURE@PATH.safetensors",
            "docs/inputs.md",
            "attnshift.classifiers.checkpoint_source:load_checkpoint",
        ),
        "lab": Entry(
            "a classifier of the built-in tabletop world",
            "docs/lab.md",
            "attnshift.lab.shipped:load_lab_classifier",
        ),
    },
    group="attnshift.sources",
    contract=("attnshift.classifiers.classifier:Source",),
)


def split_name(name: str) -> tuple[str, str]:
    """Source and model of the name ``source:name``, without loading anything.

    Raises ``ModelError`` for a name of another form, and ``RecipeError`` for an unknown source.
    """
    source, separator, model = name.partition(":")
    if not separator or not model:
        raise ModelError(f"classifier '{name}' is not of the form source:name; sources: {', '.join(SOURCES)}")
    check_known(SOURCES, source)
    return source, model


def load_classifier(name: str) -> Classifier:
    """Classifier of the name ``source:name``, such as ``timm:resnet50`` or ``lab:resnet``.

    Raises ``ModelError`` if it cannot be loaded, or if ``probe`` finds that it gives no logits.
    """
    source, model = split_name(name)
    try:
        classifier = look_up(SOURCES, source)(model)
    except (OSError, ValueError) as error:
        # The name is not allowed for a file.
        raise ModelError(f"cannot load '{name}': {error.strerror if isinstance(error, OSError) else error}") from error
    # These imports load torch. Listing the sources must not.
    import torch

    from attnshift.classifiers.probe import probe

    classifier.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return probe(classifier)
