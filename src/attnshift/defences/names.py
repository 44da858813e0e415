"""Classifiers by name, behind defences or not: ``DEFENCE[(options)]+...+SOURCE:NAME``."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from attnshift.classifiers import load_classifier
from attnshift.defences import DEFENCES
from attnshift.errors import ModelError, RecipeError
from attnshift.registry import build

if TYPE_CHECKING:
    from attnshift.classifiers.classifier import Classifier
    from attnshift.diffusion.backbone import Backbone

__all__ = ["load_defended", "load_surrogate", "same_classifier", "undefended"]

_FIRST = re.compile(r"""(?P<defence>\w+)(?:\((?P<options>(?:[^()"']|"[^"]*"|'[^']*')*)\))?\+(?P<rest>.*)""", re.DOTALL)
"""``:`` stands before any ``+`` of a source's own name, and so a folder's name may hold one."""


def load_defended(name: str, pipeline: Callable[[], Backbone] | None = None) -> Classifier:
    """The classifier called ``[DEFENCE[(options)]+...]SOURCE:NAME``; an image passes the defences from left to right.

    Options are written as in TOML: ``jpeg(quality=60)+bit_depth(bits=4)+lab:resnet``. ``pipeline`` gives the diffusion
    model for defences that need one, and is called only then. ``RecipeError`` for a defence or an option that does not
    exist, ``ModelError`` for a classifier that does not, and where a defence needs a pipeline and there is none.
    """
    first = _FIRST.fullmatch(name)
    if first is None:
        return load_classifier(name)
    from attnshift.defences.defended import Defended, NeedsBackbone

    defence = build(DEFENCES, first["defence"], _options(first["options"] or "", name))
    classifier = load_defended(first["rest"], pipeline)
    if isinstance(defence, NeedsBackbone):
        if pipeline is None:
            raise ModelError(f"{name}: the defence '{first['defence']}' needs a pipeline and there is none here")
        defence = defence.on(pipeline())
    return Defended(classifier, defence, name)


def load_surrogate(name: str) -> Classifier:
    """The classifier called ``name``, as ``load_defended`` reads it, to be attacked: a gradient must pass it."""
    rest = name
    while first := _FIRST.fullmatch(rest):
        defence, rest = first["defence"], first["rest"]
        if defence in DEFENCES and not DEFENCES[defence].load().differentiable:
            raise ModelError(
                f"{name} cannot be a surrogate: no gradient passes the defence '{defence}'; "
                "give it to evaluate as a judge, or attack what stands behind it"
            )
    classifier = load_defended(name)
    # It needs torch, which reading names does not.
    from attnshift.classifiers.probe import check_attackable

    check_attackable(classifier)
    return classifier


def undefended(name: str) -> str:
    """What stands behind the defences that ``name`` names.

    >>> undefended("jpeg(quality=60)+median+lab:resnet")
    'lab:resnet'
    """
    while first := _FIRST.fullmatch(name):
        name = first["rest"]
    return name


def same_classifier(names: Iterable[str], others: Iterable[str]) -> set[str]:
    """Those of ``names`` that are the classifier of one of ``others``, behind whatever defences.

    >>> relatives(["jpeg+lab:resnet", "jpeg+lab:coatnet"], ["lab:resnet"])
    {'jpeg+lab:resnet'}
    """
    seen = {undefended(other) for other in others}
    return {name for name in names if undefended(name) in seen}


def _options(text: str, name: str) -> dict[str, Any]:
    try:
        options = tomllib.loads(f"options = {{{text}}}")["options"]
    except tomllib.TOMLDecodeError:
        options = None
    # TOML knows more than numbers and texts, and a text with a line break could end the table.
    if options is None or not all(isinstance(value, int | float | str) for value in options.values()):
        raise RecipeError(f'{name}: the options ({text}) are not of the form (key=value, key="text")')
    return options
