"""Run, or continue, an attack: hand out micro-batches, keep what comes back, and write everything down."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from attnshift.data.datasets import Item
from attnshift.errors import RunError, UserError
from attnshift.execution.engines import Assignment, Engine, WorkerDied
from attnshift.execution.engines.local import LocalEngine
from attnshift.execution.prepare import PreparedRun, prepare_run
from attnshift.execution.settings import AttackSettings
from attnshift.execution.worker import Failure, Result
from attnshift.profiling import part
from attnshift.recipes.schema import Recipe
from attnshift.results.generations import has_newer
from attnshift.results.ledger import DEATHS, Failed, History, Ledger, read_history
from attnshift.results.locks import Claims
from attnshift.results.plan import WHOLE, Batch, Shard
from attnshift.results.spec import RunSpec
from attnshift.results.store import Store
from attnshift.telemetry import BatchBegun, ImageDone, ImageFailed, RunBegun, Telemetry

__all__ = ["MakeEngine", "RunOptions", "attack_folder", "attack_prepared"]


MakeEngine = Callable[[RunSpec], Engine]


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Choices about how a run is carried out; nothing here changes its result.

    Without an ``engine`` this process does the work; with one it only checks the input, on its CPU. ``shard`` is the
    part of the run that this command takes. ``retry_failed``: what failed before is tried again. ``name`` tells apart
    the runs of one command.
    """

    engine: MakeEngine | None = None
    shard: Shard = WHOLE
    retry_failed: bool = False
    name: str = ""


def attack_folder(
    settings: AttackSettings, telemetry: Telemetry | None = None, options: RunOptions = RunOptions()
) -> Store:
    """Run, or continue, the attack that ``settings`` describe. All input but the images is checked before anything is
    written; an image that cannot be read or attacked fails alone, and failed.parquet says why."""
    with part("loading"):
        prepared = prepare_run(settings, here="" if options.engine is None else "cpu")
    return attack_prepared(prepared, settings.out, telemetry, options)


def attack_prepared(
    prepared: PreparedRun, out: Path, telemetry: Telemetry | None = None, options: RunOptions = RunOptions()
) -> Store:
    """Run, or continue, an attack whose input is loaded and checked, in the run folder ``out``."""
    telemetry = telemetry or Telemetry()
    prepared = prepared.as_part_of(out)
    with closing(_engine(prepared, telemetry, options)) as engine:
        store, plan = Store.join(out, prepared.worker.spec, prepared.plan)
        if store.spec().items != prepared.worker.spec.items:
            raise RunError(f"{out} was begun at this moment with another list of images; run the same command again")
        prepared = replace(prepared, plan=plan)
        with Claims(out) as claims:
            with claims.alone() as alone:
                if alone:
                    store.sweep()
            history = History() if options.retry_failed else read_history(out)
            run = _Run(prepared, store, claims, telemetry, options, Ledger(out), history)
            with telemetry.run(_begun(prepared, store, options)):
                run.carry_out(engine)
            with claims.tables():
                store.compact({id: each.reason for id, each in read_history(out).failed.items()})
    if run.overtaken:
        raise RunError(
            f"{out} has got a newer list of images; this command has finished what it had begun, and stops. "
            "Run it again with that list"
        )
    return store


