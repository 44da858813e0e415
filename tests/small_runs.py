"""The smallest run that goes the whole way: three smooth 64 px images, one untrained surrogate, two iterations."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from attnshift.classifiers import load_classifier
from attnshift.data.datasets import Item
from attnshift.data.images import read_image, write_png
from attnshift.data.references import Reference
from attnshift.execution.coordinate import attack_folder
from attnshift.execution.settings import AttackSettings
from attnshift.recipes.reading import load_recipe
from attnshift.results.plan import Plan
from attnshift.telemetry import Event, ImageDone, ImageFailed, Telemetry

if TYPE_CHECKING:
    from attnshift.results.store import Store

SURROGATE = "random:test_resnet"
SIDE = 64
SHORT_PATH = "diffusion.denoising_steps=1"
"""One step in place of the four of preset ``quick``, for tests of what is around an attack."""
TWO_STEPS = "diffusion.denoising_steps=2"
"""For tests of the attack itself, where a step must be able to follow another."""


def write_photos(folder: Path, count: int = 3, seed: int = 0) -> Path:
    """Smooth images, labelled by what the surrogate sees in them, so that there is something to attack."""
    images = folder / "images"
    images.mkdir(parents=True)
    generator = torch.Generator().manual_seed(seed)
    surrogate = load_classifier(SURROGATE)
    rows: list[tuple[str, int, str]] = []
    for number in range(count):
        coarse = torch.rand(1, 3, 6, 6, generator=generator)
        image = torch.nn.functional.interpolate(coarse, (SIDE, SIDE), mode="bicubic").clamp(0, 1)[0]
        # Names whose alphabetical order is not the plan's.
        file = f"photo-{count - number}.png"
        write_png(images / file, image, {})
        with torch.no_grad():
            label = int(surrogate(read_image(images / file, SIDE)[None]).argmax())
        rows.append((file, label, ("mug", "snowman", "red ball")[number % 3]))
    return write_labels(folder, rows)


def write_labels(folder: Path, rows: Sequence[tuple[str, int | str, str]]) -> Path:
    with (folder / "labels.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("file", "label", "class_name"), *rows])
    return folder / "labels.csv"


def small_settings(photos: Path, pipeline: Path, out: Path, *changes: str, **others: Any) -> AttackSettings:
    """Preset ``quick`` cut to two iterations; ``photos`` is what ``write_photos`` filled.

    The last iterate is kept: against an untrained surrogate the best one is often the first, where nothing is changed.
    """
    recipe = load_recipe("quick", ["optimiser.iterations=2", "finish.keep=last", SHORT_PATH, *changes])
    usual: dict[str, Any] = {
        "images": photos / "images",
        "labels": photos / "labels.csv",
        "pipeline": str(pipeline),
        "surrogates": (SURROGATE,),
        "batch": 2,
    }
    return AttackSettings(recipe=recipe, out=out, **(usual | others))


def planned(*names: str) -> Plan:
    """A plan of made-up images, ids as their names."""
    return Plan.draw(Item(name, f"{name}.png", Reference("file", f"/{name}.png"), 0, "mug") for name in names)


def run_small(settings: AttackSettings) -> Store:
    return attack_folder(settings)


class Told:
    """Hears of every image that is done or failed, and presses Ctrl-C at number ``stop``, from 1."""

    iterations = False

    def __init__(self, stop: int = 0):
        self.stop = stop
        self.done: list[ImageDone] = []
        self.failed: list[ImageFailed] = []

    def __call__(self, event: Event) -> None:
        if isinstance(event, ImageFailed):
            self.failed.append(event)
        if isinstance(event, ImageDone):
            self.done.append(event)
            if len(self.done) == self.stop:
                raise KeyboardInterrupt

    def close(self) -> None:
        pass

    def telemetry(self) -> Telemetry:
        return Telemetry([self])


def contents(folder: Path) -> dict[str, str]:
    """Every file below ``folder`` with a digest of its bytes."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def lasting(folder: Path) -> set[str]:
    """Names of all files of a run, but for its ledgers, which are called after processes."""
    return {name for name in contents(folder) if not name.startswith("ledger/")}


def pngs(folder: Path) -> dict[str, str]:
    return {name: digest for name, digest in contents(folder).items() if name.endswith(".png")}


def pixels(path: Path) -> bytes:
    with Image.open(path) as image:
        return image.tobytes()
