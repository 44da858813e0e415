"""The weighted sum of terms: what it reads, and when each term counts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from attnshift.attention.selection import Selection
from attnshift.losses.attention import Contrast, Entropy, Replace, Variance
from attnshift.losses.objective import LossTerm, Objective, StatefulTerm, TermState, TermStates, WeightedTerm
from attnshift.losses.schedules import Schedule
from attnshift.losses.structure import SelfAttention
from attnshift.sizes import Size
from attnshift.testing.observations import LATENTS, SITES, observation, with_maps

if TYPE_CHECKING:
    from attnshift.types import Observation, Site


@dataclass(frozen=True)
class Failing:
    """A term that must not be evaluated."""

    reads_interference: ClassVar[bool] = False

    def sites(self, available: Iterable[Site], latents: Size) -> tuple[Site, ...]:
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
    places = [(site.kind, site.place, site.grid.rows) for site in objective().sites(iter(SITES), LATENTS)]
    assert places == [
        ("self", "down", 4), ("cross", "down", 2), ("cross", "mid", 1), ("cross", "up", 2), ("cross", "up", 4),
        ("self", "up", 4), ("cross", "up", 8),
    ]  # fmt: skip


def test_nothing_beyond_the_union_is_read() -> None:
    whole = observation()
    union = objective().sites(SITES, LATENTS)
    clean = {site: whole.clean.attention[site] for site in union}
    cut = with_maps(whole, {site: whole.adversarial.attention[site] for site in union})
    cut = replace(cut, clean=replace(cut.clean, attention=clean))
    expected, _ = objective()(whole)
    assert set(expected) == {"structure", "variance", "coarse"}
    for name, values in objective()(cut)[0].items():
        assert torch.equal(values, expected[name])


def test_terms_are_weighted_by_their_schedules() -> None:
    observed = observation(progress=0.25)
    values, _ = objective()(observed)
    torch.testing.assert_close(values["structure"], 3.0 * SelfAttention(select=Selection(grid="half"))(observed))
    torch.testing.assert_close(values["variance"], 2.0 * 0.25 * Variance()(observed))


def test_term_that_is_switched_off_is_not_evaluated() -> None:
    late = Objective({"late": WeightedTerm(Failing(), 1.0, Schedule(window=(0.6, 1.0)))})
    never = Objective({"never": WeightedTerm(Failing(), 0.0, Schedule())})
    assert late(observation(progress=0.5)) == ({}, {})
    assert never(observation()) == ({}, {})


def test_no_terms_read_nothing() -> None:
    assert Objective({}).sites(SITES, LATENTS) == ()
    assert Objective({})(observation()) == ({}, {})


def always(**terms: LossTerm | StatefulTerm) -> Objective:
    return Objective({name: WeightedTerm(term, 1.0, Schedule()) for name, term in terms.items()})


def test_sites_of_the_union_come_in_every_view_in_which_they_are_read() -> None:
    whole = always(
        probed=Contrast(),
        separate=Contrast(tokens="separate", select=Selection(("up",))),
        replaced=Replace(select=Selection(("up",), "half")),
        structure=SelfAttention(select=Selection(("up",))),
    )
    found = [(site.kind, site.place, site.grid.rows, site.view) for site in whole.sites(iter(SITES), LATENTS)]
    assert found == [
        ("cross", "down", 2, "probe"),
        ("cross", "up", 2, "prompt"), ("cross", "up", 2, "probe"), ("cross", "up", 2, "separate"),
        ("self", "up", 2, "prompt"),
        ("cross", "up", 4, "prompt"), ("cross", "up", 4, "reference"),
    ]  # fmt: skip


def test_view_that_two_terms_read_comes_once() -> None:
    once, twice = always(one=Replace()), always(one=Replace(), other=Replace("mass"), third=Variance())
    assert twice.sites(SITES, LATENTS) == once.sites(SITES, LATENTS)


def test_interference_is_read_where_any_term_reads_it() -> None:
    assert not always(entropy=Entropy(), variance=Variance(), structure=SelfAttention()).reads_interference
    assert not Objective({}).reads_interference
    for term in (Contrast(), Contrast(tokens="joint"), Replace()):
        assert always(entropy=Entropy(), steered=term).reads_interference


@dataclass(frozen=True)
class Counting:
    """A term that notes the states that it is handed and adds a mark of its own to each."""

    mark: float
    handed: list[list[float] | None] = field(default_factory=list)
    reads_interference: ClassVar[bool] = False
    stateful: ClassVar[bool] = True

    def sites(self, available: Iterable[Site], latents: Size) -> tuple[Site, ...]:
        return ()

    def __call__(self, observation: Observation, state: TermState | None) -> tuple[Tensor, TermState]:
        self.handed.append(None if state is None else [float(each) for each in state])
        before = state or (torch.zeros(1),) * 3
        return torch.zeros(3), tuple(each + self.mark for each in before)


@dataclass(frozen=True)
class Stateless:
    """A term that must never be handed a state."""

    reads_interference: ClassVar[bool] = False

    def sites(self, available: Iterable[Site], latents: Size) -> tuple[Site, ...]:
        return ()

    def __call__(self, observation: Observation) -> Tensor:
        return torch.zeros(3)


def test_only_terms_with_a_state_have_one() -> None:
    whole = always(
        variance=Variance(), structure=SelfAttention(), plain=Entropy(), tv=Entropy(smoothing="tv"),
        ema=Entropy(smoothing="ema"),
    )  # fmt: skip
    _, states = whole(observation())
    assert list(states) == ["ema"]
    assert len(states["ema"]) == 3
    assert whole(observation(), states)[1].keys() == states.keys()
    assert always(variance=Variance())(observation())[1] == {}


def test_each_term_is_handed_its_own_state_only_and_once_an_iteration() -> None:
    ones, tens = Counting(1.0), Counting(10.0)
    whole = always(ones=ones, stateless=Stateless(), tens=tens)
    states: TermStates = {}
    for _ in range(3):
        _, states = whole(observation(), states)
    assert {name: [float(each) for each in kept] for name, kept in states.items()} == {
        "ones": [3.0] * 3,
        "tens": [30.0] * 3,
    }
    for term in (ones, tens):
        assert term.handed == [None, [term.mark] * 3, [2 * term.mark] * 3]


def test_the_state_goes_on_while_the_term_is_switched_off() -> None:
    late = Objective({"late": WeightedTerm(Counting(1.0), 1.0, Schedule(window=(0.6, 1.0)))})
    values, states = late(observation(progress=0.5))
    assert values == {}
    assert [float(each) for each in states["late"]] == [1.0] * 3
    values, states = late(observation(progress=0.7), states)
    assert values.keys() == {"late"}
    assert [float(each) for each in states["late"]] == [2.0] * 3


def test_a_term_that_is_switched_off_keeps_no_graph() -> None:
    ema = Objective({"ema": WeightedTerm(Entropy(smoothing="ema"), 1.0, Schedule(window=(0.6, 1.0)))})
    sites = [site for site in SITES if site.kind == "cross" and site.grid.rows == 2]
    whole = observation(progress=0.5)
    leaves = {site: [each.clone().requires_grad_() for each in whole.adversarial.attention[site]] for site in sites}
    _, states = ema(with_maps(whole, leaves))
    assert not any(each.requires_grad for each in states["ema"])


def test_the_state_of_a_term_that_is_not_there_is_nobodys() -> None:
    values, states = always(stateless=Stateless())(observation(), {"gone": (torch.ones(1),) * 3})
    assert torch.equal(values["stateless"], torch.zeros(3))
    assert states == {}
