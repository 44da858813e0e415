"""What every rule of ``ensemble.RULES`` must do with the gradients of its classifiers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from attnshift.ensemble import RULES
from attnshift.registry import build
from attnshift.testing.rules import RULE_CHECKS, images, picture, pixels_of_latents, surrogates

if TYPE_CHECKING:
    from attnshift.ensemble.fusion import FusionRule

OPTIONS: dict[str, list[dict[str, Any]]] = {
    "uniform": [{}, {"scale": "raw"}],
    "weighted": [{"weights": {"model 1": 3.0}}, {"scale": "raw"}],
    "consensus": [{}, {"tau": 10.0, "scale": "raw"}],
    "progress": [{}, {"scale": "raw"}],
    "laggard": [{}, {"temperature": 5.0, "scale": "raw"}],
    "worst": [{}, {"smooth": 1.0}],
    "adaea": [{"step": 0.01}, {"eta": -1.0, "beta": 1.0}],
}
"""Options beyond the defaults to hold a rule to."""

CASES = [pytest.param(name, options, id=f"{name}{options}") for name in RULES for options in OPTIONS.get(name, [{}])]
with_every_rule = pytest.mark.parametrize(("name", "options"), CASES)


@with_every_rule
@pytest.mark.parametrize("check", RULE_CHECKS, ids=lambda check: check.__name__)
def test_contract(check: Callable[[FusionRule], None], name: str, options: dict[str, Any]) -> None:
    check(build(RULES, name, options))


@pytest.mark.parametrize("name", [name for name in RULES if name != "worst"])
def test_every_classifier_has_a_weight(name: str) -> None:
    assert (build(RULES, name, {})(surrogates(0, 1, 2), images()).weights > 0).all()


LINEAR = ("uniform", "weighted", "laggard", "progress")


@pytest.mark.parametrize(
    ("name", "options"), [*((name, {"scale": "raw"}) for name in LINEAR), ("logits", {})], ids=[*LINEAR, "logits"]
)
def test_a_linear_rule_agrees_at_the_latents(name: str, options: dict[str, Any]) -> None:
    """Through a linear picture of the latents, whose pull-back is known."""
    latents = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(4))
    models, rule = surrogates(0, 1, 2), build(RULES, name, options)
    at_latents = rule(replace(models, show=picture), latents).direction
    at_image = rule(models, picture(latents)).direction
    expected = (at_image.flatten(1) @ pixels_of_latents().T).view_as(latents)
    assert (at_latents - expected).norm() < 1e-4 * expected.norm()
