"""Naturalness of the images of a run, one by one:
the metrics that can be taken, and why others cannot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from attnshift.errors import UnavailableError
from attnshift.metrics import METRICS
from attnshift.metrics.metrics import Metric
from attnshift.registry import look_up
from attnshift.results.rows import QualityRow
from attnshift.sizes import Sides, Size

__all__ = ["measurable", "measure_quality"]


def measurable(size: Sides) -> tuple[dict[str, Metric], dict[str, str]]:
    """The metrics that can be taken of images of ``size`` and more here,
    and for the others the reason, each by name."""
    metrics: dict[str, Metric] = {}
    reasons: dict[str, str] = {}
    image = torch.full((1, 3, *Size.of(size)), 0.5)
    for name in METRICS:
        try:
            metric: Metric = look_up(METRICS, name)
            metric(image, image)
        except UnavailableError as error:
            reasons[name] = str(error)
        else:
            metrics[name] = metric
    return metrics, reasons


def measure_quality(metrics: Mapping[str, Metric], arms: Mapping[str, Tensor], ids: Sequence[str]) -> list[QualityRow]:
    """One row for each arm and image: the distances of ``arms`` to their clean images,
    all [batch,3,height,width]."""
    quality = []
    for arm in (arm for arm in arms if arm != "clean"):
        values = {name: metric(arms["clean"], arms[arm]).tolist() for name, metric in metrics.items()}
        quality += [
            QualityRow(id, arm, {name: values[name][place] for name in metrics}) for place, id in enumerate(ids)
        ]
    return quality
