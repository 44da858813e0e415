"""Training of the lab: render images, train the pipelines, train the classifiers."""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache
from pathlib import Path

import torch

from attnshift.errors import UserError
from attnshift.lab.classifiers import RECIPES, train_classifier
from attnshift.lab.denoiser import train_pipeline
from attnshift.lab.flow_denoiser import FLOW_IMAGES, check_autoencoder, train_flow
from attnshift.lab.splits import Split, rendered
from attnshift.lab.training import Report

__all__ = ["TRAINING_IMAGES", "stages", "train_lab"]

TRAINING_IMAGES = 12_000
_PIPELINES = ("pipeline", "flow")
"""Stages whose folders have their own names."""


def stages() -> tuple[str, ...]:
    """Names of the networks that can be trained separately."""
    return ("pipeline", *RECIPES, "flow")


def train_lab(out: Path, work: Path, seed: int, only: Collection[str], threads: int, report: Report) -> None:
    """Train the networks in ``only`` (all, if empty) and save them to ``out``.

    Finished networks in ``out`` are kept. ``work`` holds renders and checkpoints, so the same call
    continues an interrupted training. Raises ``UserError`` for an unknown name in ``only``, and for
    "flow" where ``out`` has no pipeline yet.
    """
    unknown = sorted(set(only) - set(stages()))
    if unknown:
        raise UserError(f"no such stage: {', '.join(unknown)}; the stages are {', '.join(stages())}")
    torch.set_num_threads(threads)
    work.mkdir(parents=True, exist_ok=True)
    for name in only or stages():
        folder = out / name if name in _PIPELINES else out / "classifiers" / name
        if (folder / "model_index.json").exists() or (folder / "config.json").exists():
            report(f"{name}: finished before, in {folder}")
            continue
        if name == "flow":
            check_autoencoder(out / "pipeline" / "vae")
        split = _split(seed, FLOW_IMAGES if name == "flow" else TRAINING_IMAGES, work, threads, report)
        if name == "pipeline":
            train_pipeline(split, seed, work, folder, report)
        elif name == "flow":
            train_flow(split, seed, work, out / "pipeline" / "vae", folder, report)
        else:
            train_classifier(name, split, seed, work, folder, report)


@lru_cache(maxsize=1)
def _split(seed: int, images: int, work: Path, threads: int, report: Report) -> Split:
    """The training images; those of the stage before are still there."""
    return rendered(seed, "train", images, work, threads, lambda done, count: report(f"rendered {done}/{count}"))
