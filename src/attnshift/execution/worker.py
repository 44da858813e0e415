"""Worker that holds the networks and attacks micro-batches, here or on another machine."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from attnshift._version import __version__
from attnshift.attack.clean_path import Inversions, compute_uncached
from attnshift.attack.prepare import Task
from attnshift.classifiers.classifier import Classifier, as_surrogates
from attnshift.data.datasets import Item, identify
from attnshift.data.images import decode_image, decode_mask, encode_png, uncropped_size
from attnshift.data.references import Reference, fetch
from attnshift.defences.names import load_surrogate
from attnshift.deterministic import ALLOWED, settle_device
from attnshift.diffusion import Precision, load_pipeline
from attnshift.diffusion.backbone import Backbone
from attnshift.errors import ImageError, ModelError, UserError
from attnshift.execution.inversion_cache import InversionCache
from attnshift.execution.work import BatchResult, Work, caption_of, work_of
from attnshift.profiling import part
from attnshift.results.rows import ResultRow
from attnshift.results.software import software
from attnshift.results.spec import RunSpec
from attnshift.results.store import CROPPED
from attnshift.sizes import Size, size_of
from attnshift.telemetry import IterationCallback

__all__ = [
    "NOT_FINITE",
    "Failure",
    "Fetch",
    "Result",
    "Worker",
    "inversions_in",
    "load_networks",
    "read_task",
    "weights",
]

Fetch = Callable[[Reference], bytes]
"""Function from a reference to the encoded bytes of an image; it raises ``ImageError``."""

_NO_FIXED_ORDER = " does not have a deterministic implementation"
"""torch's words behind the name of such an operation."""

NOT_FINITE = "the attack gave values that are not finite (NaN, infinity): a network overflows on this image"


@dataclass(frozen=True)
class Result:
    """A finished item: its row, and its arms as PNG files."""

    row: ResultRow
    images: Mapping[str, bytes]

    @property
    def id(self) -> str:
        return self.row.id


@dataclass(frozen=True)
class Failure:
    id: str
    reason: str


@dataclass(frozen=True)
class Worker:
    """Attack that can start, with everything loaded for ``spec``.

    ``classifiers`` are its surrogates, in order.
    """

    work: Work
    backbone: Backbone
    classifiers: Sequence[Classifier]
    spec: RunSpec
    inversions: Inversions = compute_uncached

    @classmethod
    def load(cls, spec: RunSpec, cache: Path | None = None, places: Mapping[str, str] = {}) -> Worker:
        """Load a worker for ``spec`` on this machine, which may be another one than the command's.

        ``places`` are names under which models are loaded here in place of their own. Raises
        ``ModelError`` if its weights or its software are not those of ``spec``.
        """
        torch.set_num_threads(spec.threads)
        settle_device(spec.device)
        backbone, classifiers = load_networks(spec.pipeline, spec.surrogates, spec.precision, spec.device, places)
        versions = software(spec.recipe, spec.pipeline, spec.surrogates)
        work = work_of(spec.recipe, places)
        found = {**weights(backbone, classifiers), **work.weights}
        found = spec.model_copy(update={"weights": found, "software": versions})
        changed = found.differences(spec)
        if changed:
            raise ModelError(f"this worker differs from its run in {'; '.join(changed[:4])}")
        return cls(work, backbone, classifiers, spec, inversions_in(cache, spec))

    def attack(
        self,
        items: Sequence[Item],
        wanted: Sequence[str],
        watch: IterationCallback | None = None,
        read: Fetch = fetch,
    ) -> list[Result | Failure]:
        """Attack ``items`` together, and return the results of those that are ``wanted``.

        The others are attacked too, because batch mates decide the last bits. An item that cannot
        be read, or whose result is not finite, fails alone. Where ``watch`` stops the attack, its
        results are those of the run ``spec.stopped``.
        """
        failures, tasks, readable = [], [], []
        for item in items:
            try:
                tasks.append(read_task(item, self.spec.common_size, read))
                readable.append(item)
            except UserError as error:
                failures.append(Failure(item.id, str(error)))
        uncropped = {task.id: task.uncropped for task in tasks}
        results: list[Result | Failure] = [*failures]
        for group, done in self._in_memory(readable, tasks, watch):
            if isinstance(done, str):
                results += [Failure(item.id, done) for item in group]
                continue
            results += [self._result(item, place, done, group, uncropped) for place, item in enumerate(group)]
        places = [item.id for item in items]
        return sorted((each for each in results if each.id in wanted), key=lambda each: places.index(each.id))

    def _in_memory(
        self, items: Sequence[Item], tasks: Sequence[Task], watch: IterationCallback | None
    ) -> Iterator[tuple[Sequence[Item], tuple[BatchResult, float, float] | str]]:
        """Attack ``items`` at once, or in halves of halves if memory does not hold them.

        Yields the items of each part with their results, seconds and CPU seconds per item, or with
        the reason why memory does not hold even one of them.
        """
        if not items:
            return
        ids = [item.id for item in items]
        begun, cpu = time.monotonic(), time.process_time()
        try:
            with part("controls"):
                look = None if watch is None else lambda snapshot: watch(ids, snapshot)
                done = self.work.carry_out(self.backbone, self.classifiers, tasks, look, self.inversions)
            yield items, (done, (time.monotonic() - begun) / len(items), (time.process_time() - cpu) / len(items))
            return
        except (MemoryError, RuntimeError) as error:
            if _NO_FIXED_ORDER in str(error):
                name = str(error).partition(_NO_FIXED_ORDER)[0]
                raise ModelError(
                    f"a network of this run needs {name}, which has no fixed order of sums on a GPU; "
                    f"with {ALLOWED}=1 in the environment the run goes on, and its last bits may differ each time"
                ) from None
            if not _out_of_memory(error):
                raise
        # This stands outside the clause, whose traceback holds all tensors.
        torch.cuda.empty_cache()
        if len(items) == 1:
            size = size_of(tasks[0].image)
            yield (
                items,
                f"memory does not hold one image of {size} px; use a smaller `size`, or diffusion.checkpointing",
            )
            return
        middle = (len(items) + 1) // 2
        for half in (slice(middle), slice(middle, None)):
            yield from self._in_memory(items[half], tasks[half], watch)

    def _result(
        self,
        item: Item,
        place: int,
        timed: tuple[BatchResult, float, float],
        group: Sequence[Item],
        uncropped: Mapping[str, Size | None],
    ) -> Result | Failure:
        done, seconds, cpu_seconds = timed
        spec = self.spec.stopped(done.stopped_after) if done.stopped_after else self.spec
        row = ResultRow(
            id=item.id,
            file=item.file,
            label=item.label,
            class_name=item.class_name,
            target=item.target,
            target_name=item.target_name,
            key=spec.key(item.id),
            run=spec.digest,
            surrogates=spec.surrogates,
            seconds=seconds,
            cpu_seconds=cpu_seconds,
            batch=len(group),
            known=tuple(done.known[:, place].tolist()),
            margins={arm: tuple(float(each) for each in margins[:, place]) for arm, margins in done.margins.items()},
            **done.rows[place],
        )
        if not (
            _finite(row.to_record()) and all(bool(images[place].isfinite().all()) for images in done.arms.values())
        ):
            return Failure(item.id, NOT_FINITE)
        size = uncropped[item.id]
        cut = {} if size is None else {CROPPED: f"{size.columns}x{size.rows}"}
        images = {
            arm: encode_png(images[place], _provenance(item, arm, spec) | cut) for arm, images in done.arms.items()
        }
        return Result(row, images)


