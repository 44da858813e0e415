"""Runs that are mended and that grow: files are replaced, rows added and removed, and nothing that is done is lost."""

from __future__ import annotations

import os
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from attnshift.errors import RunError
from attnshift.execution.coordinate import RunOptions, attack_prepared
from attnshift.results.generations import generations_of
from attnshift.results.ledger import read_history
from attnshift.results.locks import Claims
from attnshift.results.plan import Generation, Plan, Shard
from attnshift.results.rows import FailedRow
from attnshift.results.run import open_run
from attnshift.results.status import read_status
from attnshift.results.store import Store
from doubles import Hook, items_of, killing, nothing, painted, write_cards
from forked import fork, killed_by_itself
from ledgers import events
from small_runs import Told, contents, pngs, write_labels
from tables import records, untimed
from tiers import fast_first

if TYPE_CHECKING:
    from attnshift.attack.prepare import Task
    from attnshift.execution.prepare import PreparedRun

PARTS = 5
"""Into so many tests the moments of a run are dealt out: together they are all, and each test is short."""
BROKEN = (2, 3, 9)
"""One alone in its micro-batch, and both of another."""


@pytest.fixture
def cards(tmp_path: Path) -> Path:
    """Fourteen images, three of them broken: seven micro-batches of two."""
    folder = write_cards(tmp_path / "cards", 14)
    for number in BROKEN:
        card(folder, number).write_bytes(b"no image %d" % number)
    return folder


def card(folder: Path, number: int) -> Path:
    return folder / "images" / f"card-{number}.png"


def mend(cards: Path, numbers: Sequence[int] = BROKEN) -> None:
    whole = write_cards(cards.parent / f"whole-{len(list(cards.parent.iterdir()))}", 14)
    for number in numbers:
        card(whole, number).replace(card(cards, number))


def listed(cards: Path, numbers: Sequence[int]) -> None:
    write_labels(cards, [(f"card-{number}.png", number, "card") for number in numbers])


def done(out: Path) -> dict[str, str]:
    """Digests of the images and rows that are finished."""
    return {name: digest for name, digest in contents(out).items() if name.startswith(("images/", "items/"))}


def names(out: Path) -> list[str]:
    return [row["file"] for row in records(Store.open(out), "results")]


def limited(cards: Path, limit: int, before: Hook = nothing) -> PreparedRun:
    """A run on the first so many images."""
    prepared = painted(cards, 2, before)
    plan = Plan.draw(islice(prepared.plan, limit))
    spec = prepared.worker.spec.model_copy(update={"items": plan.digest})
    return replace(prepared, plan=plan, worker=replace(prepared.worker, spec=spec))


def assert_at_rest(out: Path, images: int, failed: int = 0) -> None:
    status = read_status(out)
    assert (status.images, status.done, status.left, len(status.failed)) == (images, images - failed, 0, failed)
    assert (status.troubled, status.working) == ({}, False)
    assert not list(out.rglob("*.partial"))


@pytest.mark.parametrize("retry", [False, True])
def test_files_that_are_replaced_are_taken_in(cards: Path, tmp_path: Path, retry: bool) -> None:
    out = tmp_path / "run"
    store = attack_prepared(painted(cards), out)
    assert_at_rest(out, 14, failed=3)
    before, first = done(out), contents(out)
    assert len(names(out)) == 11
    mend(cards)
    told = Told()
    attack_prepared(painted(cards), out, told.telemetry(), RunOptions(retry_failed=retry))
    assert [event.file for event in told.done] == ["card-2.png", "card-3.png", "card-9.png"]
    assert_at_rest(out, 14)
    assert {name: digest for name, digest in done(out).items() if name in before} == before
    assert all(contents(out)[name] == first[name] for name in ("run.json", "recipe.toml", "plan.parquet"))
    assert names(out) == [f"card-{number}.png" for number in (0, 1, *range(4, 9), *range(10, 14), 2, 3, 9)]
    assert store.table(FailedRow) == []
    assert generations_of(out) == (Generation(0, 14), Generation(1, 14, added=3, removed=3))
    assert {row["run"] for row in records(store, "results")} == {store.spec().digest}
    again = contents(out)
    attack_prepared(painted(cards), out)
    assert contents(out) == again, "it is finished"


