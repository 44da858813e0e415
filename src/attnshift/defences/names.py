"""Names of classifiers with or without defences: ``DEFENCE[(options)]+...+SOURCE:NAME``."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from attnshift.classifiers import load_classifier, split_name
from attnshift.defences import DEFENCES
from attnshift.errors import ModelError, RecipeError
from attnshift.registry import build, check_known

if TYPE_CHECKING:
    from attnshift.classifiers.classifier import Classifier
    from attnshift.diffusion.backbone import Backbone

__all__ = [
    "check_classifier_name",
    "check_surrogate",
    "load_defended",
    "load_surrogate",
    "names_of_defences",
    "parts_of",
    "same_classifier",
    "undefended",
]

_FIRST = re.compile(r"""(?P<defence>\w+)(?:\((?P<options>(?:[^()"']|"[^"]*"|'[^']*')*)\))?\+(?P<rest>.*)""", re.DOTALL)
"""First defence of a name.

A folder's name may contain ``+``, since ``SOURCE:`` always stands before it.
"""


_BARE = re.compile(
    r"""(?P<text>"[^"]*"|'[^']*')|(?P<key>\w+\s*=\s*)(?P<word>(?!(?:true|false|inf|nan)\b)[A-Za-z]\w*)"""
)
"""A text in quotes, or an option whose value is a word without them."""


def _quoted(found: re.Match[str]) -> str:
    return found["text"] or f'{found["key"]}"{found["word"]}"'


def load_defended(name: str, pipeline: Callable[[], Backbone] | None = None) -> Classifier:
    """Classifier of the name ``[DEFENCE[(options)]+...]SOURCE:NAME``.

    An image passes the defences from left to right. Options are written as in TOML:
    ``jpeg(quality=60)+bit_depth(bits=4)+lab:resnet``; a text of one word needs no quotes.
    ``pipeline`` returns the diffusion model; it is called only for defences that need one. Raises
    ``RecipeError`` for an unknown defence or option, and ``ModelError`` for an unknown classifier
    or if a defence needs a pipeline and ``pipeline`` is None.
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


def load_surrogate(name: str, pipeline: Callable[[], Backbone] | None = None) -> Classifier:
    """Classifier of the ``name``, in the form of ``load_defended``, for use as a surrogate.

    Raises ``ModelError`` if no gradient passes it.
    """
    rest = name
    while first := _FIRST.fullmatch(rest):
        defence, options, rest = first["defence"], first["options"], first["rest"]
        if not build(DEFENCES, defence, _options(options or "", name)).differentiable:
            gradient = ", set its option `gradient`" if defence == "purification" else ""
            raise ModelError(
                f"{name} cannot be a surrogate: no gradient passes the defence '{defence}'{gradient}; "
                "give it to evaluate as a judge, or attack what stands behind it"
            )
    classifier = load_defended(name, pipeline)
    check_surrogate(classifier)
    return classifier


def check_surrogate(classifier: Classifier) -> None:
    """Raise ``ModelError`` unless a gradient passes ``classifier``.

    It is tried behind defences whose draws an attack names: a diffusion model may not take the size
    at which a classifier is tried.
    """
    # These imports load torch. Reading names must not.
    from attnshift.classifiers.probe import check_attackable
    from attnshift.defences.defended import Defended

    while isinstance(classifier, Defended) and classifier.takes_key:
        classifier = classifier.classifier
    check_attackable(classifier)


def check_classifier_name(name: str) -> None:
    """Raise ``ModelError`` or ``RecipeError`` for a ``name`` that has not the form of
    ``load_defended``, or holds a defence or a source that is unknown. Nothing is loaded."""
    rest = name
    while first := _FIRST.fullmatch(rest):
        check_known(DEFENCES, first["defence"])
        _options(first["options"] or "", name)
        rest = first["rest"]
    split_name(rest)


def undefended(name: str) -> str:
    """Part of ``name`` behind all defences.

    >>> undefended("jpeg(quality=60)+median+lab:resnet")
    'lab:resnet'
    """
    return parts_of(name)[-1]


def parts_of(name: str) -> list[str]:
    """Names of the defences in ``name``, without options, and last the classifier.

    >>> parts_of("jpeg(quality=60)+median+lab:resnet")
    ['jpeg', 'median', 'lab:resnet']
    """
    parts = []
    while first := _FIRST.fullmatch(name):
        parts, name = [*parts, first["defence"]], first["rest"]
    return [*parts, name]


def names_of_defences(text: str) -> list[str]:
    """Names of the defences in ``text``, which stands before a classifier's name.

    >>> names_of_defences("jpeg(quality=60)+median")
    ['jpeg', 'median']

    Raises ``RecipeError`` for anything but defences.
    """
    rest, names = f"{text}+", []
    while first := _FIRST.fullmatch(rest):
        check_known(DEFENCES, first["defence"])
        _options(first["options"] or "", text)
        names, rest = [*names, first["defence"]], first["rest"]
    if rest or not names:
        raise RecipeError(f"{text!r} is no defence; give one such as jpeg(quality=60), several joined by +")
    return names


def same_classifier(names: Iterable[str], others: Iterable[str]) -> set[str]:
    """Names in ``names`` that have the classifier of a name in ``others``. Defences do not count.

    >>> same_classifier(["jpeg+lab:resnet", "jpeg+lab:coatnet"], ["lab:resnet"])
    {'jpeg+lab:resnet'}
    """
    seen = {undefended(other) for other in others}
    return {name for name in names if undefended(name) in seen}


def _options(text: str, name: str) -> dict[str, Any]:
    try:
        options = tomllib.loads(f"options = {{{_BARE.sub(_quoted, text)}}}")["options"]
    except tomllib.TOMLDecodeError:
        options = None
    # TOML has more types than numbers and texts, and a line break in a text could end the table.
    if options is None or not all(isinstance(value, int | float | str) for value in options.values()):
        raise RecipeError(f'{name}: the options ({text}) are not of the form (key=value, key="text")')
    return options
