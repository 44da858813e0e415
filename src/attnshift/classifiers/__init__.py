"""Classifiers by name: ``source:name``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attnshift.errors import ModelError
from attnshift.tables import Entry, Table, look_up

if TYPE_CHECKING:
    from attnshift.classifiers.classifier import Classifier

SOURCES: Table = {
    "timm": Entry(
        "a pretrained timm model, or a folder in timm's format",
        "Wightman, timm",
        "attnshift.classifiers.timm_source:load_timm",
    ),
    "random": Entry(
        "a timm architecture with random weights, to try a set-up where nothing can be downloaded",
        "Wightman, timm",
        "attnshift.classifiers.timm_source:load_random",
    ),
    "lab": Entry(
        "a classifier of the built-in tabletop world",
        "docs/lab.md",
        "attnshift.classifiers.timm_source:load_lab",
    ),
}


def load_classifier(name: str) -> Classifier:
    """The classifier called ``source:name``, such as ``timm:resnet50`` or ``lab:resnet``."""
    source, separator, model = name.partition(":")
    if not separator or not model:
        raise ModelError(f"classifier '{name}' is not of the form source:name; sources: {', '.join(SOURCES)}")
    return look_up(SOURCES, "classifier source", source)(model)
