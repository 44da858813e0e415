"""Each part does what its family asks for."""

from __future__ import annotations

from attnshift_example.defences import Grey
from attnshift_example.metrics import mean_change
from attnshift_example.rules import Median
from attnshift_example.terms import ChangeTotalVariation

from attnshift.testing import check_defence, check_metric, check_rule, check_term


def test_term() -> None:
    check_term(ChangeTotalVariation())


def test_rule() -> None:
    check_rule(Median())


def test_defence() -> None:
    check_defence(Grey())
    check_defence(Grey(amount=0.5))


def test_metric() -> None:
    check_metric(mean_change)
