"""Runs that end badly: killed at any moment, without room on the disk, with images that cannot be attacked."""

from __future__ import annotations

import errno
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest
import torch
from torch import Tensor, nn

from attnshift.cli import main
from attnshift.data.images import read_image
from attnshift.errors import RunError
from attnshift.execution.coordinate import RunOptions, attack_prepared
from attnshift.execution.prepare import PreparedRun, prepare_run
from attnshift.execution.worker import NOT_FINITE
from attnshift.results.ledger import DEATHS, read_history
from attnshift.results.plan import Shard
from attnshift.results.status import read_status
from attnshift.results.store import Store, finished_rows
from doubles import items_of, killing, painted, write_cards
from forked import fork, killed_by_itself
from ledgers import events
from small_runs import SIDE, SURROGATE, Told, pixels, pngs, small_settings, write_photos
from tables import records, untimed
from tiers import fast_first

if TYPE_CHECKING:
    from attnshift.attack.prepare import Task

resource = pytest.importorskip("resource")

PARTS = 4
"""Into so many tests the moments of a run are dealt out: together they are all, and each test is short."""
FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("four")
    write_photos(folder, 4)
    return folder


@pytest.fixture(scope="module")
def tiny(four: Path, pipeline_folder: Path) -> PreparedRun:
    """A real attack, in two batches: one denoising step and one iteration."""
    changes = ("diffusion.denoising_steps=1", "optimiser.iterations=1", "finish.early=false")
    return prepare_run(small_settings(four, pipeline_folder, Path(), *changes))


@dataclass(frozen=True)
class Whole:
    """An undisturbed run and how long it took."""

    store: Store
    seconds: float


