"""The contract of baselines: attacks on pixels, and those through a diffusion model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from attnshift.baselines import BASELINES
from attnshift.baselines.diffusion import DiffusionBaseline
from attnshift.baselines.edits import EditInput
from attnshift.baselines.kinds import Baseline, BudgetBaseline, RadiusBaseline
from attnshift.batching import select_rows
from attnshift.data.images import quantise
from attnshift.ensemble.surrogates import Surrogates
from attnshift.losses.classification import CrossEntropy
from attnshift.metrics.budget import Budget
from attnshift.registry import check
from attnshift.testing.models import SIDE, pictures, small_backbone, small_flow, sure_classifier
from attnshift.testing.requirements import in_double, require, require_shape
from attnshift.types import Goals, RandomKey

__all__ = ["check_baseline"]

_OTHERWISE = "an image is attacked otherwise when it is alone"
_Attack = Callable[[Surrogates, Tensor, RandomKey], Tensor]


def check_baseline(baseline: Baseline | DiffusionBaseline) -> None:
    """Hold a baseline to its contract, on three images
    and a small random classifier that is sure of their classes.

    Where it spends a budget in a way of its own, the budget is an L2 distance of 2. One through a
    diffusion model gets a small random one; at strength 0 it must show its control arm.

    ``UnavailableError`` passes: a library is not there.
    """
    check(BASELINES, type(baseline).__name__, baseline)
    surrogates, shown, key = _given()
    if isinstance(baseline, DiffusionBaseline):
        given = _edit_input(baseline, surrogates, shown, key)
        baseline.check(given)
        prepared = baseline.prepare(given)
        apart = (prepared(torch.zeros(3)) - prepared.floor()).abs().max()
        require(apart < 1e-5, f"at strength 0 it differs from its control arm by {apart:.2g}")
    else:
        baseline.check(surrogates, shown)
    for attack in _ways(baseline):
        _check_way(baseline, attack, surrogates, shown, key)
    if isinstance(baseline, DiffusionBaseline):
        _check_mates(baseline)


def _given() -> tuple[Surrogates, Tensor, RandomKey]:
    shown = quantise(torch.cat([pictures(1), torch.zeros(1, 3, SIDE, SIDE), torch.ones(1, 3, SIDE, SIDE)]))
    labels = sure_classifier()(shown).argmax(1)
    surrogates = Surrogates([sure_classifier()], CrossEntropy(), Goals(labels))
    return surrogates, shown, RandomKey(0, ("first", "second", "third"), 0)


def _ways(baseline: Baseline | DiffusionBaseline) -> Iterator[_Attack]:
    """The attack as it is, if it runs without a budget, and within one, if it spends that in a way
    of its own."""
    if isinstance(baseline, DiffusionBaseline):
        yield partial(_edited, baseline)
        return
    if not isinstance(baseline, BudgetBaseline):
        yield baseline
    if type(baseline).spend is not Baseline.spend:
        yield partial(_within_budget, baseline)


def _check_way(
    baseline: Baseline | DiffusionBaseline, attack: _Attack, surrogates: Surrogates, shown: Tensor, key: RandomKey
) -> None:
    torch.manual_seed(1)
    found = attack(surrogates, shown, key)
    require_shape(found, tuple(shown.shape), "the attacked images")
    require(not found.requires_grad, "the attacked images have a graph")
    require(0 <= found.min() <= found.max() <= 1, "the attacked images have values outside [0,1]")
    moved = float((found - shown).abs().max())
    require(moved > 0, "nothing moved")
    if isinstance(baseline, RadiusBaseline) and attack is baseline:
        radius = baseline.epsilon
        require(moved <= radius + 1e-6, f"a value moved by {moved:.4g}, and epsilon is {radius:.4g}")
    torch.manual_seed(2)
    require(torch.equal(attack(surrogates, shown, key), found), "equal keys give other images; draw by the key alone")
    if isinstance(baseline, DiffusionBaseline):
        return
    for at, id in enumerate(key.ids):
        alone = _alone(attack, surrogates, shown, at, id)
        # Rounding decides the sign of a gradient that is almost zero.
        same = ((alone - found[at]).abs() < 1e-5).float().mean() > 0.99
        require(same, _OTHERWISE)


def _alone(attack: _Attack, surrogates: Surrogates, shown: Tensor, at: int, id: str) -> Tensor:
    rows = torch.tensor([at])
    return attack(select_rows(surrogates, rows), shown[rows], RandomKey(0, (id,), 0))[0]


def _check_mates(baseline: DiffusionBaseline) -> None:
    """In fp32 rounding decides the sign of a gradient that is almost zero, and a diffusion model
    spreads that over the image. At a flat image networks have kinks, where rounding always decides.
    """
    with in_double():
        surrogates, shown, key = _given()
        found = _edited(baseline, surrogates, shown, key)
        alone = _alone(partial(_edited, baseline), surrogates, shown, 0, key.ids[0])
        require((alone - found[0]).abs().max() < 1e-9, _OTHERWISE)


def _within_budget(baseline: Baseline, surrogates: Surrogates, images: Tensor, key: RandomKey) -> Tensor:
    budget = Budget.of("l2", 2.0)
    found = baseline.spend(surrogates, images, key, budget)
    require(budget.keeps(images, found).all(), "an image does not keep the budget")
    require(torch.equal(found, quantise(found)), "an image has values between the steps of 1/255")
    return found


def _edited(baseline: DiffusionBaseline, surrogates: Surrogates, images: Tensor, key: RandomKey) -> Tensor:
    return baseline.prepare(_edit_input(baseline, surrogates, images, key))(torch.ones(len(images)))


def _edit_input(baseline: DiffusionBaseline, surrogates: Surrogates, images: Tensor, key: RandomKey) -> EditInput:
    backbone = small_flow() if baseline.flow else small_backbone()
    return EditInput(backbone, surrogates, images, (baseline.prompt("mug"),) * len(images), key)
