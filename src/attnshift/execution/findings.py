"""What is found out about an attack's input before it starts: names, clean accuracy,
the pipeline, and the cost."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch

from attnshift.attack.prepare import Task
from attnshift.classifiers.classifier import Classifier
from attnshift.data.datasets import Item
from attnshift.data.images import encode_png
from attnshift.diffusion.backbone import Backbone
from attnshift.diffusion.measures import PipelineMeasures
from attnshift.execution.agreement import Agreement
from attnshift.execution.work import work_of
from attnshift.execution.worker import read_task
from attnshift.recipes.schema import BaselineRecipe, Recipe
from attnshift.sizes import Size
from attnshift.terminal import plural

__all__ = ["Cost", "Findings", "KnownNames", "estimate_cost", "names_of"]

_SHOWN, _ITERATIONS = 3, 2
_SHORT = 10.0
"""Seconds up to which an attack on one image is carried out whole, and may end early."""


@dataclass(frozen=True)
class KnownNames:
    """Names of a surrogate's classes: the first few, and the number of its classes."""

    surrogate: str
    classes: int
    first: tuple[str, ...]

    @property
    def line(self) -> str:
        counted = plural(self.classes, "class", "classes")
        more = ", …" if self.classes > len(self.first) else ""
        return f"{counted}, {', '.join(self.first)}{more}" if self.first else f"{counted} without names"


@dataclass(frozen=True)
class Cost:
    """Estimate for all ``images``, from an attack on one of them.

    ``seconds`` are those of all images one by one, on a machine that does nothing else; with
    ``at_most``, if no image ends early. ``memory`` is the largest of this process so far, in bytes,
    None where the system does not say; ``disk`` is the size of the run's images, in bytes.
    """

    images: int
    seconds: float
    memory: int | None
    disk: int
    at_most: bool = False

    @property
    def line(self) -> str:
        memory = "" if self.memory is None else f"{self.memory / 1e9:.1f} GB of memory, "
        time = f"{'at most' if self.at_most else 'about'} {_duration(self.seconds)} one by one"
        return f"{time}, {memory}{max(self.disk / 1e6, 0.1):.1f} MB of disk for {plural(self.images, 'image')}"


@dataclass(frozen=True)
class Findings:
    """Everything that was found out. ``usable`` images can be attacked;
    ``refused``: no attack would start."""

    usable: int = 0
    refused: bool = False
    names: tuple[KnownNames, ...] = ()
    agreement: Agreement | None = None
    pipeline: PipelineMeasures | None = None
    cost: Cost | None = None

    def lines(self) -> Iterator[str]:
        """The table that `validate` prints."""
        for each in self.names:
            yield f"names of {each.surrogate}: {each.line}"
        for accuracy in self.agreement.surrogates if self.agreement else ():
            found, estimate = f"{sum(accuracy.right)} of {plural(len(accuracy.right), 'image')}", accuracy.estimate
            interval = f"95 % interval {100 * estimate.low:.0f} to {100 * estimate.high:.0f} %"
            yield f"clean accuracy of {accuracy.name}: right about {found} ({interval})"
        for name in self.agreement.random if self.agreement else ():
            yield f"clean accuracy of {name}: random weights, which say nothing about the labels"
        if self.pipeline:
            yield f"pipeline {self.pipeline.verdict.line}"
        if self.pipeline and self.pipeline.stand_in is not None:
            yield f"tiny decoder: {self.pipeline.stand_in:.1f} dB between its images and the pipeline's own decoder's"
        if self.cost:
            yield f"cost: {self.cost.line}"

    def to_json(self) -> dict[str, Any]:
        """The same as plain values."""
        accuracy = self.agreement.surrogates if self.agreement else ()
        measured = {**vars(self.pipeline), "verdict": self.pipeline.verdict.kind} if self.pipeline else None
        return {
            "usable": self.usable,
            "refused": self.refused,
            "names": [asdict(each) for each in self.names],
            "clean_accuracy": [
                {"surrogate": each.name, "right": sum(each.right), "images": len(each.right)}
                | {"low": each.estimate.low, "high": each.estimate.high}
                for each in accuracy
            ],
            "random": [] if self.agreement is None else list(self.agreement.random),
            "pipeline": measured,
            "cost": None if self.cost is None else asdict(self.cost),
        }


def names_of(classifiers: Sequence[Classifier]) -> tuple[KnownNames, ...]:
    """Names of the classes of each of ``classifiers``."""
    return tuple(KnownNames(each.name, each.classes, each.class_names[:_SHOWN]) for each in classifiers)


def estimate_cost(
    recipe: Recipe | BaselineRecipe,
    backbone: Backbone,
    classifiers: Sequence[Classifier],
    item: Item,
    images: int,
    common: Size | None,
) -> Cost:
    """Attack ``item`` for two iterations, or to its end where that is short, and multiply by
    ``images``.

    A longer attack is extrapolated to all iterations that ``recipe`` asks for.
    """
    attack = partial(_Timed.attack, backbone=backbone, classifiers=classifiers, task=read_task(item, common))
    tried, left = _shortened(recipe)
    timed = attack(tried)
    seconds = timed.whole + left * timed.iteration
    early = isinstance(recipe, Recipe) and recipe.finish.early
    if left and early and seconds < _SHORT:
        timed = attack(recipe)
        seconds, early = timed.whole, False
    return Cost(images, images * seconds, _peak(str(backbone.device)), images * timed.disk, bool(left) and early)


@dataclass(frozen=True)
class _Timed:
    """An attack on one image: seconds of the ``whole`` and of its first ``iteration``, and bytes of
    its PNG files."""

    whole: float
    iteration: float
    disk: int

    @classmethod
    def attack(
        cls, recipe: Recipe | BaselineRecipe, backbone: Backbone, classifiers: Sequence[Classifier], task: Task
    ) -> _Timed:
        now = _wall if str(backbone.device).startswith("cuda") else _wall_and_cpu
        begun, marks = now(), []
        done = work_of(recipe).carry_out(backbone, classifiers, [task], lambda snapshot: marks.append(now()))
        ended = now()
        iteration = _between(*marks[:2]) if len(marks) > 1 else 0.0
        return cls(_between(begun, ended), iteration, sum(len(encode_png(arm[0], {})) for arm in done.arms.values()))


def _shortened(recipe: Recipe | BaselineRecipe) -> tuple[Recipe | BaselineRecipe, int]:
    """``recipe`` with a few iterations, and how many are left out."""
    if isinstance(recipe, BaselineRecipe):
        return recipe, 0
    tried = min(_ITERATIONS, recipe.optimiser.iterations)
    section = recipe.optimiser.model_copy(update={"iterations": tried})
    return recipe.model_copy(update={"optimiser": section}), recipe.optimiser.iterations - tried


def _wall() -> tuple[float, ...]:
    return (time.monotonic(),)


def _wall_and_cpu() -> tuple[float, ...]:
    return time.monotonic(), time.process_time()


def _between(begun: Sequence[float], ended: Sequence[float]) -> float:
    """Seconds from ``begun`` to ``ended`` on the clock that counts least: on a busy machine that of
    the CPU."""
    return min(last - first for first, last in zip(begun, ended, strict=True))


def _peak(device: str) -> int | None:
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated()
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
