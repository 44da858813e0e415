"""The time of an attack, part by part; every second counts for one part, the innermost.

Inside ``profiled()`` calls of ``timed`` functions and the places that ``part`` marks count their
seconds. Outside of it no function is replaced, no clock is read and no hook is set.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

__all__ = ["ITERATIONS", "PARTS", "Profile", "part", "profiled", "time_backward", "timed"]

Function = TypeVar("Function", bound=Callable[..., Any])

ITERATIONS = ("denoising", "decoder", "classifiers", "fusion", "terms", "bookkeeping")
"""The parts of an iteration, forward and backward: the denoising steps with the attention that is
read; latents to images; the surrogates with their preprocessing; views and one direction from all
gradients; the other losses; and the rest: the optimiser, the choice of the iterate that is kept,
and autograd's own preparing and freeing of the graph."""
PARTS = ("loading", "preparation", "inversion", "reconstruction", *ITERATIONS, "controls", "storing")
"""Everything that time is counted for.

Preparation is encoding, prompts, clean branch and masks; controls are what is shown beside the
attack, and the surrogates' verdict on it; storing is reading, writing and all that is marked
nowhere.
"""


@dataclass
class _Open:
    """A part that was entered, and the one that its seconds count for at the moment: a backward
    pass moves on."""

    name: str
    counting: str


class Profile:
    """Seconds of each part so far; once closed they sum to the time since it was made."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = dict.fromkeys(PARTS, 0.0)
        self._open = [_Open("storing", "storing")]
        self._since = _now()

    @property
    def whole(self) -> float:
        return sum(self.seconds.values())

    @property
    def iterations(self) -> float:
        """Seconds of all iterations."""
        return sum(self.seconds[name] for name in ITERATIONS)

    @property
    def iterating(self) -> bool:
        return self._open[-1].name in ITERATIONS

    def enter(self, name: str) -> None:
        """Open part ``name``; outside of iterations their parts count for the part that they
        serve."""
        if name in ITERATIONS and name != "bookkeeping" and not self.iterating:
            name = self._open[-1].name
        self._count()
        self._open.append(_Open(name, name))

    def leave(self) -> None:
        self._count()
        self._open.pop()

    def turn(self, name: str | None) -> None:
        """Count as ``name`` from now on, until the next turn or the end of the part that is open;
        None turns back."""
        self._count()
        self._open[-1].counting = name or self._open[-1].name

    def _count(self) -> None:
        now = _now()
        self.seconds[self._open[-1].counting] += now - self._since
        self._since = now


_running: ContextVar[Profile | None] = ContextVar("profile", default=None)


@contextmanager
def profiled() -> Iterator[Profile]:
    """Count the seconds of everything inside; on a GPU the device is waited for wherever one part
    follows another."""
    profile = Profile()
    token = _running.set(profile)
    try:
        yield profile
    finally:
        _running.reset(token)
        profile.turn(None)


@contextmanager
def part(name: str) -> Iterator[None]:
    """Count what is inside, or the function that it decorates, as part ``name``, one of
    ``PARTS``."""
    profile = _running.get()
    if profile is None:
        yield
        return
    profile.enter(name)
    try:
        yield
    finally:
        profile.leave()


def time_backward(name: str | None, *tensors: Tensor) -> None:
    """Count a backward pass as part ``name`` from where it reaches any of ``tensors``; None: as
    what asked for it.

    Autograd goes back in the order in which it came, last step first. So whatever lies between the
    output of one step and the output of the step before belongs to the later one.
    """
    profile = _running.get()
    if profile is None or not profile.iterating:
        return
    for tensor in tensors:
        if tensor.requires_grad:
            tensor.register_hook(lambda _: profile.turn(name))


def timed(name: str, function: Function, until: int | None = None) -> Function:
    """The same ``function``; while a profile is open its calls count as part ``name``.

    Their backward passes count from the tensors that it returns, in tuples, mappings or alone. A
    backward pass turns back at the positional argument number ``until``, if that is given; else
    the function before it in the computation turns it. Outside of a profile this is ``function``.
    """
    return function if _running.get() is None else _Timed(name, function, until)  # type: ignore[return-value]


@dataclass(frozen=True)
class _Timed:
    """A callable that counts; every other attribute is the function's own."""

    part: str
    function: Callable[..., Any]
    until: int | None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.function, name)

    def __call__(self, *arguments: Any) -> Any:
        with part(self.part):
            if self.until is not None:
                time_backward(None, arguments[self.until])
            result = self.function(*arguments)
            time_backward(self.part, *_tensors(result))
        return result


def _tensors(result: Any) -> Iterator[Tensor]:
    """The tensors in ``result``: a tensor, or tuples and mappings that hold some."""
    if isinstance(result, Tensor):
        yield result
    elif isinstance(result, Mapping | tuple):
        for each in result.values() if isinstance(result, Mapping) else result:
            yield from _tensors(each)


def _now() -> float:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()
