"""Kind of a classifier's head, as far as its configuration states it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attnshift.errors import ModelError

__all__ = ["check_head"]

_KINDS = {
    "regression": "a regression head, whose outputs are no classes",
    "multi_label_classification": "a multi-label head, in which an image has any number of classes",
}
_SIGMOID = ("sigmoid", "bce", "bcewithlogits", "bcewithlogitsloss", "binary_cross_entropy")
_LOSSES = ("activation", "output_activation", "classifier_activation", "head_activation", "function_to_apply", "loss")


def check_head(called: str, config: Mapping[str, Any]) -> None:
    """Raise ``ModelError`` if ``config`` states a head of which the largest logit is no answer.

    Such heads are trained for regression, for several classes at once or with a sigmoid, or have
    one output. The message starts with ``called``.
    """
    inner = config.get("pretrained_cfg")
    for each in (config, *([inner] if isinstance(inner, dict) else [])):
        kind = _KINDS.get(str(each.get("problem_type")))
        if kind is None and (each.get("multi_label") is True or each.get("multilabel") is True):
            kind = _KINDS["multi_label_classification"]
        if kind is None and any(str(each.get(key)).casefold() in _SIGMOID for key in _LOSSES):
            kind = "a sigmoid head, in which an image has any number of classes"
        if kind is None and 1 in (each.get("num_labels"), _length(each.get("id2label"))):
            kind = "a head with one output, which is no class"
        if kind:
            raise ModelError(f"{called} has {kind}; take a model that gives each image one of several classes")


def _length(value: object) -> int:
    return len(value) if isinstance(value, dict | list) else 0
