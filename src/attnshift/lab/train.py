"""Training of the lab: render images, train the pipeline, train the classifiers."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import torch

from attnshift.errors import UserError
from attnshift.lab.classifiers import RECIPES, train_classifier
from attnshift.lab.denoiser import train_pipeline
from attnshift.lab.splits import rendered
from attnshift.lab.training import Report

__all__ = ["TRAINING_IMAGES", "stages", "train_lab"]

TRAINING_IMAGES = 12_000


def stages() -> tuple[str, ...]:
    """Names of the networks that can be trained separately."""
    return ("pipeline", *RECIPES)


def train_lab(out: Path, work: Path, seed: int, only: Collection[str], threads: int, report: Report) -> None:
    """Train the networks in ``only`` (all, if empty) and save them to ``out``.

    Finished networks in ``out`` are kept. ``work`` holds renders and checkpoints, so the same call
    continues an interrupted training. Raises ``UserError`` for an unknown name in ``only``.
    """
    unknown = sorted(set(only) - set(stages()))
    if unknown:
        raise UserError(f"no such stage: {', '.join(unknown)}; the stages are {', '.join(stages())}")
    torch.set_num_threads(threads)
    work.mkdir(parents=True, exist_ok=True)
    split = rendered(
        seed, "train", TRAINING_IMAGES, work, threads, lambda done, count: report(f"rendered {done}/{count}")
    )
    for name in only or stages():
        folder = out / "pipeline" if name == "pipeline" else out / "classifiers" / name
        if (folder / "model_index.json").exists() or (folder / "config.json").exists():
            report(f"{name}: finished before, in {folder}")
        elif name == "pipeline":
            train_pipeline(split, seed, work, folder, report)
        else:
            train_classifier(name, split, seed, work, folder, report)
