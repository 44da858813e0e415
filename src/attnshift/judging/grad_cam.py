"""Which pixels speak for the true class to a classifier, before and after the attack."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from attnshift.classifiers import load_classifier
from attnshift.classifiers.classifier import Classifier
from attnshift.classifiers.gradcam import grad_cam
from attnshift.defences.names import load_defended
from attnshift.diffusion import load_pipeline
from attnshift.judging.saved import by_size, parts_of_one_size, read_arm
from attnshift.judging.verdicts import in_run_order
from attnshift.results.rows import GradCamRow
from attnshift.results.store import Store
from attnshift.sizes import size_of

__all__ = ["measure_grad_cam"]

_SIDE = 32
"""Most rows and columns of a map that is kept."""


def measure_grad_cam(store: Store, classifier: str | Classifier, batch: int = 32) -> list[GradCamRow]:
    """Rows of the table ``grad_cam``: the maps of ``classifier`` for the true class of each clean
    and each attacked image. Nothing is written.

    Images whose class the classifier does not have are left out. A ``ModelError`` where its
    features are no map, a ``RunError`` where it can judge no image of the run.
    """
    spec, rows = store.spec(), by_size(store)
    surrogates = [load_defended(name, lambda: load_pipeline(spec.pipeline)) for name in spec.surrogates]
    loaded = load_classifier(classifier) if isinstance(classifier, str) else classifier
    ordered = in_run_order(loaded, surrogates, [(row.label, row.target) for row in rows])
    known = [row for row in rows if ordered.knows(row.label)]
    found = []
    for part in parts_of_one_size(store, known, batch):
        ids, labels = [row.id for row in part], torch.tensor([row.label for row in part])
        for arm in ("clean", "attack"):
            maps = grad_cam(ordered, read_arm(store, ids, arm), labels)
            found += [GradCamRow(id, arm, ordered.name, *_kept(each)) for id, each in zip(ids, maps, strict=True)]
    return found


def _kept(values: Tensor) -> tuple[int, tuple[float, ...]]:
    """Rows, and values row by row, of a map [1,height,width]."""
    size = size_of(values).within(_SIDE)
    return size.rows, tuple(adaptive_avg_pool2d(values, size).flatten().tolist())
