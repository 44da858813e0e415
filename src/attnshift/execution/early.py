"""Checks of an attack's input that need no network,
and so are answered before torch is imported."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from attnshift.data.sources import open_source
from attnshift.defences.names import check_classifier_name
from attnshift.diffusion import check_pipeline_name
from attnshift.errors import UserError
from attnshift.sizes import read_size

__all__ = ["GivenInputs", "check_early", "check_names", "check_numbers", "check_surrogates", "early_complaints"]

_BOUNDS = {"batch": (1, 4096), "threads": (1, 1024), "limit": (1, 10**9)}


class GivenInputs(Protocol):
    """Input of an attack as somebody gives it."""

    @property
    def images(self) -> str | Path: ...

    @property
    def labels(self) -> Path | None: ...

    @property
    def masks(self) -> Path | None: ...

    @property
    def pipeline(self) -> str: ...

    @property
    def surrogates(self) -> tuple[str, ...]: ...


def check_early(inputs: GivenInputs, judges: Sequence[str] = ()) -> None:
    """Raise the first complaint about ``inputs`` or the names of ``judges``
    that can be found without a network."""
    for check in _checks(inputs):
        check()
    check_names((*inputs.surrogates, *judges))


def early_complaints(inputs: GivenInputs) -> list[UserError]:
    """All complaints about ``inputs`` without which nothing more can be examined.

    A surrogate whose name is wrong is none where another one is right:
    with that, the images can be read.
    """
    found = [*_complaints(_checks(inputs))]
    names = [*_complaints(lambda name=name: check_classifier_name(name) for name in inputs.surrogates)]  # type: ignore[misc]
    return found + (names if len(names) == len(inputs.surrogates) else [])


def check_numbers(values: Mapping[str, Any]) -> None:
    """Raise ``UserError`` for a number among ``values``, by option,
    that is out of its bounds, and for a ``size`` that is none; 0 is the default."""
    if values.get("size"):
        read_size(values["size"])
    for name, (lowest, highest) in _BOUNDS.items():
        value = values.get(name)
        if value and not lowest <= value <= highest:
            raise UserError(f"`{name}` is {value}; it must lie between {lowest} and {highest}")


def check_surrogates(names: Sequence[str]) -> None:
    """Raise ``UserError`` where no surrogate is named, or one twice."""
    if not names:
        raise UserError("no classifier to attack; give at least one in `surrogates`, such as timm:resnet50")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"`surrogates` names {twice[0]} twice, which would count twice; give it once")


def check_names(names: Sequence[str]) -> None:
    """Raise ``UserError`` for a classifier's name that can mean nothing:
    of another form, or of an unknown source."""
    for name in names:
        check_classifier_name(name)


def _checks(inputs: GivenInputs) -> Iterator[Callable[[], object]]:
    yield lambda: check_numbers(vars(inputs))
    yield lambda: check_surrogates(inputs.surrogates)
    yield lambda: check_pipeline_name(inputs.pipeline)
    # It looks for what it needs at once, and reads samples only when they are asked for.
    yield lambda: open_source(inputs.images, inputs.labels, (), inputs.masks)


def _complaints(checks: Iterator[Callable[[], object]]) -> Iterator[UserError]:
    for check in checks:
        try:
            check()
        except UserError as error:
            yield error
