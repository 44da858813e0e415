"""Coordinator of a run: it hands out micro-batches, stores the results and keeps the ledger."""

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

    Without an ``engine`` this process does the work; with one it only checks the input, on its CPU.
    ``shard`` is the part of the run that this command takes. With ``retry_failed`` images that
    failed before are tried again. ``name`` distinguishes the runs of one command.
    """

    engine: MakeEngine | None = None
    shard: Shard = WHOLE
    retry_failed: bool = False
    name: str = ""


def attack_folder(
    settings: AttackSettings, telemetry: Telemetry | None = None, options: RunOptions = RunOptions()
) -> Store:
    """Run, or continue, the attack that ``settings`` describe, and return the run folder's store.

    All input but the images is checked before anything is written; a ``UserError`` says what is
    wrong. An image that cannot be read or attacked fails alone, and failed.parquet says why.
    """
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
    """Share of one command in a run.

    ``pending`` are the micro-batches that are claimed and not back yet. ``again`` are those that
    are tried once more at the end. ``reasons`` maps items to the last message of a worker that died
    of them.
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
                # Micro-batches that have ended a worker come last, when everything else is stored.
                last, self.again = [*self.again.values()], {}
                self._work(engine, last)
        except (KeyboardInterrupt, SystemExit, UserError):
            # These ends do not count against an item; after three others it is left out. Of a full
            # disk, the first error is the one to show.
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
        """The whole of ``batch``, as in an undisturbed run; None if nothing of it is left to do.

        If its items have ended a worker too often together, each comes alone.
        """
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
        """Store all that was returned, and only then report it.

        ``tried`` is true if this was one more attempt.
        """
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
        iterations=spec.recipe.updates if isinstance(spec.recipe, Recipe) else 0,
        recipe=spec.recipe.name,
        pipeline=spec.pipeline,
        surrogates=spec.surrogates,
        software=spec.software,
        name=options.name,
        notes=(*prepared.remarks, *([generation.line] if generation.number else [])),
    )