@dataclass
class _Run:
    """One command's share in a run. ``pending`` are the micro-batches that are claimed and not back yet, ``again``
    those that are taken up once more at the end; ``reasons`` is what was last heard of workers that died of an item.
    """

    prepared: PreparedRun
    store: Store
    claims: Claims
    telemetry: Telemetry
    options: RunOptions
    ledger: Ledger
    history: History
    pending: dict[int, tuple[Batch, Assignment]] = field(default_factory=dict)
    again: dict[int, Batch] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    overtaken: bool = False
    """The run has got a newer generation, and nothing more of this one is begun."""

    def carry_out(self, engine: Engine) -> None:
        try:
            batches = self.prepared.plan.batches(self.prepared.worker.spec.batch)
            self._work(engine, (each for each in batches if each in self.options.shard))
            while self.again:
                # What a worker died of comes last, when everything else is safe.
                last, self.again = [*self.again.values()], {}
                self._work(engine, last)
        except (KeyboardInterrupt, SystemExit, UserError):
            # Every other end counts: an item that ends its worker three times is left out. Of a full disk, the first
            # complaint is the one to show.
            with suppress(RunError):
                self.ledger.stopped([each for _, assignment in self.pending.values() for each in assignment.wanted])
            raise

    def _work(self, engine: Engine, batches: Iterable[Batch]) -> None:
        for assignment, returned in engine(self._assignments(batches)):
            batch, _ = self.pending[assignment.number]
            if isinstance(returned, WorkerDied):
                self.ledger.died(assignment.wanted)
                self.history.deaths.update(assignment.wanted)
                self.reasons |= dict.fromkeys(assignment.wanted, returned.reason)
                self.again[batch.number] = batch
            else:
                self._keep(assignment.items, assignment.wanted, returned)
            del self.pending[batch.number]
            self.claims.release(batch.number)

    def _assignments(self, batches: Iterable[Batch]) -> Iterator[Assignment]:
        for batch in batches:
            self.overtaken = self.overtaken or has_newer(self.store.folder, self.prepared.plan)
            if self.overtaken:
                return
            if not self._missing(batch) or not self.claims.acquire(batch.number):
                continue
            assignment = self._assign(batch)
            if assignment is None:
                self.claims.release(batch.number)
                continue
            self.pending[batch.number] = batch, assignment
            self.ledger.begun(assignment.wanted)
            self.telemetry(BatchBegun(batch.number, tuple(item.id for item in assignment.items)))
            yield assignment

    def _assign(self, batch: Batch) -> Assignment | None:
        """The whole of ``batch``, as its items are attacked in an undisturbed run; one of them alone where they have
        ended a worker too often together."""
        missing, deaths = self._missing(batch), self.history.deaths
        if all(deaths[item.id] < DEATHS for item in missing):
            return Assignment(batch.number, batch.items, tuple(item.id for item in missing)) if missing else None
        for item in missing:
            if deaths[item.id] <= DEATHS and len(batch.items) > 1:
                self.again[batch.number] = batch
                return Assignment(batch.number, (item,), (item.id,))
            last = f" ({self.reasons[item.id]})" if item.id in self.reasons else ""
            times = f"ended its worker {deaths[item.id]} times"
            reason = f"{times} and is left out; `retry_failed` tries it again{last}"
            self._keep((item,), (item.id,), [Failure(item.id, reason)], tried=False)
        return None

    def _missing(self, batch: Batch) -> list[Item]:
        return [
            item for item in batch.items if item.id not in self.history.failed and not self.store.is_finished(item.id)
        ]

    def _keep(
        self, items: Sequence[Item], wanted: Sequence[str], returned: Sequence[Result | Failure], tried: bool = True
    ) -> None:
        """Store everything first, and only then say that it is done. ``tried``: this was one more attempt."""
        files = {item.id: item.file for item in items}
        failures = {each.id: each.reason for each in returned if isinstance(each, Failure)}
        for each in returned:
            if isinstance(each, Result):
                self.store.finish(each.row, each.images)
        self.ledger.ended(wanted, failures)
        for each in returned:
            if isinstance(each, Result):
                self.telemetry(ImageDone.of(each.row))
                continue
            attempts = self.history.deaths.pop(each.id, 0) + tried
            self.history.failed[each.id] = Failed(each.reason, datetime.now(UTC))
            self.telemetry(ImageFailed(each.id, files[each.id], each.reason, attempts))


def _engine(prepared: PreparedRun, telemetry: Telemetry, options: RunOptions) -> Engine:
    if options.engine is None:
        return LocalEngine(prepared.worker, telemetry)
    return options.engine(prepared.worker.spec)


def _begun(prepared: PreparedRun, store: Store, options: RunOptions) -> RunBegun:
    spec, generation = prepared.worker.spec, prepared.plan.generation
    return RunBegun(
        run=spec.digest,
        images=len(prepared.plan),
        done=store.count(),
        batch=spec.batch,
        iterations=spec.recipe.optimiser.iterations if isinstance(spec.recipe, Recipe) else 0,
        recipe=spec.recipe.name,
        pipeline=spec.pipeline,
        surrogates=spec.surrogates,
        software=spec.software,
        name=options.name,
        notes=(*prepared.remarks, *([generation.line] if generation.number else [])),
    )
