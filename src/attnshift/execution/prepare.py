"""Preparation of a run: load everything, fix the plan, and refuse what could stop it later. Nothing is written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch

from attnshift.attack.inputs import check_device
from attnshift.classifiers.classifier import Classifier, common_classes, vocabulary
from attnshift.data.datasets import Item, read_items
from attnshift.data.images import uncropped_size
from attnshift.data.references import Reference
from attnshift.diffusion import as_precision
from attnshift.errors import RunError, UserError
from attnshift.execution.agreement import is_random, measure_agreement, sampled
from attnshift.execution.early import check_numbers, check_surrogates
from attnshift.execution.pipeline_check import check_pipeline, measure_on
from attnshift.execution.work import work_of
from attnshift.execution.worker import Worker, inversions_in, load_networks, weights
from attnshift.recipes.schema import BaselineRecipe, Recipe
from attnshift.results.plan import Plan
from attnshift.results.software import software
from attnshift.results.spec import RunSpec
from attnshift.results.store import Store
from attnshift.terminal import plural

__all__ = [
    "AttackSettings",
    "Inputs",
    "PreparedRun",
    "Shapes",
    "check_settings",
    "items_of",
    "labels_of",
    "prepare_run",
    "settings_with",
    "usual_threads",
    "wants_masks",
]


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Input of every attack. ``size`` and ``batch`` of 0 stand for what the pipeline suggests.

    ``target`` is the class that every image shall be seen as, by number or name. Strings become paths, and a list of
    surrogates a tuple.
    """

    images: str | Path
    labels: Path | None = None
    pipeline: str = "lab"
    surrogates: tuple[str, ...] = ()
    size: int = 0
    batch: int = 0
    limit: int = 0
    device: str = "cpu"
    threads: int = 0
    masks: Path | None = None
    target: str | None = None
    precision: str = "float32"
    accept_labels: bool = False
    """Attack although names or the surrogates' answers to the clean images speak against the labels."""
    cache: Path | None = None
    """Folder that keeps inversions for other runs on the same images; None keeps none."""

    def __post_init__(self) -> None:
        if isinstance(self.surrogates, str):
            raise UserError(f"`surrogates` is the text '{self.surrogates}'; give a list, such as ['timm:resnet50']")
        object.__setattr__(self, "surrogates", tuple(self.surrogates))
        for name in ("labels", "masks", "cache", "out"):
            if isinstance(given := getattr(self, name, None), str):
                object.__setattr__(self, name, Path(given))


@dataclass(frozen=True, kw_only=True)
class AttackSettings(Inputs):
    """A single attack: its recipe, and the run folder."""

    recipe: Recipe | BaselineRecipe
    out: Path


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
        return (*self.notes, *self.worker.work.remarks)

    def check(self) -> None:
        """Raise whatever could stop the run later: sizes, sites, names, and what a recipe asks of them."""
        worker = self.worker
        worker.work.check(worker.backbone, worker.classifiers, self.plan.examples, worker.spec.size)

    def as_part_of(self, folder: Path) -> PreparedRun:
        """The same under the name of the run that ``folder`` holds, which may have begun with other images."""
        store = Store(folder)
        if not store.holds(self.worker.spec):
            return self
        spec = self.worker.spec.model_copy(update={"items": store.spec().items})
        return replace(self, worker=replace(self.worker, spec=spec))

    def with_recipe(self, recipe: Recipe | BaselineRecipe) -> PreparedRun:
        """Return the same run for another recipe, not checked yet."""
        spec = self.worker.spec
        versions = software(recipe, spec.pipeline, spec.surrogates)
        spec = spec.model_copy(update={"recipe": recipe, "software": versions})
        return replace(self, worker=replace(self.worker, work=work_of(recipe), spec=spec))


def settings_with(inputs: Inputs, recipe: Recipe | BaselineRecipe, out: Path) -> AttackSettings:
    """Return the settings of a single attack on ``inputs``."""
    return AttackSettings(**{each.name: getattr(inputs, each.name) for each in fields(Inputs)}, recipe=recipe, out=out)


