"""The engine for one process: plan, check everything, then attack batch by batch."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attnshift import __version__
from attnshift.attack.finish import Outcome, finish
from attnshift.attack.method import Method
from attnshift.attack.problem import Problem, Task, pose
from attnshift.attack.recipe import Recipe
from attnshift.classifiers import load_classifier
from attnshift.classifiers.classifier import Classifier
from attnshift.data.datasets import Item, read_folder
from attnshift.data.images import quantise, read_image, write_png
from attnshift.diffusion import load_pipeline
from attnshift.diffusion.backbone import Backbone
from attnshift.errors import ModelError, UserError
from attnshift.runs.spec import RunSpec, batches, items_digest
from attnshift.runs.store import Store

__all__ = ["Progress", "Settings", "attack_folder"]

Progress = Callable[[Item, dict[str, Any], int, int], None]
"""Called for every image that is done: the item, its row, how many are done, how many there are."""


@dataclass(frozen=True)
class Settings:
    """What the command line decides. ``size`` and ``batch`` of 0 mean: what the pipeline suggests."""

    images: Path
    labels: Path
    pipeline: str
    surrogates: tuple[str, ...]
    recipe: Recipe
    out: Path
    size: int = 0
    batch: int = 0
    limit: int = 0
    device: str = "cpu"
    threads: int = 0


def attack_folder(settings: Settings, progress: Progress) -> Store:
    """Run, or continue, the attack that ``settings`` describes. All input is checked before anything is written."""
    _check_options(settings)
    method = Method.of(settings.recipe)
    classifiers = [load_classifier(name).to(settings.device) for name in settings.surrogates]
    items = read_folder(settings.images, settings.labels, *_classes(classifiers), settings.limit)
    backbone: Backbone = load_pipeline(settings.pipeline).to(settings.device)
    size = settings.size or backbone.suggested_size
    torch.set_num_threads(settings.threads or _usual_threads(settings.device, size))
    _check(method, backbone, classifiers, items, size)
    spec = RunSpec(
        images=str(settings.images),
        labels=str(settings.labels),
        items=items_digest(items),
        pipeline=settings.pipeline,
        surrogates=settings.surrogates,
        size=size,
        # Eight images of 64 px at a time, and one from about 192 px on.
        batch=settings.batch or max(1, 8 * 64 * 64 // (size * size)),
        device=settings.device,
        threads=torch.get_num_threads(),
        recipe=settings.recipe,
    )
    store = Store.start(settings.out, spec)
    order = [item.identity for item in items]
    done = store.finished() & set(order)
    for batch in batches(items, spec.batch):
        if all(item.identity in done for item in batch):
            continue
        for item, row in _attack_batch(method, backbone, classifiers, batch, spec, store, done):
            done.add(item.identity)
            progress(item, row, len(done), len(items))
    store.compact(order)
    return store


def _check_options(settings: Settings) -> None:
    """Refuse numbers and devices that cannot be meant, before anything is loaded."""
    for name, lowest, highest in (("size", 8, 4096), ("batch", 1, 4096), ("threads", 1, 1024), ("limit", 1, 10**9)):
        value = getattr(settings, name)
        if value and not lowest <= value <= highest:
            raise UserError(f"--{name} is {value}; it must lie between {lowest} and {highest}")
    twice = sorted({name for name in settings.surrogates if settings.surrogates.count(name) > 1})
    if twice:
        raise UserError(f"--surrogate {twice[0]} is given twice and would count twice; give it once")
    try:
        torch.empty(0, device=settings.device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"--device {settings.device} cannot be used ({reason}); use cpu or cuda") from None


def _usual_threads(device: str, size: int) -> int:
    """One thread for small images: a second one saves them little, and on a busy machine the first waits for it."""
    return 1 if device == "cpu" and size <= 96 else torch.get_num_threads()


def _classes(classifiers: Sequence[Classifier]) -> tuple[tuple[str, ...], int]:
    counts = {classifier.name: classifier.classes for classifier in classifiers}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name} has {count}" for name, count in counts.items())
        raise ModelError(f"the surrogates do not have the same classes: {listed}")
    names = next((classifier.class_names for classifier in classifiers if classifier.class_names), ())
    return names, classifiers[0].classes


@torch.no_grad()
def _check(
    method: Method, backbone: Backbone, classifiers: Sequence[Classifier], items: Sequence[Item], size: int
) -> None:
    """Everything that could stop the run later: sizes, sites, names, images, and that each classifier answers."""
    backbone.check_size(size)
    method.objective.sites(backbone.sites(size), backbone.latent_side(size))
    diffusion = method.recipe.diffusion
    backbone.ladder(diffusion.schedule_steps, diffusion.denoising_steps)
    for name in {item.class_name for item in items}:
        backbone.locate(method.recipe.prompt.prompt(name), name)
    probe = torch.full((1, 3, size, size), 0.5, device=backbone.device)
    for classifier in classifiers:
        logits = classifier(probe)
        if logits.shape != (1, classifier.classes) or not bool(logits.isfinite().all()):
            raise ModelError(
                f"{classifier.name} gave {tuple(logits.shape)} for one image, not (1, {classifier.classes})"
            )
    for item in items:
        read_image(item.path, size)


def _attack_batch(
    method: Method,
    backbone: Backbone,
    classifiers: Sequence[Classifier],
    batch: Sequence[Item],
    spec: RunSpec,
    store: Store,
    done: set[str],
) -> list[tuple[Item, dict[str, Any]]]:
    """Attack a whole micro-batch, also where some of it is finished (its mates decide nothing but the last bits)."""
    begun = time.monotonic()
    tasks = [Task(item.identity, read_image(item.path, spec.size), item.label, item.class_name) for item in batch]
    problem = pose(method, backbone, classifiers, tasks)
    outcome = finish(problem)
    seconds = (time.monotonic() - begun) / len(batch)
    finished = []
    verdicts = {arm: _margins(problem, images) for arm, images in _arms(problem, outcome).items()}
    for place, item in enumerate(batch):
        if item.identity in done:
            continue
        for arm, images in _arms(problem, outcome).items():
            write_png(store.image_path(item.identity, arm), images[place], _provenance(item, arm, spec))
        row = _row(item, spec, outcome, place, seconds) | {
            f"{arm}_margins": [float(value) for value in margins[:, place]] for arm, margins in verdicts.items()
        }
        store.finish(item.identity, row)
        finished.append((item, row))
    return finished


def _arms(problem: Problem, outcome: Outcome) -> dict[str, Tensor]:
    arms = {
        "clean": problem.images,
        "round_trip": problem.round_trip,
        "reconstruction": problem.clean.images,
        "attack": outcome.images,
    }
    return {arm: quantise(images) for arm, images in arms.items()}


def _margins(problem: Problem, images: Tensor) -> Tensor:
    return problem.surrogates.judge(images)[1]


def _provenance(item: Item, arm: str, spec: RunSpec) -> dict[str, str]:
    chunks = {"Software": f"attnshift {__version__}", "attnshift:arm": arm, "attnshift:run": spec.digest}
    if arm == "attack":
        chunks["Description"] = (
            "Adversarial image: edited to be misclassified. Not a photograph of what it seems to show."
        )
        chunks["attnshift:adversarial"] = "true"
    chunks["attnshift:source"] = item.file
    chunks["attnshift:label"] = f"{item.label} {item.class_name}"
    return chunks


def _row(item: Item, spec: RunSpec, outcome: Outcome, place: int, seconds: float) -> dict[str, Any]:
    history = outcome.history[place]
    return {
        "id": item.identity,
        "file": item.file,
        "label": item.label,
        "class_name": item.class_name,
        "run": spec.digest,
        "surrogates": list(spec.surrogates),
        "iteration": int(outcome.iterations[place]),
        "evaluated": int(outcome.evaluated[place]),
        "seconds": seconds,
        "losses": [
            {"name": name, "values": [each[name] for each in history]} for name in (history[0] if history else {})
        ],
        "attention_clean": outcome.looked[place].flatten().tolist(),
        "attention_attack": outcome.looks[place].flatten().tolist(),
        "attention_side": outcome.looked[place].shape[-1],
    }
