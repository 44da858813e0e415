"""Checks of plug-ins, for the tests of their authors. They need no test library
and raise ``AssertionError``.

A check tries everything that this package's own entries are held to: shapes, finiteness, gradients,
and that the other images of a batch change nothing. Its message says what does not hold.

>>> from attnshift.testing import check_term
>>> check_term(MyTerm())                                           # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attnshift.lazy import lazy_names

if TYPE_CHECKING:
    from attnshift.testing.backbones import check_backbone
    from attnshift.testing.baselines import check_baseline
    from attnshift.testing.consumers import check_consumer
    from attnshift.testing.criteria import check_criterion
    from attnshift.testing.defences import check_defence
    from attnshift.testing.metrics import check_features, check_metric, check_set_metric, check_visibility
    from attnshift.testing.reconstructions import check_reconstruction
    from attnshift.testing.rules import check_rule
    from attnshift.testing.sources import check_source
    from attnshift.testing.terms import check_term
    from attnshift.testing.transforms import check_transform

__all__ = [
    "check_backbone",
    "check_baseline",
    "check_consumer",
    "check_criterion",
    "check_defence",
    "check_features",
    "check_metric",
    "check_reconstruction",
    "check_rule",
    "check_set_metric",
    "check_source",
    "check_term",
    "check_transform",
    "check_visibility",
]

_HOMES = {
    "check_backbone": "attnshift.testing.backbones",
    "check_baseline": "attnshift.testing.baselines",
    "check_consumer": "attnshift.testing.consumers",
    "check_criterion": "attnshift.testing.criteria",
    "check_defence": "attnshift.testing.defences",
    "check_features": "attnshift.testing.metrics",
    "check_metric": "attnshift.testing.metrics",
    "check_reconstruction": "attnshift.testing.reconstructions",
    "check_rule": "attnshift.testing.rules",
    "check_set_metric": "attnshift.testing.metrics",
    "check_source": "attnshift.testing.sources",
    "check_term": "attnshift.testing.terms",
    "check_transform": "attnshift.testing.transforms",
    "check_visibility": "attnshift.testing.metrics",
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
