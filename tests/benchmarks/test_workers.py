"""The benchmark of two Ray workers: what is timed begins when all are at work."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib.util import find_spec

import pytest
import table

from attnshift.data.datasets import Item
from attnshift.data.references import Reference
from attnshift.errors import AttnshiftError
from attnshift.execution.engines import Assignment, Returned, WorkerDied
from attnshift.results.plan import Batch
from later import later

if find_spec("ray") is None:
    pytest.skip("Ray is not installed", allow_module_level=True)


workers = later("workers")

BATCH = Batch(0, (Item("item", "item.png", Reference("file", "/item.png"), 0, "mug"),))


class Starting:
    """Two workers, of which the second one is ready after the first one has done three micro-batches."""

    def __init__(self) -> None:
        self.done = self.together = 0

    def __call__(self, assignments: Iterable[Assignment]) -> Iterator[Returned]:
        waiting = iter(assignments)
        while True:
            out = [each for each in (next(waiting, None) for _ in range(1 if self.done < 3 else 2)) if each]
            self.together = len(out) or self.together
            if not out:
                return
            for each in out:
                self.done += 1
                yield each, []

    def close(self) -> None:
        pass


def test_warming_up_ends_when_all_were_at_work_together() -> None:
    engine = Starting()
    workers._warm_up(engine, 2, BATCH)
    assert (engine.done, engine.together) == (5, 2)


def test_nothing_is_said_where_a_worker_died() -> None:
    def engine(assignments: Iterable[Assignment]) -> Iterator[Returned]:
        return ((each, WorkerDied("killed")) for each in assignments)

    with pytest.raises(AttnshiftError, match="killed"):
        workers._attack(engine, [BATCH])  # type: ignore[arg-type]


def test_its_table() -> None:
    facts = {"processor": "P", "device": "cpu", "cores": 2, "torch": "2", "threads": 1, "rounds": 5, "images": 48}
    lab = {"seconds_workers": {"1": 100.0, "2": 52.3}, "measured": {"workers": facts}}
    shown = table._workers({"lab": lab, "mini": {}})
    assert "| lab | 100 | 52.3 | **1.91** |" in shown
    assert shown[-3:] == [
        "P, 2 cores, torch 2. lab: threads 1, rounds 5, images 48.",
        "",
        "Measured by `python benchmarks/workers.py`.",
    ]