def test_new_images_form_micro_batches_of_their_own(cards: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    attack_prepared(painted(cards), out)
    mend(cards)
    seen: list[tuple[str, ...]] = []
    attack_prepared(painted(cards, before=lambda tasks: seen.append(tuple(task.id for task in tasks))), out)
    by_file = {item.file: item.id for item in items_of(cards)}
    assert seen == [(by_file["card-2.png"], by_file["card-3.png"]), (by_file["card-9.png"],)]


def test_some_stay_broken(cards: Path, tmp_path: Path) -> None:
    """They failed, and are not tried again without being asked."""
    out = tmp_path / "run"
    attack_prepared(painted(cards), out)
    mend(cards, [3])
    told = Told()
    attack_prepared(painted(cards), out, told.telemetry())
    assert ([event.file for event in told.done], told.failed) == (["card-3.png"], [])
    assert_at_rest(out, 14, failed=2)
    attack_prepared(painted(cards), out, told.telemetry(), RunOptions(retry_failed=True))
    assert [event.file for event in told.failed] == ["card-2.png", "card-9.png"]


def test_rows_that_are_removed_leave_the_tables(cards: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    attack_prepared(painted(cards), out)
    before = done(out)
    kept = [number for number in range(14) if number not in (*BROKEN, 5)]
    listed(cards, kept)
    attack_prepared(painted(cards), out)
    assert done(out) == before, "what is done stays on the disk"
    assert names(out) == [f"card-{number}.png" for number in kept]
    assert_at_rest(out, 10)
    listed(cards, [*kept, 5])
    attack_prepared(painted(cards), out)
    assert names(out) == [f"card-{number}.png" for number in sorted([*kept, 5])]
    assert done(out) == before
    assert [each.removed for each in generations_of(out)] == [0, 4, 0]


def test_a_run_whose_images_are_all_removed_or_unfinished_has_no_results(cards: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    listed(cards, [0, 2])
    attack_prepared(painted(cards), out)
    listed(cards, [2])
    store = attack_prepared(painted(cards), out)
    assert records(store, "results") == []
    assert [row["file"] for row in records(store, "failed")] == ["card-2.png"]


def test_rows_that_are_added_come_last(cards: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    listed(cards, [4, 6, 8])
    attack_prepared(painted(cards), out)
    before = done(out)
    listed(cards, [0, 4, 1, 6, 8])
    attack_prepared(painted(cards), out)
    assert names(out) == ["card-4.png", "card-6.png", "card-8.png", "card-0.png", "card-1.png"]
    assert before.items() <= done(out).items()


def test_a_trial_grows_into_the_whole_run(cards: Path, tmp_path: Path) -> None:
    """Its micro-batches are those of a run that began whole, so that all is the same but the run's name."""
    mend(cards)
    trial, whole = tmp_path / "trial", tmp_path / "whole"
    attack_prepared(limited(cards, 8), trial)
    before = done(trial)
    attack_prepared(limited(cards, 11), trial)
    attack_prepared(painted(cards), trial)
    attack_prepared(painted(cards), whole)
    assert before.items() <= done(trial).items()
    assert names(trial) == names(whole)
    assert_at_rest(trial, 14)
    shown = [(len(names(out)), {row["key"] for row in records(Store.open(out), "results")}) for out in (trial, whole)]
    assert shown[0] == shown[1]
    assert [each.added for each in generations_of(trial)] == [0, 3, 3]


def test_another_order_is_the_same_list(cards: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    mend(cards)
    attack_prepared(limited(cards, 4), out)
    before = contents(out)
    listed(cards, [3, 1, 0, 2])
    attack_prepared(painted(cards), out)
    assert contents(out) == before


def test_other_images_are_another_run(cards: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    listed(cards, [0, 1])
    attack_prepared(painted(cards), out)
    before = contents(out)
    listed(cards, [4, 5])
    with pytest.raises(RunError, match="holds another run: none of these images belongs to it"):
        attack_prepared(painted(cards), out)
    assert contents(out) == before


def test_a_run_that_has_finished_nothing_takes_any_images(cards: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    listed(cards, [2])
    attack_prepared(painted(cards), out)
    mend(cards)
    attack_prepared(painted(cards), out)
    assert names(out) == ["card-2.png"]


def test_what_else_differs_is_refused_also_with_a_new_list(cards: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    attack_prepared(painted(cards), out)
    mend(cards)
    before = contents(out)
    with pytest.raises(RunError, match="holds another run; this one differs in batch: 3, not 2"):
        attack_prepared(painted(cards, 3), out)
    assert contents(out) == before


def test_shards_share_a_new_generation(cards: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    attack_prepared(painted(cards), out)
    mend(cards)
    attack_prepared(painted(cards), out, options=RunOptions(shard=Shard(0, 2)))
    assert read_status(out).left in (1, 2)
    attack_prepared(painted(cards), out, options=RunOptions(shard=Shard(1, 2)))
    assert_at_rest(out, 14)


def test_counts_of_a_command_are_those_of_its_list(cards: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    attack_prepared(painted(cards), out)
    listed(cards, [0, 1, 2, 3])
    mend(cards)
    begun: list[Any] = []
    told = Told()
    hear = told.__call__

    class Begun(Told):
        def __call__(self, event: Any) -> None:
            begun.append(event)
            hear(event)

    attack_prepared(painted(cards), out, Begun().telemetry())
    first = begun[0]
    assert (first.images, first.done) == (4, 2)
    assert first.notes == ("generation 1 of the list of images: 2 images added, 12 removed",)
    assert first.run == Store.open(out).spec().digest


def at_call(patch: pytest.MonkeyPatch, number: int) -> list[str]:
    """Die before the ``number``-th sync or rename, from 0; return the names of all calls, as they come."""
    made: list[str] = []

    def counted(name: str) -> Callable[..., Any]:
        original = getattr(os, name)

        def call(*arguments: Any) -> Any:
            made.append(name)
            if len(made) == number + 1:
                killed_by_itself()
            return original(*arguments)

        return call

    for name in ("fsync", "replace"):
        patch.setattr(os, name, counted(name))
    return made


@pytest.mark.parametrize("part", fast_first(range(PARTS)))
def test_killed_before_every_sync_and_rename_of_a_second_generation(cards: Path, tmp_path: Path, part: int) -> None:
    """The second generation then ends with the bytes of an undisturbed one."""
    first, undisturbed = tmp_path / "first", tmp_path / "undisturbed"
    listed(cards, [0, 1, 2, 3])
    attack_prepared(painted(cards), first)
    shutil.copytree(first, undisturbed)
    listed(cards, [0, 2, 3, 4])
    mend(cards)
    prepared = painted(cards)
    with pytest.MonkeyPatch.context() as patch:
        made = at_call(patch, -1)
        attack_prepared(prepared, undisturbed)
        calls = len(made)
    assert calls > 20
    for number in range(part, calls, PARTS):
        out = tmp_path / f"run-{number}"
        shutil.copytree(first, out)

        def run(number: int = number, out: Path = out) -> None:
            with pytest.MonkeyPatch.context() as patch:
                at_call(patch, number)
                attack_prepared(prepared, out)

        assert fork(run).wait() == -signal.SIGKILL, number
        attack_prepared(prepared, out)
        assert_at_rest(out, 4)
        assert pngs(out) == pngs(undisturbed)
        assert untimed(Store.open(out)) == untimed(Store.open(undisturbed))
        assert (out / "plan.1.parquet").read_bytes() == (undisturbed / "plan.1.parquet").read_bytes()
        assert len(generations_of(out)) == 2


def test_a_first_generation_that_was_killed_is_finished_by_the_second(cards: Path, tmp_path: Path) -> None:
    """A removed image is no mate of those that are left of its micro-batch."""
    out, victim = tmp_path / "run", items_of(cards)[8].id
    assert fork(partial(attack_prepared, painted(cards, 2, killing(victim)), out)).wait() == -signal.SIGKILL
    before = done(out)
    mend(cards)
    together: list[int] = []
    attack_prepared(painted(cards, before=lambda tasks: together.append(len(tasks))), out)
    assert together == [1, 2, 2, 2, 1], "card-8 alone; 10 to 13; 2 and 3; 9"
    assert before.items() <= done(out).items()
    assert_at_rest(out, 14)


def test_an_older_command_finishes_what_it_has_begun_and_stops(cards: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"

    def meanwhile(tasks: Sequence[Task]) -> None:
        """The list is mended while the first micro-batch is in work."""
        if not (out / "plan.1.parquet").exists():
            mend(cards)
            assert fork(partial(attack_prepared, painted(cards), out)).wait() == 0

    with pytest.raises(RunError, match=r"has got a newer list of images; this command has finished what it had begun"):
        attack_prepared(painted(cards, 2, meanwhile), out)
    assert_at_rest(out, 14)
    assert len(names(out)) == 14, "the tables are those of the newer list"
    assert len(generations_of(out)) == 2
    begun = Counter(each for event in events(out) if event["event"] == "begun" for each in event["items"])
    assert set(begun.values()) == {1}


def test_an_older_list_does_not_undo_a_newer_one_at_work(cards: Path, tmp_path: Path) -> None:
    """Nobody knows that it was given before; where nobody works, it is taken as what is wanted now."""
    out = tmp_path / "run"
    mend(cards)
    attack_prepared(limited(cards, 4), out)
    attack_prepared(limited(cards, 6), out)
    with Claims(out) as claims:
        assert claims.acquire(3)
        with pytest.raises(RunError, match=r"works on a newer list .*1, and this is the list of generation 0"):
            attack_prepared(limited(cards, 4), out)
        assert len(generations_of(out)) == 2
    attack_prepared(limited(cards, 4), out)
    assert names(out) == [f"card-{number}.png" for number in range(4)]
    assert generations_of(out)[2] == Generation(2, 4, added=0, removed=2)


def test_two_commands_take_in_one_list_once(cards: Path, tmp_path: Path) -> None:
    for number in range(2):
        out = tmp_path / f"run-{number}"
        listed(cards, [0, 1, 4, 5])
        attack_prepared(painted(cards), out)
        listed(cards, [0, 1, 4, 6, 7, 8, 10])
        prepared = painted(cards)
        children = [fork(partial(attack_prepared, prepared, out)) for _ in range(2)]
        assert [child.wait() for child in children] == [0, 0]
        assert len(generations_of(out)) == 2
        assert_at_rest(out, 7)
        begun = Counter(each for event in events(out) if event["event"] == "begun" for each in event["items"])
        assert set(begun.values()) == {1}


def test_two_new_lists_at_once_become_two_generations(cards: Path, tmp_path: Path) -> None:
    """Whoever comes first is overtaken, or done before; what the run then lacks, its list's next command does."""
    out = tmp_path / "run"
    attack_prepared(limited(cards, 2), out)
    mend(cards)
    both = limited(cards, 10), painted(cards)
    children = [fork(partial(attack_prepared, prepared, out)) for prepared in both]
    assert {child.wait() for child in children} <= {0, 1}
    assert len(generations_of(out)) == 3
    attack_prepared(both[1], out)
    assert_at_rest(out, 14)
    assert not read_history(out).deaths


def test_a_run_tells_its_generations(cards: Path, tmp_path: Path) -> None:
    attack_prepared(limited(cards, 2), tmp_path / "run")
    attack_prepared(limited(cards, 5), tmp_path / "run")
    assert [each.images for each in open_run(tmp_path / "run").generations] == [2, 5]
    assert read_status(tmp_path / "run").generations == open_run(tmp_path / "run").generations


def test_images_may_come_from_elsewhere_in_every_generation(cards: Path, tmp_path: Path) -> None:
    """They are read where the newest command finds them."""
    out = tmp_path / "run"
    attack_prepared(limited(cards, 2), out)
    mend(cards)
    moved = cards.rename(tmp_path / "moved")
    assert fork(partial(attack_prepared, painted(moved, 2, killing(items_of(moved)[5].id)), out)).wait() != 0
    again = moved.rename(tmp_path / "again")
    attack_prepared(painted(again), out)
    assert_at_rest(out, 14)
