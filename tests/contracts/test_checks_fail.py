"""The checks of ``attnshift.testing`` find what is wrong: each of these parts breaks one rule."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import pytest
import torch
from torch import Tensor

from attnshift.defences.bit_depth import BitDepth
from attnshift.ensemble.fusion import Uniform
from attnshift.errors import RecipeError
from attnshift.losses.classification import CrossEntropy
from attnshift.sizes import Size
from attnshift.telemetry import RunEnded
from attnshift.testing import (
    check_consumer,
    check_criterion,
    check_defence,
    check_metric,
    check_rule,
    check_set_metric,
    check_source,
    check_term,
    check_transform,
    check_visibility,
)
from attnshift.testing.models import small_classifier

if TYPE_CHECKING:
    import numpy

    from attnshift.ensemble.surrogates import Surrogates
    from attnshift.metrics.statistics import Estimate
    from attnshift.telemetry import Event
    from attnshift.types import Fused, Goals, Observation, Site


@dataclass(frozen=True)
class Term:
    """Squared distance to the clean image, with something wrong."""

    wrong: str
    reads_interference: ClassVar[bool] = False
    reads_mask: ClassVar[bool] = False
    holds: ClassVar[bool] = True

    def sites(self, available: Iterable[Site], latents: Size) -> tuple[Site, ...]:
        return ()

    def __call__(self, observation: Observation) -> Tensor:
        change = observation.adversarial.images.float() - observation.images.float()
        value = change.square().sum((1, 2, 3))
        maps = [steps[0].float().flatten(1).square().mean(1) for steps in observation.adversarial.attention.values()]
        return {
            "shape": lambda: value.mean(),
            "precision": lambda: (value / 1e4).to(observation.images.dtype),
            "mates": lambda: value + value.mean(),
            "sites": lambda: value + sum(maps),
            "mask": lambda: value * observation.weights.mean((1, 2, 3)),
            "square root": lambda: change.square().sum((1, 2, 3)).sqrt(),
            "gradient": lambda: 2 * value.detach() - value,
        }[self.wrong]()


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ("shape", r"the value has shape \(\), and \(3,\) is expected"),
        ("precision", "use .float"),
        ("mates", "another value when it is alone"),
        ("sites", "depends on other sites"),
        ("mask", "reads_mask is False, and it reads it"),
        ("square root", "gradient on degenerate input is not finite"),
        ("gradient", "the gradient is not that of the value"),
    ],
)
def test_terms(wrong: str, sentence: str) -> None:
    with pytest.raises(AssertionError, match=sentence):
        check_term(Term(wrong))


def test_a_term_that_is_none_is_refused() -> None:
    with pytest.raises(RecipeError, match="term 'object' lacks reads_interference"):
        check_term(object())  # type: ignore[arg-type]


@dataclass(frozen=True)
class Rule:
    """The uniform rule, with something wrong."""

    change: Callable[[Fused], Fused]

    def __call__(self, surrogates: Surrogates, points: Tensor, state: Tensor | None = None) -> Fused:
        return self.change(Uniform()(surrogates, points))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda fused: replace(fused, weights=2 * fused.weights), "do not sum to 1"),
        (lambda fused: replace(fused, direction=fused.direction.mean(0)), "the direction has shape"),
        (
            lambda fused: replace(fused, direction=-fused.direction),
            "the direction should be its own",
        ),
    ],
    ids=["weights", "shape", "sign"],
)
def test_rules(change: Callable[[Fused], Fused], sentence: str) -> None:
    with pytest.raises(AssertionError, match=sentence):
        check_rule(Rule(change))


def shift(images: Tensor, generators: Sequence[numpy.random.Generator]) -> Tensor:
    return images + 0.1


def speckle(images: Tensor, generators: Sequence[numpy.random.Generator]) -> Tensor:
    return (images + 0.1 * torch.rand_like(images)).clamp(0, 1)


@pytest.mark.parametrize(
    ("transform", "sentence"),
    [(shift, r"values outside \[0,1\]"), (speckle, "draw from them and from nothing else")],
)
def test_transforms(transform: Callable[..., Tensor], sentence: str) -> None:
    with pytest.raises(AssertionError, match=sentence):
        check_transform(transform)


@dataclass(frozen=True)
class NotDifferentiable(BitDepth):
    differentiable: ClassVar[bool] = False


def test_defences() -> None:
    with pytest.raises(AssertionError, match="differentiable is False, and a gradient says otherwise"):
        check_defence(NotDifferentiable())


def test_metrics() -> None:
    with pytest.raises(AssertionError, match="the value has shape"):
        check_metric(lambda reference, candidate: (reference - candidate).abs().mean())
    with pytest.raises(AssertionError, match="have the value of equal ones"):
        check_metric(lambda reference, candidate: torch.zeros(len(reference)))
    with pytest.raises(AssertionError, match="give nan"):
        check_visibility(lambda clean, edit, masks: torch.ones(len(clean)))


@dataclass(frozen=True)
class Criterion:
    """Cross-entropy that is lowered, with something wrong."""

    change: Callable[[Tensor], Tensor]
    reads_interference: ClassVar[bool] = False

    def __call__(self, logits: Tensor, goals: Goals) -> Tensor:
        return self.change(CrossEntropy()(logits, goals))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda losses: losses.sum(), "the loss has shape"),
        (lambda losses: -losses, "no lower loss"),
        (lambda losses: losses + losses.mean(), "another loss when it is alone"),
        (lambda losses: 2 * losses - losses.detach(), "the gradient is not that of the loss"),
    ],
    ids=["shape", "sign", "mates", "gradient"],
)
def test_criteria(change: Callable[[Tensor], Tensor], sentence: str) -> None:
    with pytest.raises(AssertionError, match=sentence):
        check_criterion(Criterion(change))


def test_set_metrics() -> None:
    from attnshift.metrics.sets import Kid

    class InOrder(Kid):
        """KID of the first images with the last weighing more."""

        def __call__(self, reference: Tensor, candidate: Tensor) -> Estimate:
            weights = torch.arange(len(reference)).view(-1, 1)
            return super().__call__(weights * reference, weights * candidate)

    with pytest.raises(AssertionError, match="the order of the pairs changes the estimate"):
        check_set_metric(InOrder())


def test_sources() -> None:
    with pytest.raises(AssertionError, match=r"the source gives a ResNet; use Classifier\.wrap"):
        check_source(lambda name: small_classifier().network, "mine")  # type: ignore[arg-type,return-value]


class Forgetful:
    """A consumer that takes for granted that a run has begun, and that every image succeeds."""

    iterations = False

    def __init__(self, changes: bool) -> None:
        self.changes, self.margins = changes, dict[str, float]()

    def __call__(self, event: Event) -> None:
        if self.changes and hasattr(event, "margins"):
            event.margins.clear()
        self.ended = isinstance(event, RunEnded)

    def close(self) -> None:
        assert self.ended, "it expects a run"


@pytest.mark.parametrize(("changes", "sentence"), [(True, "it changes the ImageDone"), (False, "it expects a run")])
def test_consumers(changes: bool, sentence: str) -> None:
    with pytest.raises(AssertionError, match=sentence):
        check_consumer(lambda: Forgetful(changes))
