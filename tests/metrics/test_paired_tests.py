"""McNemar's test and Holm's correction, against published values and their definitions."""

from __future__ import annotations

from itertools import product

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as draws

from attnshift.metrics.statistics import Change, holm, mcnemar

ANSWERS = draws.lists(draws.tuples(draws.booleans(), draws.booleans()), max_size=60)
VALUES = draws.lists(draws.floats(0, 1), max_size=12)


def answers(won: int, lost: int, both: int = 0, neither: int = 0) -> tuple[list[bool], list[bool]]:
    pairs = [(False, True)] * won + [(True, False)] * lost + [(True, True)] * both + [(False, False)] * neither
    return [old for old, _ in pairs], [new for _, new in pairs]


@pytest.mark.parametrize(
    ("won", "lost", "p"),
    [
        # Twice the tails of fair coins, as statistical tables of the sign test print them.
        (1, 0, 1.0),
        (5, 0, 0.0625),
        (6, 0, 0.03125),
        (7, 1, 0.0703125),
        (12, 3, 0.03515625),
        (15, 5, 0.04138946533203125),
    ],
)
def test_exact_values(won: int, lost: int, p: float) -> None:
    assert mcnemar(*answers(won, lost, both=3, neither=40)).p == pytest.approx(p, rel=1e-6)
    assert mcnemar(*answers(lost, won)).p == pytest.approx(p, rel=1e-6)


@pytest.mark.parametrize(("won", "lost", "p"), [(7, 1, 0.0703), (16, 6, 0.0525)])
def test_published_examples(won: int, lost: int, p: float) -> None:
    """Exact conditional test of Fagerland et al., BMC Medical Research Methodology 13:91 (2013)."""
    assert mcnemar(*answers(won, lost)).p == pytest.approx(p, abs=5e-5)


@pytest.mark.parametrize(("won", "lost"), [(0, 0), (1, 1), (3, 1), (1, 6), (5, 4), (0, 9)])
def test_p_is_the_share_of_equally_likely_outcomes_that_are_as_far_from_even(won: int, lost: int) -> None:
    """Every way in which the images that differ could have fallen, counted one by one."""
    outcomes = [sum(each) for each in product((0, 1), repeat=won + lost)]
    as_far = [abs(2 * each - won - lost) >= abs(won - lost) for each in outcomes]
    assert mcnemar(*answers(won, lost)).p == pytest.approx(numpy.mean(as_far))


@given(ANSWERS)
def test_only_images_that_differ_count(pairs: list[tuple[bool, bool]]) -> None:
    first, second = [old for old, _ in pairs], [new for _, new in pairs]
    seen = mcnemar(first, second)
    assert seen.won - seen.lost == sum(second) - sum(first)
    assert 0 < seen.p <= 1
    assert mcnemar(second, first) == Change(seen.lost, seen.won, seen.p, len(pairs))
    more = mcnemar([*first, True, False], [*second, True, False])
    assert (more.won, more.lost, more.p) == (seen.won, seen.lost, seen.p)


def test_equal_answers_and_no_answers_show_nothing() -> None:
    assert mcnemar([True, False], [True, False]) == Change(0, 0, 1.0, 2)
    assert mcnemar([], []) == Change(0, 0, 1.0, 0)


def test_many_images() -> None:
    """2 ** 2000 is no floating-point number."""
    assert mcnemar(*answers(1500, 500)).p < 1e-110
    assert mcnemar(*answers(1000, 1000)).p == 1.0


def test_unequal_numbers_of_images_are_no_pairs() -> None:
    with pytest.raises(ValueError, match="shorter"):
        mcnemar([True, False], [True])


def test_by_chance_alone_it_is_rarely_significant() -> None:
    """Of 1000 pairs without a difference, at most about 5 % are below 0.05: the test is discrete."""
    draw = numpy.random.default_rng(0)
    pairs = draw.random((1000, 2, 40)) < 0.5
    assert sum(mcnemar(*map(list, pair)).p <= 0.05 for pair in pairs) <= 60


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


@given(VALUES)
def test_holm_corrects_upwards_keeps_the_order_and_stops_at_bonferroni(values: list[float]) -> None:
    corrected = holm(values)
    for value, seen in zip(values, corrected, strict=True):
        assert value <= seen <= min(1.0, len(values) * value) + 1e-12
    for (one, here), (other, there) in product(zip(values, corrected, strict=True), repeat=2):
        assert one > other or here <= there


@given(VALUES, draws.floats(0.001, 0.5))
def test_holm_rejects_as_the_step_down_procedure_does(values: list[float], level: float) -> None:
    rejected = 0
    for rank, value in enumerate(sorted(values)):
        if (len(values) - rank) * value > level:
            break
        rejected += 1
    assert sum(each <= level for each in holm(values)) == rejected