@pytest.fixture(scope="module")
def whole(tiny: PreparedRun, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    out, begun = tmp_path_factory.mktemp("whole") / "run", time.monotonic()
    assert fork(partial(attack_prepared, tiny, out)).wait() == 0
    return Whole(Store.open(out), time.monotonic() - begun)


@pytest.fixture(scope="module")
def cards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five images: two batches of two, and a last one."""
    return write_cards(tmp_path_factory.mktemp("cards"), 5)


@pytest.fixture(scope="module")
def cheap(cards: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """An undisturbed run on ``cards``."""
    return attack_prepared(painted(cards), tmp_path_factory.mktemp("cheap") / "run")


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three images: a batch of two, and a last one."""
    return write_cards(tmp_path_factory.mktemp("few"), 3)


@pytest.fixture(scope="module")
def undisturbed(few: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A run on ``few`` to which nothing happens."""
    return attack_prepared(painted(few), tmp_path_factory.mktemp("undisturbed") / "run")


def partials(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.name.endswith(".partial")]


def assert_whole(out: Path, undisturbed: Store) -> None:
    """``out`` holds what the undisturbed run holds, and nothing is left of what went wrong."""
    store = Store.open(out)
    assert pngs(out) == pngs(undisturbed.folder)
    assert untimed(store) == untimed(undisturbed)
    assert records(store, "failed") == []
    assert partials(out) == []
    status = read_status(out)
    assert (status.left, status.failed, status.troubled, status.working) == (0, (), {}, False)


@pytest.mark.heavy
@pytest.mark.parametrize("seed", range(8))
def test_killed_at_a_random_moment(tiny: PreparedRun, whole: Whole, tmp_path: Path, seed: int) -> None:
    out = tmp_path / "run"
    child = fork(partial(attack_prepared, tiny, out))
    time.sleep(random.Random(f"kill {seed}").uniform(0, whole.seconds))
    child.kill()
    assert child.wait() in (0, -signal.SIGKILL)
    assert fork(partial(attack_prepared, tiny, out)).wait() == 0
    assert_whole(out, whole.store)
    assert max(read_history(out).deaths.values(), default=0) <= 1


def at_call(patch: pytest.MonkeyPatch, number: int, do: Callable[[int | None], object]) -> list[str]:
    """Before the ``number``-th sync or rename, from 0, ``do`` something; return the names of all calls, as they come.

    ``do`` is given the file that is to be synced.
    """
    made: list[str] = []

    def counted(name: str) -> Callable[..., Any]:
        original = getattr(os, name)

        def call(*arguments: Any) -> Any:
            made.append(name)
            if len(made) == number + 1:
                do(arguments[0] if name == "fsync" else None)
            return original(*arguments)

        return call

    for name in ("fsync", "replace"):
        patch.setattr(os, name, counted(name))
    return made


@pytest.fixture(scope="module")
def calls(few: Path, tmp_path_factory: pytest.TempPathFactory) -> int:
    """How many syncs and renames an undisturbed run makes."""
    with pytest.MonkeyPatch.context() as patch:
        made = at_call(patch, -1, lambda file: None)
        attack_prepared(painted(few), tmp_path_factory.mktemp("counted") / "run")
    # Plan, recipe, run; two images and a row for each item; two events for each batch; the table.
    writes = 3 + 3 * 3 + 1
    assert Counter(made) == {"fsync": 2 * writes + 2 * 2, "replace": writes}
    return len(made)


def cut_and_killed(file: int | None) -> NoReturn:
    """As if the machine had died before the end of the file was on the disk."""
    if file is not None:
        with suppress(OSError):
            os.ftruncate(file, max(os.fstat(file).st_size - 9, 0))
    killed_by_itself()


@pytest.mark.parametrize("part", fast_first(range(PARTS)))
def test_killed_before_every_sync_and_rename(
    few: Path, undisturbed: Store, calls: int, tmp_path: Path, part: int
) -> None:
    prepared = painted(few)
    for number in range(part, calls, PARTS):
        out = tmp_path / f"run-{number}"

        def run(number: int = number, out: Path = out) -> None:
            with pytest.MonkeyPatch.context() as patch:
                at_call(patch, number, cut_and_killed)
                attack_prepared(prepared, out)

        assert fork(run).wait() == -signal.SIGKILL, number
        attack_prepared(prepared, out)
        assert_whole(out, undisturbed)


def full(file: int | None) -> NoReturn:
    if file is not None:
        with suppress(OSError):
            os.ftruncate(file, max(os.fstat(file).st_size - 9, 0))
    raise FULL


@pytest.mark.parametrize("part", fast_first(range(PARTS), 2))
def test_a_disk_that_is_full_at_any_moment(
    few: Path, undisturbed: Store, calls: int, tmp_path: Path, part: int
) -> None:
    for number in range(part, calls, PARTS):
        out = tmp_path / f"run-{number}"
        with pytest.MonkeyPatch.context() as patch:
            at_call(patch, number, full)
            with pytest.raises(RunError) as caught:
                attack_prepared(painted(few), out)
        (line,) = str(caught.value).splitlines()
        assert line.startswith(f"cannot write to {out}/")
        assert line.endswith("No space left on device; free some and run the same command again")
        assert partials(out) == []
        attack_prepared(painted(few), out)
        assert_whole(out, undisturbed)


@pytest.mark.parametrize("place", range(5))
def test_no_image_is_blamed_for_a_full_disk(cards: Path, cheap: Store, tmp_path: Path, place: int) -> None:
    """Not if it is full time and again where that image is stored; the first call is the ledger's."""
    Store.start(tmp_path, painted(cards).worker.spec, painted(cards).plan)
    for _ in range(3 * DEATHS):
        with pytest.MonkeyPatch.context() as patch:
            at_call(patch, place, full)
            with pytest.raises(RunError):
                attack_prepared(painted(cards), tmp_path)
        assert not read_history(tmp_path).deaths
    attack_prepared(painted(cards), tmp_path)
    assert_whole(tmp_path, cheap)


@pytest.mark.parametrize("most", fast_first([60, 600, 150, 200, 3000], 2))
def test_a_file_that_grows_no_further(cards: Path, cheap: Store, tmp_path: Path, most: int) -> None:
    """The kernel itself cuts the write: of run.json, of a ledger, of an image, of a table."""
    out, prepared = tmp_path / "run", painted(cards)

    def run() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))
        with pytest.raises(RunError, match=r"cannot write to .*: File too large; "):
            attack_prepared(prepared, out)

    for _ in range(DEATHS + 1):
        assert fork(run).wait() == 0
        assert partials(out) == []
    attack_prepared(painted(cards), out)
    assert_whole(out, cheap)


