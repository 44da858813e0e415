"""The weighted terms of a recipe as one function of an observation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeGuard, get_args, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from attnshift.losses.schedules import Schedule
from attnshift.sizes import Size
from attnshift.types import AttentionView, Observation, Site

__all__ = [
    "LossTerm",
    "Objective",
    "StatefulTerm",
    "TermState",
    "TermStates",
    "WeightedTerm",
    "evaluate_term",
    "holds",
    "is_stateful",
]

TermState = tuple[Tensor, ...]
"""What a term hands from one iteration to the next: one constant tensor of any shape for each
image."""
TermStates = Mapping[str, TermState]
"""The state of each term that has one, by the term's name."""


@runtime_checkable
class _Reader(Protocol):
    """A term's account of what it reads."""

    @property
    def reads_interference(self) -> bool:
        """Whether it needs ``Observation.interference``."""
        ...

    def sites(self, available: Iterable[Site], latents: Size) -> tuple[Site, ...]:
        """The attention sites that it reads, each in the view in which it reads it."""
        ...


@runtime_checkable
class LossTerm(_Reader, Protocol):
    """A penalty that the attack lowers: one fp32 value per image, [batch], never reduced over the
    batch."""

    def __call__(self, observation: Observation) -> Float[Tensor, "batch"]: ...


@runtime_checkable
class StatefulTerm(_Reader, Protocol):
    """A loss term whose value also depends on its own state after the iteration before.

    It says so by ``stateful = True``. The state is None in the first iteration; an image that
    leaves the batch takes its tensor along. A term is called in every iteration, also where its
    weight is 0: its state goes on.
    """

    @property
    def stateful(self) -> bool:
        """True; a term without it has no state."""
        ...

    def __call__(
        self, observation: Observation, state: TermState | None
    ) -> tuple[Float[Tensor, "batch"], TermState | None]:
        """One fp32 value per image, and the state for the next iteration, without
        gradient."""
        ...


def is_stateful(term: LossTerm | StatefulTerm) -> TypeGuard[StatefulTerm]:
    """Tell a term that is called with its state from one that is called with the observation
    alone."""
    return bool(getattr(term, "stateful", False))


def holds(term: LossTerm | StatefulTerm) -> bool:
    """Tell a term that holds the image back, 0 where nothing has changed, from one that steers.

    A term says so by ``holds = True``; one that does not say it steers.
    """
    return bool(getattr(term, "holds", False))


def evaluate_term(
    term: LossTerm | StatefulTerm, observation: Observation, state: TermState | None = None
) -> tuple[Float[Tensor, "batch"], TermState | None]:
    """The value of a term of either kind, and its next state; None for a term that has none."""
    return term(observation, state) if is_stateful(term) else (term(observation), None)  # type: ignore[call-arg]


@dataclass(frozen=True)
class WeightedTerm:
    """A term with its weight, and the schedule that the weight follows."""

    term: LossTerm | StatefulTerm
    weight: float
    schedule: Schedule

    def at(self, progress: float) -> float:
        """The weight when the share ``progress``, in (0,1], of the iterations is done."""
        return self.weight * self.schedule(progress)


@dataclass(frozen=True)
class Objective:
    """All terms but the classification, by name."""

    terms: Mapping[str, WeightedTerm]

    @property
    def reads_interference(self) -> bool:
        return any(weighted.term.reads_interference for weighted in self.terms.values())

    @property
    def holding(self) -> frozenset[str]:
        """Names of the terms that hold the image back at the clean one."""
        return frozenset(name for name, weighted in self.terms.items() if holds(weighted.term))

    @property
    def reads_mask(self) -> bool:
        """Whether a term reads ``Observation.weights``; one that does not say so by ``reads_mask``
        may."""
        return any(getattr(weighted.term, "reads_mask", True) for weighted in self.terms.values())

    def sites(self, available: Iterable[Site], latents: Size) -> tuple[Site, ...]:
        """Union of what the terms read, in the order of ``available``; nothing else is
        materialised."""
        offered, views = tuple(available), get_args(AttentionView)
        wanted = {site for weighted in self.terms.values() for site in weighted.term.sites(offered, latents)}
        places = {site.layer: at for at, site in enumerate(offered)}
        return tuple(
            sorted(wanted, key=lambda site: (places[site.layer], views.index(site.view), site.form, site.sample))
        )

    def weights(self, progress: float) -> dict[str, float]:
        """Weight of each term that is switched on at this progress."""
        weights = {name: weighted.at(progress) for name, weighted in self.terms.items()}
        return {name: weight for name, weight in weights.items() if weight}

    def __call__(
        self, observation: Observation, states: TermStates | None = None
    ) -> tuple[dict[str, Float[Tensor, "batch"]], TermStates]:
        """Weighted value of each term that is switched on,
        and the states for the next iteration."""
        values, after = {}, {}
        weights, before = self.weights(observation.progress), states or {}
        for name, weighted in self.terms.items():
            if name not in weights and not is_stateful(weighted.term):
                continue
            with torch.set_grad_enabled(name in weights and torch.is_grad_enabled()):
                value, state = evaluate_term(weighted.term, observation, before.get(name))
            if name in weights:
                values[name] = weights[name] * value
            if state is not None:
                after[name] = state
        return values, after
