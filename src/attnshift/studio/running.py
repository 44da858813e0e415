"""An attack on one image, told iteration by iteration, that can be stopped and kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event

import numpy

from attnshift.attack.loop import Snapshot
from attnshift.data.images import as_pixels, decode_image, encode_png
from attnshift.errors import UserError
from attnshift.execution.prepare import PreparedRun, prepare_run
from attnshift.execution.settings import AttackSettings
from attnshift.execution.worker import Failure, Result
from attnshift.files import atomic_write
from attnshift.recipes.schema import Recipe
from attnshift.recipes.writing import recipe_toml
from attnshift.results.rows import ResultRow
from attnshift.results.spec import RunSpec
from attnshift.studio.folder import Arguments, AttackFolder
from attnshift.studio.networks import Networks
from attnshift.studio.readings import Attention, Verdict, as_image, judge, read_attention

__all__ = ["AttackProgress", "Finished", "Order", "attack_image"]

_PAUSE = 0.15
"""Seconds between two looks at what an attack tells."""


@dataclass(frozen=True)
class Order:
    """An attack to carry out: the clean ``pixels`` [side,side,3] in 8 bits, their class, a recipe,
    and a mask [side,side] of 0 and 255."""

    pixels: numpy.ndarray
    name: str
    label: int
    class_name: str
    prompt: str
    recipe: Recipe
    mask: numpy.ndarray | None = None


@dataclass(frozen=True)
class AttackProgress:
    """State of an attack before the update of ``iteration``, of at most ``iterations``.

    ``losses`` are the weighted terms of each iteration so far, by name; ``margins`` those of the
    surrogates, in logits, below 0 where the attack has succeeded. ``pixels`` show the image now.
    """

    iteration: int
    iterations: int
    losses: tuple[dict[str, float], ...]
    margins: tuple[dict[str, float], ...]
    pixels: numpy.ndarray


@dataclass(frozen=True)
class Finished:
    """A finished attack: its ``folder``, the attacked ``pixels``, what classifiers say of them, and
    where the words look."""

    folder: AttackFolder
    arguments: Arguments
    recipe: Recipe
    pixels: numpy.ndarray
    verdicts: tuple[Verdict, ...]
    attention: Attention
    row: ResultRow
    notes: tuple[str, ...]

    @property
    def stopped_after(self) -> int:
        """Updates after which a person stopped the attack; 0 where it came to its end."""
        return self.recipe.finish.after


def attack_image(networks: Networks, order: Order, stop: Event, out: Path) -> Iterator[AttackProgress | Finished]:
    """Attack in the thread of the networks, and yield the newest progress and at last the end.

    Once ``stop`` is set the attack ends after its iteration, and what it has is kept. It is also
    set where nobody listens any more. Raises ``UserError`` for what cannot be attacked.
    """
    told: SimpleQueue[AttackProgress] = SimpleQueue()
    done = networks.submit(lambda: _carry_out(networks, order, stop, out, told))
    try:
        while not done.done():
            newest = _newest(told, done)
            if newest is not None:
                yield newest
        yield done.result()
    finally:
        stop.set()


def _newest(told: SimpleQueue[AttackProgress], done: Future[Finished]) -> AttackProgress | None:
    """The last of what was told meanwhile; None where the attack has ended."""
    newest = None
    while newest is None and not done.done():
        try:
            newest = told.get(timeout=_PAUSE)
        except Empty:
            continue
    while not told.empty():
        newest = told.get()
    return newest


def _carry_out(networks: Networks, order: Order, stop: Event, out: Path, told: SimpleQueue[AttackProgress]) -> Finished:
    folder = _written(order, out)
    prepared = _prepared(networks, order.recipe, folder)
    iterations = order.recipe.updates
    losses: list[dict[str, float]] = []
    margins: list[dict[str, float]] = []

    def watch(ids: Sequence[str], snapshot: Snapshot) -> bool:
        losses.append({name: float(values[0]) for name, values in snapshot.losses.items()})
        named = zip(networks.options.surrogates, snapshot.margins[:, 0].tolist(), strict=True)
        margins.append(dict(named))
        pixels = as_pixels(snapshot.images[0])
        told.put(AttackProgress(snapshot.iteration, iterations, tuple(losses), tuple(margins), pixels))
        return stop.is_set()

    (item,) = prepared.plan
    (result,) = prepared.worker.attack([item], [item.id], watch)
    if isinstance(result, Failure):
        raise UserError(result.reason)
    recipe = _recipe_of(result, prepared.worker.spec, order.recipe)
    atomic_write(folder.recipe, recipe_toml(recipe).encode())
    atomic_write(folder.attacked, result.images["attack"])
    side = len(order.pixels)
    edits = {
        name: as_pixels(decode_image(result.images[arm], side, f"the {name} image"))
        for name, arm in (("attacked", "attack"), ("rebuilt", "reconstruction"))
    }
    return Finished(
        folder,
        _arguments(networks, prepared),
        recipe,
        edits["attacked"],
        judge(networks, order.name, order.label, order.pixels, edits),
        read_attention(networks, recipe, order.prompt, edits["attacked"]),
        result.row,
        (*prepared.remarks, *result.row.idle_terms),
    )


def _written(order: Order, out: Path) -> AttackFolder:
    mask = None
    if order.mask is not None:
        mask = encode_png(as_image(numpy.stack([order.mask] * 3, -1)), {})
    image = encode_png(as_image(order.pixels), {})
    folder = AttackFolder.make(out, image, order.label, order.class_name, mask, order.name)
    atomic_write(folder.recipe, recipe_toml(order.recipe).encode())
    return folder


def _prepared(networks: Networks, recipe: Recipe, folder: AttackFolder) -> PreparedRun:
    options = networks.options
    settings = AttackSettings(
        images=folder.images,
        labels=folder.labels,
        masks=folder.masks if folder.masked else None,
        pipeline=options.pipeline,
        surrogates=options.surrogates,
        size=networks.size,
        batch=1,
        device=options.device,
        precision=options.precision,
        accept_pipeline=options.accept_pipeline,
        recipe=recipe,
        out=folder.run,
    )
    return prepare_run(settings, loaders=networks.loaders)


def _recipe_of(result: Result, spec: RunSpec, recipe: Recipe) -> Recipe:
    """The recipe that gives ``result``: ``recipe``, or the same ended where it was stopped."""
    if result.row.run == spec.digest:
        return recipe
    return recipe.ended_after(result.row.evaluated - 1)


def _arguments(networks: Networks, prepared: PreparedRun) -> Arguments:
    spec, options = prepared.worker.spec, networks.options
    return Arguments(
        spec.pipeline,
        spec.surrogates,
        spec.size,
        spec.threads,
        spec.device,
        spec.precision,
        options.accept_pipeline,
    )
