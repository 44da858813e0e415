"""The self-attention term against a calculation by hand."""

from __future__ import annotations

import numpy
import pytest
import torch

from attnshift.losses.selection import Selection
from attnshift.losses.structure import SelfAttention
from contracts.observations import SITES, STEPS, observation


def by_hand(image: int, sides: tuple[int, ...], steps: range) -> list[float]:
    """Mean square of the entries of each site and step."""
    observed = observation()
    means = []
    for site in SITES:
        for step in steps:
            if site.kind == "self" and site.side in sides:
                attacked = observed.adversarial.attention[site][step][image].double().numpy()
                clean = observed.clean.attention[site][step][image].double().numpy()
                means.append(float(((attacked - clean) ** 2).sum() / attacked.size))
    return means


@pytest.mark.parametrize("image", range(3))
def test_mean_squares_are_summed_over_all_sites_and_steps(image: int) -> None:
    means = by_hand(image, (8, 4, 2, 1), range(STEPS))
    assert len(means) == 7 * STEPS
    observed = observation()
    assert float(SelfAttention()(observed)[image]) == pytest.approx(sum(means), rel=1e-5)
    assert float(SelfAttention(reduction="mean")(observed)[image]) == pytest.approx(numpy.mean(means), rel=1e-5)


def test_selected_sites_and_steps_only() -> None:
    term = SelfAttention(select=Selection(grid="half", steps=(1, 1)))
    assert float(term(observation())[2]) == pytest.approx(sum(by_hand(2, (4,), range(1, 2))), rel=1e-5)


def test_nothing_changed_is_zero() -> None:
    observed = observation()
    same = type(observed)(observed.clean, observed.clean, observed.tokens, observed.labels, 0.5)
    assert torch.equal(SelfAttention()(same), torch.zeros(3))
