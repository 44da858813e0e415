"""Whether a classifier is fit to judge: right about clean images, and at its best under its own normalisation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from attnshift.metrics.statistics import by_chance, wilson

__all__ = ["LEAST", "USUAL", "suspicion"]

LEAST = 0.25
"""The default share of the best classifier's accuracy that a judge must reach."""

USUAL: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "mean (0.485, 0.456, 0.406) and std (0.229, 0.224, 0.225)": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "mean 0.5 and std 0.5": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "mean 0 and std 1": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}
"""The normalisations that most networks were trained with."""

_GAIN, _CHANCE = 0.05, 0.001


def suspicion(
    name: str,
    right: Mapping[str, Sequence[bool]],
    retry: Callable[[tuple[float, float, float], tuple[float, float, float]], Sequence[bool]] | None,
    least: float = LEAST,
) -> str | None:
    """Why the classifier ``name`` should not judge, as a sentence, or nothing.

    ``right`` says of every classifier of a run which clean images it is right about; ``retry`` says it of this one
    under another mean and std, where they may be tried. Only a classifier whose 95 % interval ends below that of the
    best one is suspected, so neither a few images nor a run in which nobody is right raise a doubt. It is raised where

    - one of ``USUAL`` is right about at least 5 % more of the same images, beyond chance (sign test, p <= 0.001), or
    - the upper limit of its accuracy lies below ``least`` times the lower limit of the best one's.
    """
    limits = {each: wilson(sum(seen), len(seen)) for each, seen in right.items()}
    best = max(limits, key=lambda each: limits[each].low)
    own, count = right[name], len(right[name])
    if limits[name].high >= limits[best].low:
        return None
    found = f"{name} is right about {sum(own)} of {count} clean images"
    if retry is not None:
        others = {label: retry(mean, std) for label, (mean, std) in USUAL.items()}
        label = max(others, key=lambda each: sum(others[each]))
        if sum(others[label]) - sum(own) >= _GAIN * count and _chance(own, others[label]) <= _CHANCE:
            return f"{found}, and about {sum(others[label])} with {label}: its mean and std are probably wrong"
    if limits[name].high < least * limits[best].low:
        return (
            f"{found} and {best} about {sum(right[best])} of {len(right[best])}: its preprocessing (size, range, mean, "
            "std) or its class order is probably wrong"
        )
    return None


def _chance(before: Sequence[bool], after: Sequence[bool]) -> float:
    """Probability of so many images won, or more, if winning and losing were equally likely (sign test).

    >>> _chance([False, False, False, True], [True, True, True, True])
    0.125
    """
    won = sum(new and not old for old, new in zip(before, after, strict=True))
    changed = sum(new != old for old, new in zip(before, after, strict=True))
    return by_chance(won, changed)
