"""The weighted terms of a recipe as one function of an observation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol, get_args, runtime_checkable

from torch import Tensor

from attnshift.losses.schedules import Schedule
from attnshift.types import Observation, Site, View

__all__ = ["LossTerm", "Memory", "Objective", "Remembering", "WeightedTerm"]

Memory = Mapping[str, tuple[Tensor, ...]]
"""What terms remember of an iteration for the next one: by name of the term, one tensor per image."""


@runtime_checkable
class LossTerm(Protocol):
    """A penalty that the attack lowers: one fp32 value per image, [batch], never reduced over the batch."""

    reads_interference: ClassVar[bool]

    def sites(self, available: Iterable[Site], latent_side: int) -> tuple[Site, ...]:
        """The attention sites that it reads, each in the view in which it reads it."""
        ...

    def __call__(self, observation: Observation) -> Tensor: ...


@runtime_checkable
class Remembering(LossTerm, Protocol):
    """A term whose value also depends on what it saw an iteration before."""

    def remember(self, observation: Observation) -> tuple[Tensor, ...] | None:
        """What the next iteration's observation holds as ``memory``; constants."""
        ...


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

    @property
    def reads_interference(self) -> bool:
        return any(weighted.term.reads_interference for weighted in self.terms.values())

    def sites(self, available: Iterable[Site], latent_side: int) -> tuple[Site, ...]:
        """Union of what the terms read, in the order of ``available``; nothing else is materialised."""
        offered, views = tuple(available), get_args(View)
        wanted = {site for weighted in self.terms.values() for site in weighted.term.sites(offered, latent_side)}
        places = {site.layer: at for at, site in enumerate(offered)}
        return tuple(sorted(wanted, key=lambda site: (places[site.layer], views.index(site.view), site.sample)))

    def weights(self, progress: float) -> dict[str, float]:
        """Weight of each term that is switched on at this progress."""
        weights = {name: weighted.at(progress) for name, weighted in self.terms.items()}
        return {name: weight for name, weight in weights.items() if weight}

    def __call__(self, observation: Observation, memory: Memory | None = None) -> dict[str, Tensor]:
        """Weighted value of each term that is switched on, [batch] each."""
        return {
            name: weight * self.terms[name].term(_recalling(observation, memory, name))
            for name, weight in self.weights(observation.progress).items()
        }

    def remember(self, observation: Observation, memory: Memory) -> Memory:
        """What the terms want to know in the next iteration of what they saw in this one."""
        kept = {
            name: weighted.term.remember(_recalling(observation, memory, name))
            for name, weighted in self.terms.items()
            if isinstance(weighted.term, Remembering)
        }
        return {name: each for name, each in kept.items() if each is not None}


def _recalling(observation: Observation, memory: Memory | None, name: str) -> Observation:
    return replace(observation, memory=(memory or {}).get(name))