class Command:
    """``attnshift attack`` on ``cards`` with the double's work, in this process."""

    def __init__(self, patch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str], cards: Path, out: Path):
        self.patch, self.capture, self.cards, self.out = patch, capture, cards, out
        self.before: Callable[[Sequence[Task]], None] = lambda tasks: None
        self.planned: Callable[[], object] = lambda: None
        self.batch = 2
        patch.setattr("attnshift.execution.coordinate.prepare_run", self._prepare)

    def __call__(self, *more: str) -> tuple[int, list[str]]:
        """Its exit status, and its lines on standard error but for the hint at what comes next."""
        given = ["--labels", str(self.cards / "labels.csv"), "--surrogate", SURROGATE, "--out", str(self.out)]
        self.patch.setattr(sys, "argv", ["attnshift", "attack", str(self.cards / "images"), *given, *more])
        with pytest.raises(SystemExit) as caught:
            main()
        lines = self.capture.readouterr().err.splitlines()
        return int(caught.value.code or 0), [line for line in lines if line.startswith("attnshift: ")]

    def _prepare(self, settings: Any, here: str = "") -> PreparedRun:
        prepared = painted(self.cards, self.batch, self.before)
        self.planned()
        return prepared


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Iterator[Command]:
    """On cards of its own."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield Command(monkeypatch, capsys, write_cards(tmp_path / "cards", 5), tmp_path / "run")
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_full_disk_is_one_line(command: Command) -> None:
    with pytest.MonkeyPatch.context() as patch:
        at_call(patch, 30, full)
        status, (line,) = command()
    assert status == 2
    assert f"cannot write to {command.out}" in line
    assert command() == (0, [])


@pytest.mark.parametrize("refused", ["locks", "file", "folder", "ledger"])
def test_a_place_where_nothing_can_be_written_is_one_line(command: Command, refused: str) -> None:
    frozen = OSError(errno.EROFS, os.strerror(errno.EROFS))
    opened, made, os_open = Path.open, Path.mkdir, os.open

    def path_open(path: Path, mode: str = "r", *rest: Any, **named: Any) -> Any:
        where = "ledger" if path.suffix == ".jsonl" else "file"
        if path.is_relative_to(command.out) and mode != "rb" and refused == where:
            raise frozen
        return opened(path, mode, *rest, **named)

    def mkdir(path: Path, *rest: Any, **named: Any) -> None:
        if refused == "folder":
            raise frozen
        made(path, *rest, **named)

    def low_open(path: Any, flags: int, *rest: Any, **named: Any) -> int:
        if refused == "locks" and flags & os.O_RDWR and str(path).endswith(".process"):
            raise frozen
        return os_open(path, flags, *rest, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "open", path_open)
        patch.setattr(Path, "mkdir", mkdir)
        patch.setattr(os, "open", low_open)
        status, (line,) = command()
    assert status == 2
    assert "cannot write to" in line
    assert "Read-only file system" in line
    assert partials(command.out) == []
    assert command() == (0, [])


def spoilt(command: Command, number: int) -> Path:
    path = command.cards / "images" / f"card-{number}.png"
    path.write_bytes(path.read_bytes()[:60])
    return path


def test_a_corrupt_image_fails_alone(command: Command) -> None:
    sound = (command.cards / "images" / "card-1.png").read_bytes()
    path = spoilt(command, 1)
    status, (line,) = command()
    assert status == 1
    assert line.startswith("attnshift: 1 image failed; ")
    assert f"attnshift status {command.out}" in line
    store = Store.open(command.out)
    (failed,) = records(store, "failed")
    assert failed["file"] == "card-1.png"
    assert failed["label"] == 1
    assert "not a readable image" in failed["reason"]
    assert [row["file"] for row in records(store, "results")] == [f"card-{number}.png" for number in (0, 2, 3, 4)]
    before = events(command.out)
    assert command() == (1, [line])
    assert events(command.out) == before, "what failed is not tried again"
    assert command("--retry-failed")[0] == 1
    assert len(events(command.out)) == len(before) + 2
    path.write_bytes(sound)
    assert command() == (0, [])
    assert sorted(row["file"] for row in records(store, "results")) == [f"card-{number}.png" for number in range(5)]


@pytest.mark.parametrize(
    ("most", "status"), [("0", 1), ("1", 1), ("2", 0), ("39.9%", 1), ("40%", 0), ("100%", 0), ("0%", 1)]
)
def test_some_images_may_fail(command: Command, most: str, status: int) -> None:
    """Two of five do; the run goes on to its end in any case."""
    for number in (1, 4):
        spoilt(command, number)
    ended, (line,) = command("--max-failed", most)
    assert ended == status
    shown = "" if most == "0" else f", {'more than' if status else 'within'} --max-failed, {most}"
    assert line.startswith(f"attnshift: 2 images failed{shown}; attnshift status {command.out} says why")
    assert len(records(Store.open(command.out), "results")) == 3


@pytest.mark.parametrize("most", ["", "%", "-1", "1.5", "101%", "1e2", "one", "nan", "1 %", ".", ".%", "\u0661"])
def test_a_tolerance_that_is_none(command: Command, most: str) -> None:
    status, (line,) = command("--max-failed", most)
    assert (status, command.out.exists()) == (2, False)
    assert line == (
        f"attnshift: --max-failed is {most}; expected a number of images, such as 20, or a share, such as 1%"
    )


def test_what_failed_for_a_while_is_tried_again_when_asked(command: Command) -> None:
    path = command.cards / "images" / "card-3.png"
    sound, command.planned = path.read_bytes(), path.unlink
    assert command()[0] == 1
    path.write_bytes(sound)
    command.planned = lambda: None
    assert command()[0] == 1, "not without being asked"
    assert command("--retry-failed") == (0, [])
    store = Store.open(command.out)
    assert len(records(store, "results")) == 5
    assert not (command.out / "failed.parquet").exists()
    assert read_status(command.out).failed == ()
    assert command() == (0, [])


def test_an_image_that_changes_after_the_plan_fails_alone(command: Command, cheap: Store) -> None:
    command.planned = lambda: spoilt(command, 4)
    assert command()[0] == 1
    (failed,) = records(Store.open(command.out), "failed")
    assert failed["file"] == "card-4.png"
    assert "changed since the run was planned" in failed["reason"]
    left = {name: digest for name, digest in pngs(cheap.folder).items() if failed["id"] not in name}
    assert pngs(command.out) == left


class Overflowing(nn.Module):
    """Gives NaN for what is nearest to the ``chosen`` of the ``inputs``."""

    def __init__(self, network: nn.Module, inputs: Tensor, chosen: int):
        super().__init__()
        self.network, self.inputs, self.chosen = network, inputs, chosen

    def forward(self, images: Tensor) -> Tensor:
        logits = self.network(images)
        nearest = torch.cdist(images.flatten(1), self.inputs.flatten(1)).argmin(1)
        return torch.where((nearest == self.chosen)[:, None], torch.nan, logits)


@pytest.mark.heavy
@pytest.mark.parametrize("chosen", fast_first([3, 0]))
def test_an_image_that_overflows_fails_alone(
    tiny: PreparedRun, whole: Whole, four: Path, tmp_path: Path, chosen: int
) -> None:
    (classifier,), items = tiny.worker.classifiers, list(tiny.plan)
    images = torch.stack([read_image(four / "images" / item.file, SIDE) for item in items])
    network = Overflowing(classifier.network, classifier.preprocessing(images), chosen)
    worker = replace(tiny.worker, classifiers=[replace(classifier, network=network)])
    store = attack_prepared(replace(tiny, worker=worker), tmp_path / "run")
    (failed,) = records(store, "failed")
    assert (failed["id"], failed["reason"]) == (items[chosen].id, NOT_FINITE)
    others = {name: digest for name, digest in pngs(whole.store.folder).items() if failed["id"] not in name}
    assert pngs(store.folder) == others
    assert untimed(store) == [row for row in untimed(whole.store) if row["id"] != failed["id"]]


def test_two_processes_share_a_real_run(tiny: PreparedRun, whole: Whole, tmp_path: Path) -> None:
    out = tmp_path / "run"
    children = [fork(partial(attack_prepared, tiny, out)) for _ in range(2)]
    assert [child.wait() for child in children] == [0, 0]
    assert_whole(out, whole.store)
    assert set(begun(out).values()) == {1}


def begun(out: Path) -> Counter[str]:
    """How often each item was begun."""
    return Counter(item for event in events(out) if event["event"] == "begun" for item in event["items"])


@pytest.mark.heavy
def test_each_of_two_processes_does_what_the_other_does_not(cards: Path, cheap: Store, tmp_path: Path) -> None:
    """Both start at the same moment in a folder that is not there, time and again."""
    for number in range(8):
        out = tmp_path / f"run-{number}"

        def until_both_work(tasks: Sequence[Task], out: Path = out) -> None:
            last = time.monotonic() + 30
            while len(list((out / "ledger").iterdir())) < 2:
                assert time.monotonic() < last, "nobody else came"

        prepared = painted(cards, 2, until_both_work)
        children = [fork(partial(attack_prepared, prepared, out)) for _ in range(2)]
        assert [child.wait() for child in children] == [0, 0]
        assert_whole(out, cheap)
        assert set(begun(out).values()) == {1}
        assert len(list((out / "ledger").iterdir())) == 2


def test_two_different_runs_do_not_both_get_a_new_folder(
    cards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both have seen that nothing is there before one of them writes."""
    declare = Store._declare

    def slowly(*arguments: Any) -> None:
        time.sleep(0.3)
        declare(*arguments)

    monkeypatch.setattr(Store, "_declare", slowly)
    both = painted(cards, 1), painted(cards, 2)
    children = [fork(partial(attack_prepared, prepared, tmp_path / "run")) for prepared in both]
    assert sorted(child.wait() for child in children) == [0, 1]
    assert len(records(Store.open(tmp_path / "run"), "results")) == 5


