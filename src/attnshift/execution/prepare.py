"""Preparation of a run: load everything, fix the plan,
and refuse what could stop it later. Nothing is written."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

import torch

from attnshift.diffusion import as_precision
from attnshift.errors import RunError, UserError
from attnshift.execution.checks import Complaints, Loaders, Measured, load_parts, measure_parts
from attnshift.execution.settings import AttackSettings
from attnshift.execution.work import work_of
from attnshift.execution.worker import Worker, inversions_in, weights
from attnshift.recipes.schema import BaselineRecipe, Recipe
from attnshift.results.plan import Plan
from attnshift.results.software import software
from attnshift.results.spec import RunSpec
from attnshift.results.store import Store
from attnshift.sizes import KEEP

__all__ = ["PreparedRun", "prepare_run"]


@dataclass(frozen=True)
class PreparedRun:
    """An attack that can start: who carries it out, and on what."""

    worker: Worker
    plan: Plan
    notes: tuple[str, ...] = ()
    """Lines to be said before the attack: what is unusual and does not stop it."""

    @property
    def remarks(self) -> tuple[str, ...]:
        """``notes``, and one line for each setting of the recipe that cannot act."""
        return (*self.notes, *self.worker.work.remarks(self.worker.backbone, self.worker.classifiers))

    def check(self) -> None:
        """Raise whatever could stop the run later: sizes, sites, names,
        and what a recipe asks of them."""
        worker = self.worker
        for size in self.plan.extremes(worker.spec.common_size):
            worker.work.check(worker.backbone, worker.classifiers, self.plan.examples, size)

    def as_part_of(self, folder: Path) -> PreparedRun:
        """The same under the name of the run that ``folder`` holds,
        which may have begun with other images."""
        store = Store(folder)
        if not store.holds(self.worker.spec):
            return self
        spec = self.worker.spec.model_copy(update={"items": store.spec().items})
        return replace(self, worker=replace(self.worker, spec=spec))

    def with_recipe(self, recipe: Recipe | BaselineRecipe) -> PreparedRun:
        """Return the same run for another recipe, not checked yet."""
        spec = self.worker.spec
        versions = software(recipe, spec.pipeline, spec.surrogates)
        work, before = work_of(recipe), self.worker.work.weights
        kept = {name: each for name, each in spec.weights.items() if name not in before}
        spec = spec.model_copy(update={"recipe": recipe, "software": versions, "weights": {**kept, **work.weights}})
        return replace(self, worker=replace(self.worker, work=work, spec=spec))


def prepare_run(settings: AttackSettings, here: str = "", loaders: Loaders | None = None) -> PreparedRun:
    """Load what ``settings`` name and check that the attack can be carried out;
    sets the number of CPU threads.

    ``here`` is the device for the check, where it is another one. Networks come from
    ``loaders``, by default from their files. What was measured when the run in the folder began is
    not measured again.
    """
    complaints = Complaints(_refuse)
    parts = load_parts(settings, complaints, here, loaders=loaders)
    work, backbone, plan, size = parts.work, parts.backbone, parts.plan, parts.framing.size
    # Whatever is missing has been refused.
    assert work is not None
    assert backbone is not None
    assert plan is not None
    spec = RunSpec(
        images=str(settings.images),
        labels=None if settings.labels is None else str(settings.labels),
        items=plan.digest,
        pipeline=settings.pipeline,
        surrogates=settings.surrogates,
        weights={**weights(backbone, parts.classifiers), **work.weights},
        size=KEEP if size is None else size.plain,
        # Eight images of 64 px at a time, and one from about 192 px on. Whole images may be large.
        batch=settings.batch or (1 if size is None else max(1, 8 * 64 * 64 // size.area)),
        device=settings.device,
        precision=as_precision(settings.precision),
        threads=torch.get_num_threads(),
        software=software(settings.recipe, settings.pipeline, settings.surrogates),
        recipe=settings.recipe,
    )
    measured = Measured() if _measured_before(settings.out, spec) else measure_parts(parts, settings, complaints)
    spec = spec.model_copy(update={"admitted": measured.admitted})
    worker = Worker(work, backbone, parts.classifiers, spec, inversions_in(settings.cache, spec))
    return PreparedRun(worker, plan.in_equal_sizes(spec.batch), (*measured.notes, *parts.notes))


def _refuse(error: UserError) -> NoReturn:
    raise error


def _measured_before(out: Path, spec: RunSpec) -> bool:
    """True if ``out`` holds a run on the same items with the same networks,
    which were measured when it began."""
    try:
        before = Store(out).spec()
    except (RunError, OSError):
        return False
    return (before.items, before.weights, before.size) == (spec.items, spec.weights, spec.size)