def prepare_run(settings: AttackSettings, here: str = "") -> PreparedRun:
    """Load what ``settings`` name and check that the attack can be carried out; sets the number of CPU threads.

    The images themselves are hashed and not decoded. ``here`` is the device for the check, where it is another one.
    """
    here = here or settings.device
    check_settings(settings, here)
    work, precision = work_of(settings.recipe), as_precision(settings.precision)
    backbone, classifiers = load_networks(settings.pipeline, settings.surrogates, precision, here)
    shapes = Shapes()
    plan = Plan.draw(shapes.counted(items_of(settings, classifiers, examine=shapes.examine)))
    size = settings.size or backbone.suggested_size
    torch.set_num_threads(settings.threads or usual_threads(settings.device, size))
    spec = RunSpec(
        images=str(settings.images),
        labels=None if settings.labels is None else str(settings.labels),
        items=plan.digest,
        pipeline=settings.pipeline,
        surrogates=settings.surrogates,
        weights=weights(backbone, classifiers),
        size=size,
        # Eight images of 64 px at a time, and one from about 192 px on.
        batch=settings.batch or max(1, 8 * 64 * 64 // (size * size)),
        device=settings.device,
        precision=precision,
        threads=torch.get_num_threads(),
        software=software(settings.recipe, settings.pipeline, settings.surrogates),
        recipe=settings.recipe,
    )
    notes = tuple(filter(None, [shapes.line]))
    prepared = PreparedRun(Worker(work, backbone, classifiers, spec, inversions_in(settings.cache, spec)), plan, notes)
    prepared.check()
    if _checked_before(settings.out, spec):
        return prepared
    if not settings.accept_labels:
        sample = sampled(plan, len(plan))
        complaint = measure_agreement(classifiers, sample, size, here).complaint(labels_of(settings))
        if complaint:
            raise complaint
    return replace(prepared, notes=(*check_pipeline(measure_on(backbone, plan, size, settings.recipe)), *notes))


class Shapes:
    """A count of the images that are not square, while items are read."""

    def __init__(self) -> None:
        self._uneven: set[Reference] = set()
        self.total = self.cropped = 0

    def examine(self, reference: Reference, content: bytes) -> None:
        """Look at the head of an encoded image or mask."""
        if uncropped_size(content) is not None:
            self._uneven.add(reference)

    def counted(self, items: Iterable[Item]) -> Iterator[Item]:
        """``items``, whose images have been examined."""
        for item in items:
            self.total += 1
            self.cropped += item.image in self._uneven
            self._uneven.clear()
            yield item

    @property
    def line(self) -> str:
        """What is said of them; nothing where all are square."""
        if not self.cropped:
            return ""
        verb = "is" if self.cropped == 1 else "are"
        return f"{plural(self.cropped, 'image')} of {self.total} {verb} not square; the centre is cropped and attacked"


def items_of(
    settings: AttackSettings,
    classifiers: Sequence[Classifier],
    problems: Callable[[UserError], None] | None = None,
    examine: Callable[[Reference, bytes], None] | None = None,
) -> Iterator[Item]:
    """Yield the items that ``settings`` name, in the surrogates' classes; the rest as in ``read_items``."""
    classes = common_classes(classifiers)
    return read_items(
        settings.images,
        settings.labels,
        vocabulary(classifiers),
        classes,
        settings.limit,
        settings.masks,
        settings.target,
        problems,
        examine,
        () if settings.accept_labels else vocabulary([each for each in classifiers if not is_random(each.name)]),
    )


def labels_of(settings: Inputs) -> str:
    """Source of the labels, for messages."""
    return str(settings.labels or settings.images)


def _checked_before(out: Path, spec: RunSpec) -> bool:
    """True if ``out`` holds a run on the same items with the same networks, which were checked when it began."""
    try:
        before = Store(out).spec()
    except (RunError, OSError):
        return False
    return (before.items, before.weights, before.size) == (spec.items, spec.weights, spec.size)


def wants_masks(recipe: Recipe | BaselineRecipe) -> bool:
    return isinstance(recipe, Recipe) and recipe.mask.source == "given"


def check_settings(settings: AttackSettings, here: str = "") -> None:
    """Refuse impossible numbers, devices and masks, before anything is loaded."""
    if isinstance(settings.recipe, str):
        raise UserError(f"`recipe` is the text '{settings.recipe}'; give load_recipe('{settings.recipe}')")
    _check_options(settings, here or settings.device)
    _check_masks(settings.recipe, settings.masks)


def _check_options(settings: AttackSettings, here: str) -> None:
    check_numbers(vars(settings))
    check_surrogates(settings.surrogates)
    check_device(here)


def _check_masks(recipe: Recipe | BaselineRecipe, masks: Path | None) -> None:
    wanted = wants_masks(recipe)
    if wanted and masks is None:
        raise UserError("the recipe's mask.source is 'given' but no masks are; set `masks` to their folder")
    if masks is not None and not wanted:
        raise UserError(f"`masks` is {masks}, which this recipe does not read; set mask.source=given, or leave it out")


def usual_threads(device: str, size: int) -> int:
    """Return one thread for small images: a second saves little, and on a busy machine the first waits for it."""
    return 1 if device == "cpu" and size <= 96 else torch.get_num_threads()
