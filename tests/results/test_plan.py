"""The plan of a run: an order that nothing changes, in a file that may be longer than memory is large."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing.queues import SimpleQueue
from pathlib import Path

import pytest

from attnshift.data.datasets import Item
from attnshift.data.references import Reference
from attnshift.errors import LabelError
from attnshift.recipes.reading import load_recipe
from attnshift.results.plan import WHOLE, Plan, Shard, read_plan
from attnshift.results.rows import ResultRow
from attnshift.results.spec import RunSpec
from attnshift.results.store import Store


def item(number: int, label: int = 0, target: int | None = None) -> Item:
    reference = Reference("file", f"/photos/{number}.png")
    return Item(f"{number:016x}", f"{number}.png", reference, label, f"class {label}", target=target)


EVERY_KIND = [
    item(0),
    replace(item(1), image=Reference("url", "https://example.org/a:b.png")),
    replace(item(2), image=Reference("row", "/photos/a.parquet", 7), mask=Reference("member", "/m.tar", 512, 99)),
    replace(item(3), label=3, class_name="Ö\u3042", target=5, target_name="mug", file="deep/ö.png"),
]


def test_what_is_drawn_is_read_again(tmp_path: Path) -> None:
    plan = Plan.draw(EVERY_KIND)
    assert list(plan) == EVERY_KIND
    assert len(plan) == 4
    path = tmp_path / "plan.parquet"
    path.write_bytes(plan.path.read_bytes())
    assert list(read_plan(path)) == EVERY_KIND


def test_the_file_is_there_as_long_as_the_plan() -> None:
    plan = Plan.draw([item(0)])
    path = plan.path
    assert path.exists()
    del plan
    assert not path.exists()
    assert not path.parent.exists()


def test_nothing_is_left_of_a_plan_whose_items_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The temporary folder is removed at once, and not by the collector, which would warn."""

    def broken() -> Iterator[Item]:
        yield item(0)
        assert list(tmp_path.iterdir()), "the plan is written here"
        raise LabelError("line 3: no label")

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(LabelError, match="line 3"):
        Plan.draw(broken())
    assert not list(tmp_path.iterdir())


def test_the_digest_is_of_the_ids_in_order() -> None:
    items = [item(number) for number in (3, 1, 2)]
    expected = hashlib.sha256("\n".join(each.id for each in items).encode()).hexdigest()[:16]
    assert Plan.draw(items).digest == expected
    assert Plan.draw(replace(each, file="x", image=Reference("url", "x")) for each in items).digest == expected
    assert Plan.draw(reversed(items)).digest != expected
    assert Plan.draw(items[:2]).digest != expected


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 1000])
def test_batches_are_consecutive(size: int) -> None:
    items = [item(number) for number in range(7)]
    batches = list(Plan.draw(items).batches(size))
    assert [each.number for each in batches] == list(range(len(batches)))
    assert [each for batch in batches for each in batch.items] == items
    assert all(len(batch.items) == size for batch in batches[:-1])
    assert 1 <= len(batches[-1].items) <= size


def test_batches_do_not_end_where_parts_of_the_file_do(monkeypatch: pytest.MonkeyPatch) -> None:
    items = [item(number) for number in range(11)]
    whole = list(Plan.draw(items).batches(3))
    monkeypatch.setattr("attnshift.results.plan._ROWS", 4)
    plan = Plan.draw(items)
    assert list(plan) == items
    assert list(plan.batches(3)) == whole


@pytest.mark.parametrize("count", [1, 2, 3, 5, 9])
def test_shards_part_the_batches(count: int) -> None:
    batches = list(Plan.draw(item(number) for number in range(7)).batches(2))
    shards = [[batch for batch in batches if batch in Shard(index, count)] for index in range(count)]
    assert sorted(batch.number for shard in shards for batch in shard) == [0, 1, 2, 3]
    assert max(map(len, shards)) - min(map(len, shards)) <= 1
    assert all(batch in WHOLE for batch in batches)


def test_examples_are_one_of_each_class_and_target() -> None:
    items = [item(0, 1), item(1, 1), item(2, 2), item(3, 1, 7), item(4, 1, 7), replace(item(5, 2), class_name="mug")]
    assert Plan.draw(items).examples == (items[0], items[2], items[3], items[5])


class OneRow(Store):
    """All items have been finished, with the same row."""

    def _item_path(self, id: str) -> Path:
        return self.folder / "row.json"

    def spec(self) -> RunSpec:
        return RunSpec(
            images="images",
            labels=None,
            items="0" * 16,
            pipeline="lab",
            surrogates=("lab:resnet",),
            size=64,
            batch=8,
            device="cpu",
            threads=1,
            recipe=load_recipe("quick"),
        )


def carry_out(count: int, folder: Path) -> None:
    """Plan so many items, hand them out in micro-batches, and make a table of them all."""
    plan = Plan.draw(items_of(count))
    assert sum(len(batch.items) for batch in plan.batches(8)) == len(plan) == count
    (folder / "plan.parquet").write_bytes(plan.path.read_bytes())
    assert OneRow(folder).compact({}) == count


def keep(count: int, folder: Path) -> None:
    """The same items, all at once in memory."""
    assert len(list(items_of(count))) == count


def grown(work: Callable[[int, Path], None], count: int, folder: Path) -> float:
    """By how many megabytes the memory of a new process, whose heap has no room left over, grows with ``work``."""
    context = multiprocessing.get_context("spawn")
    peaks = context.SimpleQueue()
    child = context.Process(target=tell_growth, args=(work, count, folder, peaks))
    child.start()
    child.join()
    assert child.exitcode == 0
    return peaks.get()


def tell_growth(work: Callable[[int, Path], None], count: int, folder: Path, peaks: SimpleQueue[float]) -> None:
    before = peak()
    work(count, folder)
    peaks.put(peak() - before)


def peak() -> float:
    """Of this process, in megabytes."""
    if sys.platform == "linux":  # where ru_maxrss counts what the parent held before exec
        (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 1e3
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def items_of(count: int) -> Iterator[Item]:
    return (item(number, number % 100) for number in range(count))


@pytest.mark.heavy
def test_memory_does_not_grow_with_the_plan(tmp_path: Path) -> None:
    row = ResultRow("x", "x.png", 1, "mug", losses={"a": (1.0, 0.5)}, margins={"attack": (0.5, 1.5)})
    (tmp_path / "row.json").write_text(json.dumps(row.to_record()))
    few = grown(carry_out, 2_000, tmp_path)
    assert grown(carry_out, 100_000, tmp_path) < few + 30
    assert grown(keep, 100_000, tmp_path) > 30, "as it would if they were kept"
