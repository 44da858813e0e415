"""Work that takes no time: it stands in for an attack where only what is around it is tested."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from PIL import Image

from attnshift.attack.clean_path import Inversions, compute_uncached
from attnshift.attack.prepare import Task
from attnshift.data.datasets import Item, read_items
from attnshift.data.images import quantise
from attnshift.execution.prepare import PreparedRun
from attnshift.execution.work import BatchResult
from attnshift.execution.worker import Worker
from attnshift.recipes.reading import load_recipe
from attnshift.results.plan import Plan
from attnshift.results.software import software
from attnshift.results.spec import RunSpec
from small_runs import write_labels

if TYPE_CHECKING:
    from attnshift.attack.loop import Snapshot

__all__ = ["Hook", "Painting", "items_of", "killing", "painted", "write_cards"]

Hook = Callable[[Sequence[Task]], None]


def nothing(tasks: Sequence[Task]) -> None:
    pass


@dataclass(frozen=True)
class Painting:
    """Darkens images. ``before`` is shown the tasks first, and whatever is to go wrong goes wrong there."""

    before: Hook = nothing

    def check(self, *_: object) -> None:
        pass

    weights: ClassVar[Mapping[str, str]] = {}

    def remarks(self, backbone: object, classifiers: object) -> tuple[str, ...]:
        return ()

    def carry_out(
        self,
        backbone: object,
        classifiers: object,
        tasks: Sequence[Task],
        watch: Callable[[Snapshot], None] | None = None,
        inversions: Inversions = compute_uncached,
    ) -> BatchResult:
        self.before(tasks)
        images = torch.stack([task.image for task in tasks])
        arms = {"clean": quantise(images), "attack": quantise(images * 0.5)}
        margins = {arm: each.mean((1, 2, 3))[None] for arm, each in arms.items()}
        known = torch.ones(1, len(tasks), dtype=torch.bool)
        return BatchResult(arms, margins, [{"iteration": 0, "evaluated": 1} for _ in tasks], known)


def write_cards(folder: Path, count: int) -> Path:
    """A folder with images/ and labels.csv: so many small images of one colour each."""
    (folder / "images").mkdir(parents=True)
    names = [f"card-{number}.png" for number in range(count)]
    for number, name in enumerate(names):
        Image.new("RGB", (16, 16), (number * 20, 200, 100)).save(folder / "images" / name)
    write_labels(folder, [(name, number, "card") for number, name in enumerate(names)])
    return folder


def items_of(cards: Path) -> list[Item]:
    return list(read_items(cards / "images", cards / "labels.csv", (), 1000))


def painted(cards: Path, batch: int = 2, before: Hook = nothing) -> PreparedRun:
    """A run on what ``write_cards`` wrote, for which nothing is loaded."""
    plan, recipe = Plan.draw(items_of(cards)), load_recipe("quick")
    spec = RunSpec(
        images="images",
        labels="labels.csv",
        items=plan.digest,
        pipeline="none",
        surrogates=("none",),
        weights={"pipeline": "none"},
        size=16,
        batch=batch,
        device="cpu",
        threads=1,
        software=software(recipe, "none", ("none",)),
        recipe=recipe,
    )
    work: Any = Painting(before)
    backbone: Any = None
    return PreparedRun(Worker(work, backbone, (), spec), plan)


def killing(id: str, number: signal.Signals = signal.SIGKILL) -> Hook:
    """Sends the process a signal where the item is among the tasks."""

    def before(tasks: Sequence[Task]) -> None:
        if id in (task.id for task in tasks):
            os.kill(os.getpid(), number)

    return before
