"""The engine for one process: prepare, then attack batch by batch, each image stored when it is done."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from attnshift import __version__
from attnshift.attack.profile import part
from attnshift.data.datasets import Item
from attnshift.data.images import write_png
from attnshift.runs.preparation import Prepared, Settings, prepare, read_task
from attnshift.runs.spec import RunSpec, batches
from attnshift.runs.store import Store

__all__ = ["Progress", "Settings", "attack_folder", "attack_prepared"]

Progress = Callable[[Item, dict[str, Any], int, int], None]
"""Called for every image that is done: the item, its row, how many are done, how many there are."""


def attack_folder(settings: Settings, progress: Progress) -> Store:
    """Run, or continue, the attack that ``settings`` describes. All input is checked before anything is written."""
    with part("loading"):
        prepared = prepare(settings)
    return attack_prepared(prepared, settings.out, progress)


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
    prepared: Prepared, batch: Sequence[Item], store: Store, finished: set[str]
) -> list[tuple[Item, dict[str, Any]]]:
    """Attack a whole micro-batch, also where some of it is finished (its mates decide nothing but the last bits)."""
    begun = time.monotonic()
    spec = prepared.spec
    tasks = [read_task(item, spec.size) for item in batch]
    with part("controls"):
        done = prepared.work.carry_out(prepared.backbone, prepared.classifiers, tasks)
    seconds = (time.monotonic() - begun) / len(batch)
    rows = []
    for place, item in enumerate(batch):
        if item.identity in finished:
            continue
        for arm, images in done.arms.items():
            write_png(store.image_path(item.identity, arm), images[place], _provenance(item, arm, spec))
        row = {**_row(item, spec), "seconds": seconds, **done.rows[place]}
        row |= {f"{arm}_margins": [float(each) for each in margins[:, place]] for arm, margins in done.margins.items()}
        store.finish(item.identity, row)
        rows.append((item, row))
    return rows


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


def _row(item: Item, spec: RunSpec) -> dict[str, Any]:
    return {
        "id": item.identity,
        "file": item.file,
        "label": item.label,
        "class_name": item.class_name,
        "target": item.target,
        "target_name": item.target_name,
        "run": spec.digest,
        "surrogates": list(spec.surrogates),
    }
