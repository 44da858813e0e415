"""Classifiers of the lab and with random weights, loaded and probed once; each who asks is handed a copy.

``tests/contracts/test_sources.py`` and ``tests/classifiers`` hold sources and probe themselves to account.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from attnshift.classifiers.classifier import Classifier
    from attnshift.registry import Table

__all__ = ["as_elsewhere", "loaded_once"]

SMALL = {"test_resnet", "test_convnext", "test_efficientnet"}
"""Architectures of timm whose networks with random weights see 64 pixels, cut out of 67, in place of 160 out of 168."""


@contextmanager
def as_elsewhere() -> Iterator[None]:
    """Networks see what their architectures state, as they do in a process of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(globals(), "SMALL", set())
        yield


@contextmanager
def loaded_once() -> Iterator[None]:
    # Imported before the probe is replaced: these two have it under its own name, and keep it.
    import attnshift.classifiers.classifier
    import attnshift.testing.sources  # noqa: F401
    from attnshift import classifiers
    from attnshift.classifiers import probe

    look_up, tested = classifiers.look_up, probe.probe
    known: dict[str, dict[str, Classifier]] = {"lab": {}, "random": {}, "small": {}}

    def look_up_once(table: Table, source: str) -> Any:
        load = look_up(table, source)
        if source not in ("lab", "random"):
            return load

        def loaded(name: str) -> Classifier:
            small = source == "random" and name in SMALL
            shelf = known["small" if small else source]
            if name not in shelf:
                made = load(name)
                shelf[name] = tested(seen_small(made) if small else made)
            return copy.deepcopy(shelf[name])

        return loaded

    def probe_once(classifier: Classifier) -> Classifier:
        source, _, name = classifier.name.partition(":")
        return classifier if source in ("lab", "random") and is_known(source, name) else tested(classifier)

    def is_known(source: str, name: str) -> bool:
        return name in known["small" if source == "random" and name in SMALL else source]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classifiers, "look_up", look_up_once)
        patch.setattr(probe, "probe", probe_once)
        yield


def seen_small(classifier: Classifier) -> Classifier:
    return replace(classifier, preprocessing=replace(classifier.preprocessing, size=(64, 64), resized=(67, 67)))
