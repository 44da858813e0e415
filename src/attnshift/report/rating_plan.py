"""Questions of a rating session and their order: who is shown which arm of which image, when.

A session has two rounds. The first asks of single images whether they show their class. The second
shows pairs, and comes later since a pair gives the clean image away. In each round a rater sees an
image in one arm alone; the arms rotate from order to order, so that raters cover them all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from attnshift.randomness import generator

__all__ = ["ORDERS", "LabelTrial", "PairTrial", "RatingOrder", "chosen_images", "draw_order"]

ORDERS = 60
"""Orders of a page: the least number over which every rotation is even."""


@dataclass(frozen=True)
class LabelTrial:
    """Image ``place``, shown in ``arm``, with its own class or with the name of an ``other``."""

    place: int
    arm: str
    other: bool


@dataclass(frozen=True)
class PairTrial:
    """Image ``place``: the clean image beside ``arm``; ``clean_first`` says on which side it is."""

    place: int
    arm: str
    clean_first: bool


@dataclass(frozen=True)
class RatingOrder:
    labels: tuple[LabelTrial, ...]
    pairs: tuple[PairTrial, ...]


def chosen_images(ids: Sequence[str], count: int, seed: int) -> list[str]:
    """At most ``count`` of ``ids``, or all where it is 0, drawn with ``seed``."""
    return sorted(ids, key=lambda id: _draw(seed, id, "chosen"))[: count or None]


def draw_order(number: int, ids: Sequence[str], seed: int, reconstructed: bool, others: bool) -> RatingOrder:
    """Order ``number`` of the images ``ids``; a function of the seed, the number and the images.

    ``reconstructed``: the run has the arm reconstruction. ``others``: it has several classes, so
    that an image can be asked about with another one's name. Half of the first round are attacks;
    the second has one pair in ten that is plainly told apart.
    """
    labels = _rotated(number, ids, seed, "label", _label_cycle(reconstructed, others))
    pairs = _rotated(number, ids, seed, "original", _pair_cycle(reconstructed))
    return RatingOrder(
        tuple(LabelTrial(place, "clean" if arm == _OTHER else arm, arm == _OTHER) for place, arm in labels),
        tuple(PairTrial(place, arm, _draw(seed, ids[place], "side", number) < 0.5) for place, arm in pairs),
    )


_OTHER = "other"


def _label_cycle(reconstructed: bool, others: bool) -> tuple[str, ...]:
    controls = ("clean", *(["reconstruction"] if reconstructed else []), *([_OTHER] if others else []))
    return tuple(arm for control in controls for arm in ("attack", control))


def _pair_cycle(reconstructed: bool) -> tuple[str, ...]:
    return ("blurred", *(("attack", "attack", "reconstruction" if reconstructed else "attack") * 3))


def _rotated(number: int, ids: Sequence[str], seed: int, what: str, cycle: Sequence[str]) -> list[tuple[int, str]]:
    """Place of each image and its arm, in the order in which they are shown."""
    seats = sorted(range(len(ids)), key=lambda place: _draw(seed, ids[place], what, "seat"))
    trials = [(place, cycle[(seat + number) % len(cycle)]) for seat, place in enumerate(seats)]
    return sorted(trials, key=lambda trial: _draw(seed, ids[trial[0]], what, number))


def _draw(seed: int, id: str, *purpose: int | str) -> float:
    return float(generator(seed, id, "rating", *purpose).random())
