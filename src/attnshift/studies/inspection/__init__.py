"""Inspection of an attack: which terms, sites, heads and denoising steps point where unseen
classifiers are weak, and where the class word looks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from attnshift.execution.worker import read_task
from attnshift.results.inspection import AlignmentRow, InspectedImage, InspectionStore, MapRow, PictureRow
from attnshift.studies.inspection.bench import measure_batch, set_up_inspection
from attnshift.studies.inspection.settings import InspectionSettings, check_inspection

__all__ = ["Inspected", "InspectionProgress", "InspectionSettings", "inspect_attack"]

InspectionProgress = Callable[[int, int], None]
"""Called when images are finished: how many are, and of how many."""

_PICTURES = 6
"""Images whose maps the page shows."""


@dataclass(frozen=True)
class Inspected:
    """A finished inspection. ``remarks`` are lines about what is unusual or left out."""

    store: InspectionStore
    remarks: tuple[str, ...]


def inspect_attack(settings: InspectionSettings, progress: InspectionProgress) -> Inspected:
    """Measure what ``settings`` ask for, or go on measuring, and write the tables.

    All input is checked before anything is written. An image is stored when its micro-batch is
    finished; the same settings go on with the others. An image's rows depend on its batch mates by
    rounding alone.
    """
    check_inspection(settings)
    bench = set_up_inspection(settings)
    store, worker = InspectionStore(settings.out), bench.attack.worker
    store.open(bench.spec)
    rows: list[InspectedImage] = []
    total, begun = len(bench.attack.plan), 0
    for part in bench.attack.plan.batches(worker.spec.batch):
        items = [*part.items]
        measured = [each for item in items if (each := store.measured(item.id)) is not None]
        if len(measured) < len(items):
            tasks = [read_task(item, worker.spec.common_size) for item in items]
            measured = measure_batch(bench, items, tasks, begun < _PICTURES)
            for item, each in zip(items, measured, strict=True):
                store.keep(item.id, each)
        rows += measured
        begun += len(items)
        progress(begun, total)
    store.write_table(AlignmentRow, [row for each in rows for row in each.alignment])
    store.write_table(MapRow, [row for each in rows for row in each.maps])
    store.write_table(PictureRow, [row for each in rows for row in each.pictures])
    return Inspected(store, (*bench.attack.notes, *bench.probes.remarks))
