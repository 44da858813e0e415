"""The weighted terms of a recipe as one function of an observation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from attnshift.losses.schedules import Schedule
from attnshift.types import Observation, Site

__all__ = ["LossTerm", "Objective", "WeightedTerm"]


@runtime_checkable
class LossTerm(Protocol):
    """A penalty that the attack lowers: one fp32 value per image, [batch], never reduced over the batch."""

    def sites(self, available: Iterable[Site], latent_side: int) -> tuple[Site, ...]:
        """The attention sites that it reads."""
        ...

    def __call__(self, observation: Observation) -> Tensor: ...


@dataclass(frozen=True)
class WeightedTerm:
    term: LossTerm
    weight: float
    schedule: Schedule

    def at(self, progress: float) -> float:
        return self.weight * self.schedule(progress)


@dataclass(frozen=True)
class Objective:
    """All terms but the classification, by name."""

    terms: Mapping[str, WeightedTerm]

    def sites(self, available: Iterable[Site], latent_side: int) -> tuple[Site, ...]:
        """Union of what the terms read, in the order of ``available``; nothing else is materialised."""
        offered = tuple(available)
        wanted = {site for weighted in self.terms.values() for site in weighted.term.sites(offered, latent_side)}
        return tuple(site for site in offered if site in wanted)

    def __call__(self, observation: Observation) -> dict[str, Tensor]:
        """Weighted value of each term that is switched on at this progress, [batch] each."""
        weights = {name: weighted.at(observation.progress) for name, weighted in self.terms.items()}
        return {name: weight * self.terms[name].term(observation) for name, weight in weights.items() if weight}
