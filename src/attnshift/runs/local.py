"""The engine for one process: prepare, then attack batch by batch, each image stored when it is done."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from attnshift import __version__
from attnshift.attack.finish import Outcome, finish
from attnshift.attack.problem import Problem, pose
from attnshift.data.datasets import Item
from attnshift.data.images import quantise, write_png
from attnshift.ensemble.fusion import effective_models
from attnshift.runs.preparation import Prepared, Settings, prepare, read_task
from attnshift.runs.spec import RunSpec, batches
from attnshift.runs.store import Store

__all__ = ["Progress", "Settings", "attack_folder", "attack_prepared"]

Progress = Callable[[Item, dict[str, Any], int, int], None]
"""Called for every image that is done: the item, its row, how many are done, how many there are."""


def attack_folder(settings: Settings, progress: Progress) -> Store:
    """Run, or continue, the attack that ``settings`` describes. All input is checked before anything is written."""
    return attack_prepared(prepare(settings), settings.out, progress)


def attack_prepared(prepared: Prepared, out: Path, progress: Progress) -> Store:
    """Run, or continue, an attack whose input is loaded and checked, in the run folder ``out``."""
    items, spec = prepared.items, prepared.spec
    store = Store.start(out, spec)
    order = [item.identity for item in items]
    done = store.finished() & set(order)
    for batch in batches(items, spec.batch):
        if all(item.identity in done for item in batch):
            continue
        for item, row in _attack_batch(prepared, batch, store, done):
            done.add(item.identity)
            progress(item, row, len(done), len(items))
    store.compact(order)
    return store


def _attack_batch(
    prepared: Prepared, batch: Sequence[Item], store: Store, done: set[str]
) -> list[tuple[Item, dict[str, Any]]]:
    """Attack a whole micro-batch, also where some of it is finished (its mates decide nothing but the last bits)."""
    begun = time.monotonic()
    spec = prepared.spec
    tasks = [read_task(item, spec.size) for item in batch]
    problem = pose(prepared.method, prepared.backbone, prepared.classifiers, tasks)
    outcome = finish(problem)
    seconds = (time.monotonic() - begun) / len(batch)
    finished = []
    arms = _arms(problem, outcome)
    verdicts = {arm: _margins(problem, images) for arm, images in arms.items()}
    for place, item in enumerate(batch):
        if item.identity in done:
            continue
        for arm, images in arms.items():
            write_png(store.image_path(item.identity, arm), images[place], _provenance(item, arm, spec))
        phrase = problem.interference.phrases[place] if problem.interference else ""
        row = _row(item, spec, outcome, place, seconds) | {
            "interference": phrase,
            **{f"{arm}_margins": [float(value) for value in margins[:, place]] for arm, margins in verdicts.items()},
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
        if item.target is not None:
            chunks["attnshift:target"] = f"{item.target} {item.target_name}"
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
        "target": item.target,
        "target_name": item.target_name,
        "run": spec.digest,
        "surrogates": list(spec.surrogates),
        "iteration": int(outcome.iterations[place]),
        "evaluated": int(outcome.evaluated[place]),
        "seconds": seconds,
        "losses": [
            {"name": name, "values": [each[name] for each in history]} for name in (history[0] if history else {})
        ],
        "shares": [
            {"name": name, "values": list(values)}
            for name, values in zip(spec.surrogates, zip(*outcome.weights[place], strict=True), strict=True)
        ],
        "effective_models": effective_models(outcome.weights[place]),
        "attention_clean": outcome.looked[place].flatten().tolist(),
        "attention_attack": outcome.looks[place].flatten().tolist(),
        "attention_side": outcome.looked[place].shape[-1],
    }
