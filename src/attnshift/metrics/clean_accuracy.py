"""Check of a judge on clean images: it must be accurate, and best with its own normalisation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from attnshift.metrics.statistics import by_chance, wilson

__all__ = ["COMMON_NORMALISATIONS", "LEAST", "gains", "suspicion"]

LEAST = 0.25
"""Default share of the best classifier's accuracy that a judge must reach."""

COMMON_NORMALISATIONS: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "mean (0.485, 0.456, 0.406) and std (0.229, 0.224, 0.225)": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "mean 0.5 and std 0.5": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "mean 0 and std 1": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}
"""Means and standard deviations that most networks were trained with."""

_GAIN, _CHANCE = 0.05, 0.001


def suspicion(
    name: str,
    right: Mapping[str, Sequence[bool]],
    retry: Callable[[tuple[float, float, float], tuple[float, float, float]], Sequence[bool]] | None,
    least: float = LEAST,
) -> str | None:
    """Reason, as a sentence, to suspect that ``name`` is set up wrongly; None if there is none.

    ``right`` holds, for each classifier of a run, one flag for each clean image: is it classified
    correctly? ``retry`` returns these flags for ``name`` with another mean and std; None if they
    cannot be changed. A classifier is suspected only if the 95 % interval of its accuracy lies
    below that of the best one. So a few images, or a run in which all classifiers are wrong, raise
    no suspicion. In addition, one of

    - a normalisation of ``COMMON_NORMALISATIONS`` is right about at least 5 % more of the images,
      beyond chance (sign test, p <= 0.001), or
    - the upper limit of its accuracy is below ``least`` times the lower limit of the best one's

    must hold.
    """
    limits = {each: wilson(sum(seen), len(seen)) for each, seen in right.items()}
    best = max(limits, key=lambda each: limits[each].low)
    own, count = right[name], len(right[name])
    if limits[name].high >= limits[best].low:
        return None
    found = f"{name} is right about {sum(own)} of {count} clean images"
    if retry is not None:
        others = {label: retry(mean, std) for label, (mean, std) in COMMON_NORMALISATIONS.items()}
        label = max(others, key=lambda each: sum(others[each]))
        if gains(own, others[label]):
            return f"{found}, and about {sum(others[label])} with {label}: its mean and std are probably wrong"
    if limits[name].high < least * limits[best].low:
        return (
            f"{found} and {best} about {sum(right[best])} of {len(right[best])}: its preprocessing (size, range, mean, "
            "std) or its class order is probably wrong"
        )
    return None


def gains(before: Sequence[bool], after: Sequence[bool]) -> bool:
    """True if ``after`` is right about at least 5 % more of the same images than ``before``, beyond
    chance (sign test, p <= 0.001)."""
    return sum(after) - sum(before) >= _GAIN * len(before) and _chance(before, after) <= _CHANCE


def _chance(before: Sequence[bool], after: Sequence[bool]) -> float:
    """Probability of as many wins or more, if wins and losses are equally likely (sign test).

    >>> _chance([False, False, False, True], [True, True, True, True])
    0.125
    """
    won = sum(new and not old for old, new in zip(before, after, strict=True))
    changed = sum(new != old for old, new in zip(before, after, strict=True))
    return by_chance(won, changed)
