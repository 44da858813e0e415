"""The weighted sum of terms: what it reads, and when each term counts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from attnshift.attention.selection import Selection
from attnshift.losses.attention import Contrast, Entropy, Replace, Variance
from attnshift.losses.objective import LossTerm, Memory, Objective, WeightedTerm
from attnshift.losses.schedules import Schedule
from attnshift.losses.structure import SelfAttention
from attnshift.types import Observation, Site
from contracts.observations import LATENT_SIDE, SITES, observation, with_maps


@dataclass(frozen=True)
class Failing:
    """A term that must not be evaluated."""

    reads_interference: ClassVar[bool] = False

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
    cut = replace(cut, clean=replace(cut.clean, attention=clean))
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


def always(**terms: LossTerm) -> Objective:
    return Objective({name: WeightedTerm(term, 1.0, Schedule()) for name, term in terms.items()})


def test_sites_of_the_union_come_in_every_view_in_which_they_are_read() -> None:
    whole = always(
        probed=Contrast(),
        separate=Contrast(tokens="separate", select=Selection(("up",))),
        replaced=Replace(select=Selection(("up",), "half")),
        structure=SelfAttention(select=Selection(("up",))),
    )
    found = [(site.kind, site.place, site.side, site.view) for site in whole.sites(iter(SITES), LATENT_SIDE)]
    assert found == [
        ("cross", "down", 2, "probe"),
        ("cross", "up", 2, "prompt"), ("cross", "up", 2, "probe"), ("cross", "up", 2, "separate"),
        ("self", "up", 2, "prompt"),
        ("cross", "up", 4, "prompt"), ("cross", "up", 4, "reference"),
    ]  # fmt: skip


def test_view_that_two_terms_read_comes_once() -> None:
    once, twice = always(one=Replace()), always(one=Replace(), other=Replace("mass"), third=Variance())
    assert twice.sites(SITES, LATENT_SIDE) == once.sites(SITES, LATENT_SIDE)


def test_interference_is_read_where_any_term_reads_it() -> None:
    assert not always(entropy=Entropy(), variance=Variance(), structure=SelfAttention()).reads_interference
    assert not Objective({}).reads_interference
    for term in (Contrast(), Contrast(tokens="joint"), Replace()):
        assert always(entropy=Entropy(), steered=term).reads_interference


@dataclass(frozen=True)
class Recalling:
    """A term that notes what it is handed and remembers it with a mark of its own added."""

    mark: float
    handed: list[tuple[str, tuple[Tensor, ...] | None]] = field(default_factory=list)
    reads_interference: ClassVar[bool] = False

    def sites(self, available: Iterable[Site], latent_side: int) -> tuple[Site, ...]:
        return ()

    def __call__(self, observation: Observation) -> Tensor:
        self.handed.append(("value", observation.memory))
        return torch.zeros(3)

    def remember(self, observation: Observation) -> tuple[Tensor, ...]:
        self.handed.append(("remember", observation.memory))
        before = observation.memory or (torch.zeros(1),) * 3
        return tuple(each + self.mark for each in before)


@dataclass(frozen=True)
class Forgetful:
    """A term without a memory, which must never be handed one."""

    reads_interference: ClassVar[bool] = False

    def sites(self, available: Iterable[Site], latent_side: int) -> tuple[Site, ...]:
        return ()

    def __call__(self, observation: Observation) -> Tensor:
        assert observation.memory is None
        return torch.zeros(3)


def test_only_terms_with_something_to_remember_are_in_the_memory() -> None:
    whole = always(
        variance=Variance(), structure=SelfAttention(), plain=Entropy(), tv=Entropy(smoothing="tv"),
        ema=Entropy(smoothing="ema"),
    )  # fmt: skip
    memory = whole.remember(observation(), {})
    assert list(memory) == ["ema"]
    assert len(memory["ema"]) == 3
    assert whole.remember(observation(), memory).keys() == memory.keys()
    assert always(variance=Variance()).remember(observation(), {}) == {}


def test_each_term_is_handed_its_own_memory_only() -> None:
    ones, tens, forgetful = Recalling(1.0), Recalling(10.0), Forgetful()
    whole = always(ones=ones, forgetful=forgetful, tens=tens)
    memory: Memory = {}
    for _ in range(3):
        whole(observation(), memory)
        memory = whole.remember(observation(), memory)
    assert {name: [float(each) for each in kept] for name, kept in memory.items()} == {
        "ones": [3.0] * 3,
        "tens": [30.0] * 3,
    }
    for term in (ones, tens):
        seen = [(when, None if kept is None else [float(each) for each in kept]) for when, kept in term.handed]
        expected = [None, [term.mark] * 3, [2 * term.mark] * 3]
        assert seen == [(when, kept) for kept in expected for when in ("value", "remember")]


def test_memory_of_a_term_that_is_not_there_is_nobodys() -> None:
    whole = always(forgetful=Forgetful())
    assert torch.equal(whole(observation(), {"gone": (torch.ones(1),) * 3})["forgetful"], torch.zeros(3))


@pytest.mark.parametrize("memory", [None, {}])
def test_memory_that_the_observation_brings_along_is_not_the_terms(memory: Memory | None) -> None:
    stray = replace(observation(), memory=(torch.ones(1),) * 3)
    assert always(forgetful=Forgetful())(stray, memory).keys() == {"forgetful"}
