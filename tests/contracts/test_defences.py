"""What every defence of ``defences.DEFENCES`` must do, and a classifier behind it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest
import torch

from attnshift.defences import DEFENCES
from attnshift.defences.defended import ClassifierDefence
from attnshift.errors import RecipeError
from attnshift.registry import build
from attnshift.testing.defences import DEFENCE_CHECKS, AnyDefence, answers, placed
from attnshift.testing.models import pictures, small_classifier

OPTIONS: dict[str, list[dict[str, Any]]] = {
    "jpeg": [{}, {"quality": 1}],
    "bit_depth": [{}, {"bits": 1}],
    "median": [{}, {"size": 5}],
    "gaussian_blur": [{}, {"sigma": 20.0}],
    "resize_and_pad": [{}, {"smallest": 0.1}],
    "smoothing": [{"copies": 7, "sigma": 0.5}],
    "purification": [{"schedule_steps": 10}, {"strength": 0.0, "gradient": "bpda", "draws": 2}],
}
"""Options beyond the defaults to hold a defence to; one that is not named here is held to its defaults."""
NEUTRAL: dict[str, tuple[dict[str, Any], float]] = {
    "jpeg": ({"quality": 100}, 0.03),
    "bit_depth": ({"bits": 8}, 0.0),
    "median": ({"size": 1}, 0.0),
    "gaussian_blur": ({"sigma": 0.0}, 0.0),
    "resize_and_pad": ({"smallest": 1.0}, 1e-5),
    "smoothing": ({"sigma": 0.0, "copies": 3}, 0.0),
    "purification": ({"strength": 0.0}, math.inf),
}
"""Options that change nothing, or values by so much on average. What the autoencoder alone does has no bound."""

RANDOM = [name for name, entry in DEFENCES.items() if "seed" in {field.name for field in fields(entry.load())}]
CASES = [pytest.param(name, options, id=f"{name}{options}") for name in DEFENCES for options in OPTIONS.get(name, [{}])]
with_every_defence = pytest.mark.parametrize(("name", "options"), CASES)


@with_every_defence
@pytest.mark.parametrize("check", DEFENCE_CHECKS, ids=lambda check: check.__name__)
def test_contract(check: Callable[[AnyDefence], None], name: str, options: dict[str, Any]) -> None:
    check(build(DEFENCES, name, options))


@with_every_defence
def test_something_changes(name: str, options: dict[str, Any]) -> None:
    defence, shown = placed(build(DEFENCES, name, options)), pictures(2)
    if not isinstance(defence, ClassifierDefence):
        assert (defence(shown) - shown).abs().mean() > 1e-3


@pytest.mark.parametrize("name", DEFENCES)
def test_neutral_options_change_nothing_or_little(name: str) -> None:
    options, bound = NEUTRAL[name]
    defence, shown = placed(build(DEFENCES, name, options)), pictures()
    if isinstance(defence, ClassifierDefence):
        assert torch.equal(answers(defence, shown).argmax(1), small_classifier()(shown).argmax(1))
    else:
        assert float((defence(shown) - shown).abs().mean()) <= bound


@pytest.mark.parametrize("name", RANDOM)
def test_what_is_drawn_belongs_to_the_seed(name: str) -> None:
    shown, options = pictures(1), OPTIONS.get(name, [{}])[0]
    first, other = (placed(build(DEFENCES, name, options | {"seed": seed})) for seed in (0, 1))
    if isinstance(first, ClassifierDefence) and isinstance(other, ClassifierDefence):
        seen = [each.poll(lambda images: images.flatten(1), shown) for each in (first, other)]
    else:
        seen = [answers(each, shown) for each in (first, other)]
    assert not torch.equal(*seen)


@pytest.mark.parametrize("name", DEFENCES)
def test_options_are_checked(name: str) -> None:
    with pytest.raises(RecipeError, match=f"defence '{name}': strenght"):
        build(DEFENCES, name, {"strenght": 1})