@pytest.mark.parametrize("first", fast_first([1, 0]))
def test_shards_make_one_run(tiny: PreparedRun, whole: Whole, tmp_path: Path, first: int) -> None:
    out = tmp_path / "run"
    store = attack_prepared(tiny, out, options=RunOptions(shard=Shard(first, 2)))
    assert len(records(store, "results")) == 2
    attack_prepared(tiny, out, options=RunOptions(shard=Shard(1 - first, 2)))
    assert_whole(out, whole.store)


def again_and_again(run: Callable[[], object], most: int = 10) -> int:
    """Run until it ends well; return how often it was killed."""
    for times in range(most):
        status = fork(run).wait()
        if status == 0:
            return times
        assert status == -signal.SIGKILL
    raise AssertionError(f"still killed after {most} times")


@pytest.mark.parametrize(
    ("batch", "place", "times"), fast_first([(2, 3, 4), (1, 1, 3), (2, 2, 4), (2, 4, 3), (5, 0, 4)])
)
def test_what_always_kills_its_process_is_left_out(
    cards: Path, cheap: Store, tmp_path: Path, batch: int, place: int, times: int
) -> None:
    out, killer = tmp_path / "run", items_of(cards)[place]
    run = partial(attack_prepared, painted(cards, batch, killing(killer.id)), out)
    assert again_and_again(run) == times
    store, status = Store.open(out), read_status(out)
    (failed,) = status.failed
    assert (failed.file, status.left, status.troubled) == (killer.file, 0, {})
    assert f"ended its worker {times} times" in failed.reason
    assert "`retry_failed`" in failed.reason
    assert [row["id"] for row in records(store, "failed")] == [killer.id]
    done = {row["id"]: row["batch"] for row in records(store, "results")}
    assert set(done) == {item.id for item in items_of(cards)} - {killer.id}
    for id in done:
        assert pixels(store.image_path(id, "attack")) == pixels(cheap.image_path(id, "attack"))
    assert fork(run).wait() == 0, "it is left alone"
    retry = partial(attack_prepared, painted(cards, batch, killing(killer.id)), out, None)
    assert fork(partial(retry, RunOptions(retry_failed=True))).wait() == -signal.SIGKILL
    assert fork(run).wait() == 0, "only when asked"
    attack_prepared(painted(cards, batch), out, options=RunOptions(retry_failed=True))
    assert len(records(store, "results")) == 5
    assert read_status(out).failed == ()


