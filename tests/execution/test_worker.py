"""What attacks micro-batches: what it does without memory, and with models that are not the run's."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from attnshift.classifiers import load_classifier
from attnshift.errors import ImageError, ModelError, UserError
from attnshift.execution.coordinate import attack_prepared
from attnshift.execution.memory import limit_memory
from attnshift.execution.prepare import PreparedRun, prepare_run
from attnshift.execution.worker import NOT_FINITE, Failure, Result, Worker, read_task
from attnshift.sizes import Size
from doubles import items_of, painted, write_cards
from small_runs import SURROGATE, small_settings
from tables import records

if TYPE_CHECKING:
    from attnshift.attack.prepare import Task

OUT_OF_MEMORY = {
    "cuda": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "cpu": lambda: RuntimeError(
        "[enforce fail at alloc_cpu.cpp:126] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
        "allocate 8000000000 bytes. Error code 12 (Cannot allocate memory)"
    ),
    "kernel": lambda: RuntimeError("could not create a memory object"),
    "standard library": lambda: RuntimeError("std::bad_alloc"),
    "python": lambda: MemoryError(),
}


@pytest.fixture(scope="module")
def cards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cards(tmp_path_factory.mktemp("cards"), 7)


def holding(most: int, error: Callable[[], BaseException], seen: list[int] | None = None) -> Any:
    """Memory that holds so many images at once."""

    def before(tasks: Sequence[Task]) -> None:
        if len(tasks) > most:
            raise error()
        if seen is not None:
            seen.append(len(tasks))

    return before


def attack(prepared: PreparedRun, wanted: Sequence[str] | None = None) -> list[Result | Failure]:
    items = list(prepared.plan)
    return prepared.worker.attack(items, [item.id for item in items] if wanted is None else wanted)


@pytest.mark.parametrize("kind", OUT_OF_MEMORY)
def test_what_memory_does_not_hold_is_halved(cards: Path, kind: str) -> None:
    seen: list[int] = []
    results = attack(painted(cards, 7, holding(2, OUT_OF_MEMORY[kind], seen)))
    assert seen == [2, 2, 2, 1]
    assert [each.id for each in results] == [item.id for item in items_of(cards)]
    assert [each.row.batch for each in results if isinstance(each, Result)] == [2, 2, 2, 2, 2, 2, 1]


@pytest.mark.parametrize(("most", "groups"), [(7, [7]), (6, [4, 3]), (3, [2, 2, 3]), (1, [1] * 7)])
def test_halves_are_as_large_as_memory_allows(cards: Path, most: int, groups: list[int]) -> None:
    seen: list[int] = []
    results = attack(painted(cards, 7, holding(most, MemoryError, seen)))
    assert seen == groups
    assert [each.row.batch for each in results if isinstance(each, Result)] == [
        size for size in groups for _ in range(size)
    ]


def test_how_many_were_together_is_in_the_table(cards: Path, tmp_path: Path) -> None:
    store = attack_prepared(painted(cards, 4, holding(2, MemoryError)), tmp_path / "run")
    assert [row["batch"] for row in records(store, "results")] == [2, 2, 2, 2, 2, 2, 1]


def test_an_image_that_memory_does_not_hold_fails_alone(cards: Path) -> None:
    large = items_of(cards)[3].id

    def before(tasks: Sequence[Task]) -> None:
        if any(task.id == large for task in tasks):
            raise torch.OutOfMemoryError("CUDA out of memory.")

    results = attack(painted(cards, 7, before))
    (failure,) = (each for each in results if isinstance(each, Failure))
    assert failure.id == large
    assert failure.reason.startswith("memory does not hold one image of 16 px; use a smaller `size`")
    assert len(results) == 7


@pytest.mark.parametrize("error", [RuntimeError("a bug"), ValueError("a bug"), KeyError("a bug")])
def test_other_errors_are_not_hidden(cards: Path, error: Exception) -> None:
    with pytest.raises(type(error), match="a bug"):
        attack(painted(cards, 7, holding(0, lambda: error)))


def test_an_operation_without_order_is_said_in_one_line(cards: Path) -> None:
    words = "median CUDA with indices output does not have a deterministic implementation, but you set 'torch.use_…'"
    with pytest.raises(ModelError) as said:
        attack(painted(cards, 7, holding(0, lambda: RuntimeError(words))))
    assert str(said.value).startswith("a network of this run needs median CUDA with indices output, which has no fixed")


def test_batch_mates_are_attacked_and_not_returned(cards: Path) -> None:
    seen: list[int] = []
    items = items_of(cards)
    (result,) = attack(painted(cards, 7, holding(7, MemoryError, seen)), [items[2].id])
    assert seen == [7]
    assert isinstance(result, Result)
    assert (result.id, result.row.file, result.row.batch) == (items[2].id, items[2].file, 7)
    assert set(result.images) == {"clean", "attack"}


def test_nothing_is_attacked_where_nothing_can_be_read(cards: Path, tmp_path: Path) -> None:
    other = write_cards(tmp_path / "cards", 2)
    seen: list[int] = []
    prepared = painted(other, 2, holding(2, MemoryError, seen))
    for path in (other / "images").iterdir():
        path.unlink()
    assert all(isinstance(each, Failure) and "no such file" in each.reason for each in attack(prepared))
    assert seen == []


@pytest.mark.parametrize("place", ["pixels", "margins", "row"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_not_finite_is_no_result(cards: Path, place: str, value: float) -> None:
    prepared = painted(cards, 7)
    work: Any = prepared.worker.work
    original = work.carry_out

    def carry_out(*arguments: Any) -> Any:
        done = original(*arguments)
        if place == "pixels":
            done.arms["attack"][4, 0, 3, 3] = value
        if place == "margins":
            done.margins["clean"][0, 4] = value
        if place == "row":
            done.rows[4]["losses"] = {"x": (1.0, value)}
        return done

    object.__setattr__(work, "carry_out", carry_out)
    results = attack(prepared)
    (failure,) = (each for each in results if isinstance(each, Failure))
    assert failure == Failure(items_of(cards)[4].id, NOT_FINITE)
    assert len(results) == 7


def test_an_image_is_read_as_it_was_planned(cards: Path, tmp_path: Path) -> None:
    item = items_of(cards)[0]
    assert read_task(item, Size.of(16)).image.shape == (3, 16, 16)
    for change in ({"label": 5}, {"class_name": "coin"}, {"target": 3}, {"mask": item.image}):
        with pytest.raises(ImageError, match=r"card-0\.png: changed since the run was planned"):
            read_task(replace(item, **change), Size.of(16))


@pytest.fixture(scope="module")
def real(photos: Path, pipeline_folder: Path) -> Worker:
    changes = ("diffusion.denoising_steps=1", "optimiser.iterations=1")
    return prepare_run(small_settings(photos, pipeline_folder, Path(), *changes)).worker


def test_a_worker_loaded_anew_gives_the_same(real: Worker, photos: Path) -> None:
    items = items_of(photos)
    wanted = [item.id for item in items]
    loaded = Worker.load(real.spec)
    assert (loaded.spec, loaded.work) == (real.spec, real.work)
    for here, there in zip(real.attack(items, wanted), loaded.attack(items, wanted), strict=True):
        assert isinstance(here, Result)
        assert isinstance(there, Result)
        assert (here.id, here.images) == (there.id, there.images)
        assert replace(here.row, seconds=0, cpu_seconds=0) == replace(there.row, seconds=0, cpu_seconds=0)


def test_gradients_are_taken_in_the_runs_precision(photos: Path, pipeline_folder: Path) -> None:
    settings = replace(small_settings(photos, pipeline_folder, Path()), precision="bfloat16")
    here = prepare_run(settings).worker
    for worker in (here, Worker.load(here.spec)):
        assert [each.precision for each in worker.classifiers] == [torch.bfloat16]


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        ({"weights": {"pipeline": "others", SURROGATE: ""}}, "weights.pipeline: '"),
        ({"software": {"attnshift": "0.0.1", "torch": "1.0"}}, "software.torch: '"),
        ({"precision": "bfloat16"}, "weights.pipeline: '"),
    ],
    ids=["weights", "software", "precision"],
)
def test_a_worker_that_is_not_the_runs_refuses(real: Worker, change: dict[str, Any], shown: str) -> None:
    with pytest.raises(ModelError, match="this worker differs from its run in ") as caught:
        Worker.load(real.spec.model_copy(update=change))
    assert shown in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_other_weights_under_the_same_name_are_found(real: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    def loaded(name: str, _: object) -> Any:
        classifier = load_classifier(name)
        with torch.no_grad():
            next(classifier.network.parameters()).add_(1e-3)
        return classifier

    monkeypatch.setattr("attnshift.execution.worker.load_surrogate", loaded)
    with pytest.raises(ModelError, match=f"weights.{SURROGATE}: "):
        Worker.load(real.spec)


@pytest.mark.parametrize("gigabytes", [0.0, 0.4, -1.0, 1e6, float("nan"), float("inf")])
def test_a_limit_that_cannot_be_meant(gigabytes: float) -> None:
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with pytest.raises(
        UserError, match=r"`memory_limit` is .*; it is in gigabytes and must lie between 0.5 and 100000"
    ):
        limit_memory(gigabytes)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


def test_a_system_without_limits_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "resource", None)
    with pytest.raises(UserError, match="`memory_limit` cannot be set: this system has no limit on the memory"):
        limit_memory(4)


LIMITED = """
import sys, torch
from attnshift.execution.memory import limit_memory
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from doubles import items_of, painted

def large(tasks):
    # 300 MB an image, in the allocator that the attack uses.
    torch.empty(len(tasks), 300_000_000, dtype=torch.uint8).fill_(1)

prepared = painted(Path(sys.argv[2]), 7, large)
used = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmData:")) * 1024
limit_memory(max(0.5, (used + 700_000_000) / 1e9))
items = list(prepared.plan)
print(*[each.row.batch for each in prepared.worker.attack(items, [item.id for item in items])])
"""


@pytest.mark.heavy
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not say how much is in use")
def test_a_limit_lets_memory_run_out_in_the_process(cards: Path) -> None:
    """Seven images take 2.1 GB, and there are 0.7."""
    command = [sys.executable, "-c", LIMITED, str(Path(__file__).parents[1]), str(cards)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.stdout.split() == ["2", "2", "2", "2", "2", "2", "1"], ended.stderr
