"""Checks of an attack's input, in their one order: a run raises the first complaint,
`validate` hears all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import chain, islice
from typing import TypeVar

import torch
from torch import Tensor

from attnshift.attack.inputs import check_device
from attnshift.attack.method import stand_in_of
from attnshift.classifiers.classifier import Classifier, as_surrogates, common_classes, vocabulary
from attnshift.data.datasets import Item, read_items
from attnshift.data.images import Framing, uncropped_size
from attnshift.data.references import Reference
from attnshift.defences.names import load_surrogate
from attnshift.deterministic import settle_device
from attnshift.diffusion import Precision, as_precision, load_pipeline
from attnshift.diffusion.backbone import Backbone
from attnshift.diffusion.measures import PipelineMeasures, measure_pipeline
from attnshift.errors import LabelError, ModelError, UserError
from attnshift.execution.agreement import Agreement, is_random, measure_agreement, readable, sampled
from attnshift.execution.settings import AttackSettings, settings_checks, usual_threads
from attnshift.execution.targets import target_choices
from attnshift.execution.work import Work, work_of
from attnshift.recipes.schema import BaselineRecipe, Recipe
from attnshift.results.plan import Plan
from attnshift.sizes import Size, read_size
from attnshift.terminal import plural

__all__ = ["Complaints", "Loaded", "Loaders", "Measured", "items_of", "load_parts", "measure_parts"]

_MEASURED = 4
"""Most images on which the pipeline is measured;
each costs an encoding and a pass of the denoiser."""

Found = TypeVar("Found")


class Complaints:
    """Complaints on their way to ``tell``, which may raise them.

    ``alone`` counts those about images that would fail alone; any other one refuses the attack.
    """

    def __init__(self, tell: Callable[[UserError], None]):
        self._tell = tell
        self._count = self.alone = 0

    def __call__(self, error: UserError) -> None:
        self._count += 1
        self._tell(error)

    @property
    def refuse(self) -> bool:
        """True if one of them refuses the attack."""
        return self._count > self.alone

    def tried(self, check: Callable[[], Found]) -> Found | None:
        """Result of ``check``; None where it has raised a complaint, which is told."""
        try:
            return check()
        except UserError as error:
            self(error)
            return None


@dataclass(frozen=True)
class Loaded:
    """Parts of an attack on ``device``, as far as they could be loaded; images come in ``framing``.

    ``fits`` is true where all are there and the recipe can be carried out with them. ``notes`` are
    lines about what is unusual and does not stop the attack.
    """

    device: str
    framing: Framing
    work: Work | None
    backbone: Backbone | None
    classifiers: Sequence[Classifier]
    plan: Plan | None
    fits: bool
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Measured:
    """Measures of the parts on the clean images, None where they could not be taken.

    ``admitted`` are complaints that an option has admitted.
    """

    agreement: Agreement | None = None
    pipeline: PipelineMeasures | None = None
    admitted: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """Lines about what is unusual and does not stop the attack."""
        random = self.agreement.random_line if self.agreement else ""
        verdict = self.pipeline.verdict if self.pipeline else None
        doubt = f"the pipeline {verdict.line}" if verdict and verdict.kind == "doubtful" else ""
        return (*filter(None, [random, doubt]), *self.decoder, *self.admissions)

    @property
    def decoder(self) -> tuple[str, ...]:
        """Line about a tiny decoder that seems to belong to another pipeline."""
        return tuple(filter(None, [self.pipeline.doubt_of_decoder if self.pipeline else ""]))

    @property
    def admissions(self) -> tuple[str, ...]:
        """``admitted`` as lines."""
        return tuple(f"admitted: {each}" for each in self.admitted)


@dataclass(frozen=True)
class Loaders:
    """Functions that load networks by their names; a caller with many attacks keeps what they give.

    ``pipeline`` takes a precision as well; ``surrogate`` a function that gives the pipeline, for
    defences that need it.
    """

    pipeline: Callable[[str, Precision], Backbone]
    surrogate: Callable[[str, Callable[[], Backbone]], Classifier]


def load_parts(
    settings: AttackSettings,
    complaints: Complaints,
    here: str = "",
    decode: bool = False,
    loaders: Loaders | None = None,
) -> Loaded:
    """Load and check what ``settings`` name; sets the number of CPU threads.

    ``here`` is the device for it, where it is another one than that of the attack. All images are
    hashed, and with ``decode`` also decoded. What can only be checked with something that is
    missing is not checked. Networks come from ``loaders``, by default from their files.
    """
    tried = complaints.tried
    load = loaders or Loaders(load_pipeline, load_surrogate)
    for check in settings_checks(settings):
        tried(check)
    device = tried(lambda: _usable(here or settings.device)) or "cpu"
    work = tried(lambda: work_of(settings.recipe))
    precision: Precision = tried(partial(as_precision, settings.precision)) or "float32"
    pipeline = cache(lambda: load.pipeline(settings.pipeline, precision).to(device))
    loaded = [tried(lambda name=name: load.surrogate(name, pipeline).to(device)) for name in settings.surrogates]
    known = [each for each in loaded if each is not None]
    classifiers = (tried(lambda: as_surrogates(known, getattr(torch, precision))) if known else None) or []
    backbone = tried(pipeline)
    framing = _framing(settings, backbone)
    torch.set_num_threads(settings.threads or usual_threads(settings.device, framing.size))
    settle_device(device)
    images = _Images(framing, decode, complaints)
    plan = tried(lambda: _planned(settings, classifiers, framing, images, complaints)) if classifiers else None
    fits = None
    if work and backbone and plan and len(classifiers) == len(settings.surrogates):
        fits = tried(lambda: _fits(work, backbone, classifiers, plan, framing.size))
    notes = tuple(filter(None, [images.line]))
    return Loaded(device, framing, work, backbone, classifiers, plan, fits is not None, notes)


def measure_parts(parts: Loaded, settings: AttackSettings, complaints: Complaints) -> Measured:
    """Show some of the clean images to the surrogates and the pipeline,
    each decoded once, and judge the answers."""
    plan, backbone, recipe = parts.plan, parts.backbone, settings.recipe
    if not plan:
        return Measured()
    shown = readable(sampled(plan, len(plan)), parts.framing)
    first = [*islice(shown, _MEASURED)]
    admitted: list[str] = []
    agreement = complaints.tried(lambda: measure_agreement(parts.classifiers, chain(first, shown), parts.device))
    against = agreement.complaint if agreement else ""
    if against and settings.accept_labels:
        admitted.append(f"{settings.labelled_by}: {against}")
    elif against:
        complaints(LabelError(f"{settings.labelled_by}: {against}, or set `accept_labels`"))
    pipeline = None
    # An attack on pixels does not use it.
    if parts.fits and backbone and first and recipe.uses_pipeline:
        images = torch.stack([image for _, image in first if image.shape == first[0][1].shape])
        pipeline = complaints.tried(lambda: _measure(backbone, images, recipe))
    if pipeline and pipeline.verdict.kind == "refused":
        line = f"the pipeline {pipeline.verdict.line}"
        if settings.accept_pipeline:
            admitted.append(line)
        else:
            complaints(ModelError(f"{line}; mend it, or set `accept_pipeline`"))
    return Measured(agreement, pipeline, tuple(admitted))


def _measure(backbone: Backbone, images: Tensor, recipe: Recipe | BaselineRecipe) -> PipelineMeasures:
    if isinstance(recipe, BaselineRecipe):
        return measure_pipeline(backbone, images)
    measures, stand_in = measure_pipeline(backbone, images, recipe.diffusion.schedule_steps), stand_in_of(recipe)
    if stand_in is None or not stand_in.acts_for(backbone):
        return measures
    return replace(measures, stand_in=stand_in.agreement(backbone, images))


class _Images:
    """What is seen of the images while items are read: a count of those that ``framing`` crops.

    With ``decode`` they are decoded.
    """

    def __init__(self, framing: Framing, decode: bool, complaints: Complaints) -> None:
        self._framing, self._decode, self._complaints = framing, decode, complaints
        self._uneven: set[Reference] = set()
        self.total = self.cropped = 0

    def examine(self, reference: Reference, content: bytes) -> None:
        """Look at an encoded image or mask; raises ``UserError`` for one that cannot be decoded."""
        if self._framing.size is not None and uncropped_size(content, self._framing.size) is not None:
            self._uneven.add(reference)
        if not self._decode:
            return
        try:
            self._framing.decode(content, reference.name)
        except UserError:
            self._complaints.alone += 1
            raise

    def counted(self, items: Iterable[Item]) -> Iterator[Item]:
        """``items``, whose images have been examined."""
        for item in items:
            self.total += 1
            self.cropped += item.image in self._uneven
            self._uneven.clear()
            yield item

    @property
    def line(self) -> str:
        """What is said of them; nothing where none is cropped."""
        size = self._framing.size
        if not self.cropped or size is None:
            return ""
        verb = "is" if self.cropped == 1 else "are"
        shape = "square" if size.rows == size.columns else f"of the shape {size}"
        return f"{plural(self.cropped, 'image')} of {self.total} {verb} not {shape}; the centre is cropped and attacked"


def items_of(
    settings: AttackSettings,
    classifiers: Sequence[Classifier],
    framing: Framing,
    problems: Callable[[UserError], None] | None = None,
    examine: Callable[[Reference, bytes], None] | None = None,
) -> Iterator[Item]:
    """Yield the items that ``settings`` name, in the surrogates' classes; they are shown images
    in ``framing`` where their answers choose the targets. The rest as in ``read_items``."""
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
        target_choices(classifiers, framing),
        framing.own_size,
        settings.captions,
    )


def _planned(
    settings: AttackSettings,
    classifiers: Sequence[Classifier],
    framing: Framing,
    images: _Images,
    complaints: Complaints,
) -> Plan:
    return Plan.draw(images.counted(items_of(settings, classifiers, framing, complaints, images.examine)))


def _framing(settings: AttackSettings, backbone: Backbone | None) -> Framing:
    """How images come to their sizes; a size that is refused, and a pipeline that is missing, give
    way to what lets the images be read."""
    suggested = Size.of(backbone.suggested_size if backbone else 64)
    try:
        size = read_size(settings.size) if settings.size else suggested
    except UserError:
        size = suggested
    return Framing(size, backbone.nearest_size) if backbone else Framing(size)


def _fits(work: Work, backbone: Backbone, classifiers: Sequence[Classifier], plan: Plan, common: Size | None) -> bool:
    for size in plan.extremes(common):
        work.check(backbone, classifiers, plan.examples, size)
    return True


def _usable(device: str) -> str:
    check_device(device)
    return device
