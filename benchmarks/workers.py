"""Time two single-threaded Ray workers against one, on whole images of the lab with preset
``quick``.

    python benchmarks/workers.py [--count 48] [--rounds 5] [--quick]

Both attack the same micro-batches in turn, 1 2 1 2 …, with models loaded. Time runs from the first
micro-batch that is given out to the last result; storing is not counted. --quick tries it out on 4
images with two iterations and writes nothing.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from timing import machine, medians, take_turns

from attnshift.errors import AttnshiftError
from attnshift.execution.engines import Assignment, Engine, WorkerDied
from attnshift.execution.prepare import PreparedRun, prepare_run
from attnshift.execution.settings import AttackSettings
from attnshift.lab.export import export_images
from attnshift.recipes.reading import load_recipe
from attnshift.results.plan import Batch
from results import record

# Our module comes before Ray, because it sets how much Ray prints.
from attnshift.execution.engines.ray_engine import RayEngine  # isort: skip
import ray

WORKERS, BATCH = (1, 2), 4


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=48, help="images")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="4 images, one round, nothing is written")
    options = parser.parse_args(arguments)
    count, rounds, settings = options.count, options.rounds, ()
    if options.quick:
        count, rounds, settings = 4, 1, ("optimiser.iterations=2",)
    with TemporaryDirectory() as folder:
        figures = time_workers(prepare_run(_settings(Path(folder), count, settings)), rounds)
    print("lab", *(f"{key}: {value}" for key, value in figures.items()), sep="\n  ")
    if not options.quick:
        taken = {"seconds": "of the clock", "rounds": rounds, "images": count, "batch": BATCH}
        record("cpu", "lab", figures, "workers", machine() | taken)


def time_workers(prepared: PreparedRun, rounds: int) -> dict[str, Any]:
    """Time both: seconds of all images, by the number of workers."""
    batches = [*prepared.plan.batches(prepared.worker.spec.batch)]
    # As many CPUs as workers: idle workers take no time.
    ray.init("local", num_cpus=sum(WORKERS), log_to_driver=False, configure_logging=False, include_dashboard=False)
    try:
        engines = {workers: RayEngine(prepared.worker.spec, workers=workers) for workers in WORKERS}
        for workers, engine in engines.items():
            _warm_up(engine, workers, batches[0])
        work = {str(workers): functools.partial(_attack, engine, batches) for workers, engine in engines.items()}
        seconds = take_turns(work, rounds, now=time.perf_counter)
    finally:
        ray.shutdown()
    return {"seconds_workers": medians(seconds)}


def _warm_up(engine: Engine, workers: int, batch: Batch) -> None:
    """Run until all ``workers`` were at work together."""
    out = 0

    def again() -> Iterator[Assignment]:
        nonlocal out
        while out < workers:
            out += 1
            yield _assignment(batch)

    for _, returned in engine(again()):
        _check(returned)
        # No more work is given once all workers were busy together.
        out -= out < workers


def _attack(engine: Engine, batches: Iterable[Batch]) -> None:
    for _, returned in engine(map(_assignment, batches)):
        _check(returned)


def _assignment(batch: Batch) -> Assignment:
    return Assignment(batch.number, batch.items, tuple(item.id for item in batch.items))


def _check(returned: object) -> None:
    if isinstance(returned, WorkerDied):
        raise AttnshiftError(f"a worker died, so the time does not count: {returned.reason}")


def _settings(folder: Path, count: int, changes: Sequence[str]) -> AttackSettings:
    export_images(folder, 0, "tuning", count)
    recipe = load_recipe("quick", changes)
    inputs = {"images": folder, "labels": folder / "labels.csv", "surrogates": ("lab:resnet",)}
    return AttackSettings(**inputs, batch=BATCH, threads=1, recipe=recipe, out=folder / "run")


if __name__ == "__main__":
    main()
