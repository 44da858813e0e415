"""Everything that an inspection loads, and the measurement of one micro-batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from attnshift.attack.loop import optimise_latents
from attnshift.attack.method import Method
from attnshift.attack.prepare import PreparedBatch, Task, prepare_batch
from attnshift.classifiers.classifier import Classifier, in_order_of, vocabulary
from attnshift.classifiers.gradcam import grad_cam
from attnshift.data.datasets import Item
from attnshift.defences.names import load_defended
from attnshift.errors import ModelError, RecipeError, UserError
from attnshift.execution.prepare import PreparedRun, prepare_run
from attnshift.execution.settings import settings_with
from attnshift.execution.work.latents import LatentWork
from attnshift.execution.worker import Worker
from attnshift.recipes.schema import PathSection
from attnshift.results.inspection import InspectedImage, InspectionSpec
from attnshift.studies.inspection.gradients import Prompts, align_with
from attnshift.studies.inspection.maps import map_figures
from attnshift.studies.inspection.probes import Probes, find_probes
from attnshift.studies.inspection.rows import alignment_row, map_row, picture_rows
from attnshift.studies.inspection.settings import InspectionSettings, path_points

__all__ = ["InspectionBench", "measure_batch", "prompts_of", "set_up_inspection"]


@dataclass(frozen=True)
class InspectionBench:
    """All that the images share, loaded once. ``path`` is the attack that is followed, ``reading``
    the same with every probe as a term, so that whatever a probe reads is prepared."""

    attack: PreparedRun
    path: Method
    reading: Method
    tuning: list[Classifier]
    reference: Classifier | None
    probes: Probes
    points: tuple[int, ...]
    spec: InspectionSpec


def set_up_inspection(settings: InspectionSettings) -> InspectionBench:
    """Load everything, and check whatever could stop the inspection later."""
    attack = prepare_run(settings_with(settings, settings.recipe, settings.out))
    worker = attack.worker
    backbone, classifiers, size = worker.backbone, worker.classifiers, worker.spec.common_size
    if size is None or size.rows != size.columns:
        raise UserError(f"`size` is {worker.spec.size}; an inspection takes square images, so give one side in pixels")
    tuning = [_like(worker, name) for name in settings.tuning]
    reference = _like(worker, settings.reference) if settings.reference else None
    if reference is not None:
        probe = torch.full((1, 3, *size), 0.5, device=backbone.device)
        grad_cam(reference, probe, torch.zeros(1, dtype=torch.long, device=backbone.device))
    if settings.recipe.path != PathSection():
        raise RecipeError(f"recipe {settings.recipe.name} has a section path, and an inspection follows the plain path")
    probes = find_probes(settings.recipe, backbone, size, settings.terms, settings.heads)
    path = Method.of(settings.recipe)
    reading = replace(path, objective=probes.objective())
    LatentWork(reading).check(backbone, classifiers, attack.plan.examples, size)
    known = [*tuning, *([reference] if reference else [])]
    spec = InspectionSpec(
        run=worker.spec,
        tuning=settings.tuning,
        reference=settings.reference,
        weights={each.name: each.fingerprint() for each in known},
        points=path_points(settings),
        terms=probes.names,
        heads=settings.heads,
    )
    return InspectionBench(attack, path, reading, tuning, reference, probes, spec.points, spec)


def measure_batch(
    bench: InspectionBench, items: Sequence[Item], tasks: Sequence[Task], pictures: bool = False
) -> list[InspectedImage]:
    """Rows of each of ``tasks``; with ``pictures`` also the maps that the page shows."""
    worker = bench.attack.worker
    path = _path(prepare_batch(bench.path, worker.backbone, worker.classifiers, tasks), bench.points)
    batch = _reading_maps(prepare_batch(bench.reading, worker.backbone, worker.classifiers, tasks), bench.probes)
    prompts, objects = prompts_of(batch, tasks), _objects(bench, batch, tasks)
    measured = [InspectedImage((), ()) for _ in tasks]
    tokens = batch.observe.tokens
    for iteration, latents, added in path:
        found, branch = align_with(bench.tuning, batch, bench.probes.terms, latents, iteration, prompts, added)
        for image, item in enumerate(items):
            shown = None if objects is None else objects[image]
            figures = [*map_figures(branch, bench.probes.maps, tokens[image], image, shown)]
            measured[image] += InspectedImage(
                tuple(alignment_row(item, iteration, each, image) for each in found),
                tuple(map_row(item, iteration, each) for each in figures),
                tuple(picture_rows(item, iteration, branch.images[image], shown, figures)) if pictures else (),
            )
    return measured


def _reading_maps(batch: PreparedBatch, probes: Probes) -> PreparedBatch:
    """``batch`` that also reads the class word's maps."""
    read = (*batch.observe.sites, *(site for probe in probes.maps for site in probe.sites))
    return replace(batch, observe=replace(batch.observe, sites=tuple(dict.fromkeys(read))))


def _like(worker: Worker, name: str) -> Classifier:
    """The classifier ``name`` with logits in the surrogates' order of classes."""
    classifiers = worker.classifiers
    own = load_defended(name, lambda: worker.backbone).to(worker.spec.device)
    classifier, classes = in_order_of(vocabulary(classifiers), own), classifiers[0].classes
    if classifier.classes != classes:
        raise ModelError(f"{own.name} has {own.classes} classes, the surrogates have {classes}")
    return classifier


def _path(batch: PreparedBatch, points: Sequence[int]) -> Iterator[tuple[int, Tensor, Tensor | None]]:
    """The latents of the attack after each of ``points`` updates, and the pixels added to them."""
    for snapshot in optimise_latents(batch):
        if snapshot.iteration in points:
            yield snapshot.iteration, snapshot.latents, snapshot.state.added
        if snapshot.iteration == max(points):
            return


def prompts_of(batch: PreparedBatch, tasks: Sequence[Task]) -> Prompts | None:
    """Text states of the prompts that directions go to; None where no term reads an interference
    phrase."""
    interference, other = batch.observe.interference, batch.render.trajectory.interference
    if interference is None or other is None:
        return None
    template, backbone = batch.method.recipe.prompt, batch.render.backbone
    both = [
        template.interference_prompt(f"{phrase} and {task.class_name}", task.caption).text
        for phrase, task in zip(interference.phrases, tasks, strict=True)
    ]
    with torch.no_grad():
        return Prompts(other.text, backbone.embed(both), backbone.embed([""] * len(tasks)))


def _objects(bench: InspectionBench, batch: PreparedBatch, tasks: Sequence[Task]) -> Tensor | None:
    """Maps of the objects, [batch,1,height,width] in [0,1]: the given masks, or the reference's
    Grad-CAM; None without either."""
    given = [task.mask for task in tasks if task.mask is not None]
    if len(given) == len(tasks):
        return torch.stack(given).to(batch.images)
    return None if bench.reference is None else grad_cam(bench.reference, batch.images, batch.surrogates.goals.labels)
