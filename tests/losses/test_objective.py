"""The weighted sum of terms: what it reads, and when each term counts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from attnshift.losses.attention import Variance
from attnshift.losses.objective import Objective, WeightedTerm
from attnshift.losses.schedules import Schedule
from attnshift.losses.selection import Selection
from attnshift.losses.structure import SelfAttention
from attnshift.types import Observation, Site
from contracts.observations import LATENT_SIDE, SITES, observation, with_maps


@dataclass(frozen=True)
class Failing:
    """A term that must not be evaluated."""

    def sites(self, available: Iterable[Site], latent_side: int) -> tuple[Site, ...]:
        return ()

    def __call__(self, observation: Observation) -> Tensor:
        raise AssertionError("evaluated although its weight is 0")


def objective() -> Objective:
    return Objective(
        {
            "structure": WeightedTerm(SelfAttention(select=Selection(grid="half")), 3.0, Schedule()),
            "variance": WeightedTerm(Variance(), 2.0, Schedule("linear", 0.0, 1.0)),
            "coarse": WeightedTerm(Variance(Selection(("mid", "up"), "all")), 1.0, Schedule()),
        }
    )


def test_sites_are_the_union_in_the_order_of_the_model() -> None:
    places = [(site.kind, site.place, site.side) for site in objective().sites(iter(SITES), LATENT_SIDE)]
    assert places == [
        ("self", "down", 4), ("cross", "down", 2), ("cross", "mid", 1), ("cross", "up", 2), ("cross", "up", 4),
        ("self", "up", 4), ("cross", "up", 8),
    ]  # fmt: skip


def test_nothing_beyond_the_union_is_read() -> None:
    whole = observation()
    union = objective().sites(SITES, LATENT_SIDE)
    clean = {site: whole.clean.attention[site] for site in union}
    cut = with_maps(whole, {site: whole.adversarial.attention[site] for site in union})
    cut = type(cut)(
        type(cut.clean)(cut.clean.latents, cut.clean.images, clean),
        cut.adversarial, cut.tokens, cut.labels, cut.progress,
    )  # fmt: skip
    expected = objective()(whole)
    assert set(expected) == {"structure", "variance", "coarse"}
    for name, values in objective()(cut).items():
        assert torch.equal(values, expected[name])


def test_terms_are_weighted_by_their_schedules() -> None:
    observed = observation(progress=0.25)
    values = objective()(observed)
    torch.testing.assert_close(values["structure"], 3.0 * SelfAttention(select=Selection(grid="half"))(observed))
    torch.testing.assert_close(values["variance"], 2.0 * 0.25 * Variance()(observed))


def test_term_that_is_switched_off_is_not_evaluated() -> None:
    late = Objective({"late": WeightedTerm(Failing(), 1.0, Schedule(window=(0.6, 1.0)))})
    never = Objective({"never": WeightedTerm(Failing(), 0.0, Schedule())})
    assert late(observation(progress=0.5)) == {}
    assert never(observation()) == {}


def test_no_terms_read_nothing() -> None:
    assert Objective({}).sites(SITES, LATENT_SIDE) == ()
    assert Objective({})(observation()) == {}
