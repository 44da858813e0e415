"""Agreement of an attack's parts, before it starts: what the surrogates answer
to the clean images, and the labels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from attnshift.classifiers.classifier import Classifier
from attnshift.data.datasets import Item
from attnshift.data.images import Framing
from attnshift.data.references import fetch
from attnshift.defences.names import undefended
from attnshift.errors import UserError
from attnshift.metrics.clean_accuracy import gains
from attnshift.metrics.statistics import Estimate, wilson
from attnshift.terminal import plural

__all__ = ["SAMPLE", "Agreement", "CleanAccuracy", "is_random", "measure_agreement", "readable", "sampled"]

SAMPLE = 64
"""Most images that the surrogates are shown."""

_USELESS = 0.25
_SHIFTS = {-1: "labels seem to count from 1", 1: "labels seem to be one too low"}


@dataclass(frozen=True)
class CleanAccuracy:
    """Answers of one surrogate to clean images.

    ``right`` has one flag for each image; ``shifted`` has the same for labels that are all one
    lower (-1) or one higher (1). ``classes`` is the number of classes.
    """

    name: str
    classes: int
    right: tuple[bool, ...]
    shifted: dict[int, tuple[bool, ...]]

    @property
    def estimate(self) -> Estimate:
        """Share of the images that it gets right, with its 95 % interval."""
        return wilson(sum(self.right), len(self.right))

    def fits(self, shift: int) -> bool:
        """True if it is right about more images with labels moved by ``shift``,
        beyond chance (sign test)."""
        return gains(self.right, self.shifted[shift])

    def only_fits(self, shift: int) -> bool:
        """True if it is right about every image with labels moved by ``shift``,
        and about none as they are."""
        return bool(self.right) and all(self.shifted[shift]) and not any(self.right)

    @property
    def no_better_than_chance(self) -> bool:
        """True if its accuracy does not exceed chance, and there are enough images to say so.

        The lower end of its interval is at most 1 / classes, and the upper end is below a quarter,
        or below one and a half times chance where that is more.
        """
        chance = 1 / self.classes
        return self.estimate.low <= chance and self.estimate.high < max(_USELESS, 1.5 * chance)


@dataclass(frozen=True)
class Agreement:
    """Clean accuracy of every surrogate on the same images. Those that say that their weights are
    ``random`` prove nothing and are only named."""

    surrogates: tuple[CleanAccuracy, ...]
    random: tuple[str, ...] = ()

    @property
    def complaint(self) -> str:
        """What speaks against the labels, with its remedy; nothing where nothing plainly does."""
        return self._shift() or self._chance()

    @property
    def random_line(self) -> str:
        """A line about the surrogates whose weights are random; nothing where there are none."""
        if not self.random:
            return ""
        have = "has" if len(self.random) == 1 else "have"
        return f"{', '.join(self.random)} {have} random weights, whose answers say nothing about the images"

    def _shift(self) -> str:
        trained = self.surrogates
        for shift, what in _SHIFTS.items():
            if not trained or not (
                (
                    any(each.fits(shift) for each in trained)
                    and all(sum(each.shifted[shift]) >= sum(each.right) for each in trained)
                )
                or all(each.only_fits(shift) for each in trained)
            ):
                continue
            shares = [_percent(sum(each.shifted[shift]), len(each.right)) for each in trained]
            now = [_percent(sum(each.right), len(each.right)) for each in trained]
            moved = f"label {'-' if shift < 0 else '+'} 1"
            return (
                f"{what}: with {moved} the surrogates are right about {_range(shares)} of "
                f"{plural(len(trained[0].right), 'image')}, and with the labels as they are about {_range(now)}; "
                "correct the labels, which count from 0"
            )
        return ""

    def _chance(self) -> str:
        trained = self.surrogates
        poor = [each for each in trained if each.no_better_than_chance]
        if not poor:
            return ""
        found = ", ".join(f"{each.name} is right about {sum(each.right)} of {len(each.right)}" for each in poor)
        if len(poor) < len(trained):
            cause = "its preprocessing or its class order differs from the others'; mend it or leave it out"
        else:
            cause = "the labels are not in the surrogates' class order; mend them"
        return f"{found} clean images, no more than by chance: {cause}"


def is_random(name: str) -> bool:
    """True for a classifier that says that its weights are random, behind a defence or not.

    >>> is_random("jpeg+random:resnet18"), is_random("lab:resnet")
    (True, False)
    """
    return undefended(name).startswith("random:")


def sampled(items: Iterable[Item], count: int) -> list[Item]:
    """At most ``SAMPLE`` of ``count`` items, evenly spaced in their order,
    so that sorted classes are all met."""
    chosen = {place * count // SAMPLE for place in range(SAMPLE)} if count > SAMPLE else range(count)
    return [item for place, item in enumerate(items) if place in chosen]


def readable(items: Iterable[Item], framing: Framing) -> Iterator[tuple[Item, Tensor]]:
    """Those of ``items`` whose images can be read, with the images [3,height,width] in [0,1].

    Another one fails alone when it is attacked, and the run says why.
    """
    for item in items:
        try:
            image = framing.decode(fetch(item.image), item.file)
        except UserError:
            continue
        yield item, image


@torch.no_grad()
def measure_agreement(
    classifiers: Sequence[Classifier], shown: Iterable[tuple[Item, Tensor]], device: str
) -> Agreement:
    """Show the images [3,height,width] of ``shown`` to those of ``classifiers``
    whose weights are not random."""
    trained = [each for each in classifiers if not is_random(each.name)]
    answers: dict[str, list[int]] = {each.name: [] for each in trained}
    labels: list[int] = []
    for item, image in shown if trained else ():
        labels.append(item.label)
        for classifier in trained:
            answers[classifier.name].append(int(classifier(image[None].to(device)).argmax(1)))
    return Agreement(
        tuple(_accuracy(each, answers[each.name], labels) for each in trained),
        tuple(each.name for each in classifiers if is_random(each.name)),
    )


def _accuracy(classifier: Classifier, seen: Sequence[int], labels: Sequence[int]) -> CleanAccuracy:
    shifted = {shift: _equal(seen, labels, shift) for shift in _SHIFTS}
    return CleanAccuracy(classifier.name, classifier.classes, _equal(seen, labels, 0), shifted)


def _equal(seen: Sequence[int], labels: Sequence[int], shift: int) -> tuple[bool, ...]:
    return tuple(number == label + shift for number, label in zip(seen, labels, strict=True))


def _percent(part: int, whole: int) -> int:
    return round(100 * part / whole)


def _range(shares: Sequence[int]) -> str:
    low, high = min(shares), max(shares)
    return f"{low} %" if low == high else f"{low} to {high} %"