def test_what_is_left_out_was_tried_as_often_as_it_says(cards: Path, tmp_path: Path) -> None:
    killer = items_of(cards)[1]
    prepared = painted(cards, 1, killing(killer.id))
    for _ in range(3):
        assert fork(partial(attack_prepared, prepared, tmp_path / "run")).wait() == -signal.SIGKILL
    told = Told()
    attack_prepared(prepared, tmp_path / "run", told.telemetry())
    assert [(event.id, event.attempts) for event in told.failed] == [(killer.id, 3)]


def test_troubled_images_are_shown(cards: Path, tmp_path: Path) -> None:
    killer = items_of(cards)[3]
    run = partial(attack_prepared, painted(cards, 2, killing(killer.id)), tmp_path)
    for times in (1, 2):
        assert fork(run).wait() == -signal.SIGKILL
        assert read_status(tmp_path).troubled == {"card-2.png": times, "card-3.png": times}


def test_a_run_that_is_not_at_its_end_has_no_table_to_judge(cards: Path, tmp_path: Path) -> None:
    run = partial(attack_prepared, painted(cards, 2, killing(items_of(cards)[3].id)), tmp_path)
    assert fork(run).wait() == -signal.SIGKILL
    with pytest.raises(RunError, match=f"{tmp_path} has 2 finished images and no table of them yet; run its attack"):
        finished_rows(Store.open(tmp_path))


@pytest.mark.parametrize(("number", "status"), fast_first([(signal.SIGINT, 130), (signal.SIGTERM, 143)]))
def test_what_is_stopped_on_purpose_is_blamed_for_nothing(
    command: Command, cheap: Store, calls: int, number: signal.Signals, status: int
) -> None:
    """In the work, and before every sync and rename."""
    command.before = killing(items_of(command.cards)[2].id, number)
    for _ in range(DEATHS + 1):
        ended, (line,) = command()
        assert ended == status
        assert "the same command continues" in line
        assert not read_history(command.out).deaths
    command.before = lambda tasks: None
    for place in range(0, calls, 2):
        with pytest.MonkeyPatch.context() as patch:
            at_call(patch, place % 5, lambda file: signal.raise_signal(number))
            assert command()[0] in (0, status)
        assert not read_history(command.out).deaths
        assert not read_history(command.out).failed
    assert command() == (0, [])
    assert_whole(command.out, cheap)