def load_networks(
    pipeline: str, surrogates: Sequence[str], precision: Precision, device: str, places: Mapping[str, str] = {}
) -> tuple[Backbone, list[Classifier]]:
    """Load the backbone, and the surrogates in their order.

    All of them have the classes of the first one that has names, in its order, and take gradients
    in ``precision``. A name in ``places`` is loaded from there, and keeps its name.
    """
    backbone = load_pipeline(places.get(pipeline, pipeline), precision).to(device)
    loaded = [_surrogate(name, places.get(name, name), backbone).to(device) for name in surrogates]
    return backbone, as_surrogates(loaded, getattr(torch, precision))


def _surrogate(name: str, place: str, backbone: Backbone) -> Classifier:
    classifier = load_surrogate(place, lambda: backbone)
    return classifier if place == name else replace(classifier, name=name)


def inversions_in(cache: Path | None, spec: RunSpec) -> Inversions:
    """Inversions that the folder ``cache`` keeps
    for runs like ``spec``; without it none is kept."""
    if cache is None:
        return compute_uncached
    return InversionCache(cache, (spec.weights["pipeline"], spec.device, spec.threads, sorted(spec.software.items())))


def weights(backbone: Backbone, classifiers: Sequence[Classifier]) -> dict[str, str]:
    return {"pipeline": backbone.fingerprint(), **{each.name: each.fingerprint() for each in classifiers}}


def read_task(item: Item, common: Size | None, read: Fetch = fetch) -> Task:
    """Task of the attack on ``item``, with its image and its mask cropped to the ``common`` size of
    the run, or as wholes at the item's own.

    Raises ``ImageError`` if it cannot be read, or has changed since the run was planned.
    """
    content = read(item.image)
    mask = None if item.mask is None else read(item.mask)
    if identify(content, item.label, item.class_name, item.target, mask, item.caption) != item.id:
        raise ImageError(f"{item.file}: changed since the run was planned; put it back, or use another `out`")
    size, whole = item.size or common, item.size is not None
    assert size is not None
    cover = None if mask is None else decode_mask(mask, size, f"the mask of {item.file}", whole)
    image = decode_image(content, size, item.file, whole)
    cropped = None if whole else uncropped_size(content, size)
    caption = caption_of(item.caption, item.class_name)
    return Task(item.id, image, item.label, item.class_name, cover, item.target, cropped, caption)


def _out_of_memory(error: BaseException) -> bool:
    """True if ``error`` says that memory is full.

    CUDA has a type for that. On a CPU, torch's allocator and each library of kernels have their own
    words.
    """
    signs = ("allocate memory", "bad_alloc", "out of memory", "could not create a memory")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(sign in str(error) for sign in signs)


def _finite(value: Any) -> bool:
    """True if all numbers of a row are finite, at any depth."""
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, Mapping):
        return all(map(_finite, value.values()))
    return all(map(_finite, value)) if isinstance(value, list | tuple) else True


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
