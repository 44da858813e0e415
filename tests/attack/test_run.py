"""Which iterate is kept, and that an image's result is its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from attnshift.attack.run import Outcome, run_attack
from attnshift.batching import select_rows
from attnshift.data.images import quantise
from small_runs import TWO_STEPS
from tiers import fast_first

if TYPE_CHECKING:
    from attack.conftest import Prepare
    from attnshift.attack.loop import Snapshot
    from attnshift.attack.prepare import PreparedBatch

BRIEF = "diffusion.schedule_steps=10"
SHORT = [TWO_STEPS, "optimiser.iterations=6", "optimiser.learning_rate=0.004", "finish.confidence=0.0"]


def watched(batch: PreparedBatch) -> tuple[Outcome, list[Snapshot]]:
    seen: list[Snapshot] = []
    return run_attack(batch, seen.append), seen


@pytest.mark.parametrize(
    ("preset", "settings", "images"),
    [("quick", [], 2), ("diffattack", ["reconstruction.updates=1", "reconstruction.updates_per_step=0", BRIEF], 1)],
)
def test_two_runs_are_equal_to_the_bit_and_results_are_8_bit(
    prepared: Prepare, preset: str, settings: list[str], images: int
) -> None:
    settings = [*settings, TWO_STEPS, "optimiser.iterations=2"]
    first, second = (run_attack(prepared(preset, settings, slice(images))) for _ in range(2))
    assert torch.equal(first.images, second.images)
    assert torch.equal(first.iterations, second.iterations)
    assert first.history == second.history
    for one, other in zip(first.on_path + first.on_file, second.on_path + second.on_file, strict=True):
        assert (one.true, one.interference) == (other.true, other.interference)
        assert all(map(torch.equal, one.maps, other.maps))
    assert first.measured == second.measured
    steps = first.images * 255
    torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-9)
    assert first.images.min() >= 0
    assert first.images.max() <= 1


@pytest.mark.heavy
@pytest.mark.parametrize("keep", fast_first(["best", "last"]))
def test_an_image_ends_as_if_it_were_alone_although_others_leave_early(prepared: Prepare, keep: str) -> None:
    settings = [*SHORT, f"finish.keep={keep}"]
    together = run_attack(prepared("quick", settings))
    assert len(set(together.evaluated.tolist())) > 1, "nobody left early, so this test shows nothing"
    for row in range(3):
        alone = run_attack(prepared("quick", settings, slice(row, row + 1)))
        torch.testing.assert_close(alone.images[0], together.images[row], rtol=0, atol=1e-4)
        assert alone.iterations[0] == together.iterations[row]
        assert alone.evaluated[0] == together.evaluated[row]
        torch.testing.assert_close(alone.on_path[0].maps, together.on_path[row].maps, rtol=0, atol=1e-4)
        assert len(alone.history[0]) == len(together.history[row])


@pytest.fixture(scope="module")
def to_the_end(prepared: Prepare) -> tuple[Outcome, list[Snapshot]]:
    """An attack whose images all stay until its third and last update."""
    return watched(prepared("quick", [*SHORT, "optimiser.iterations=3", "finish.keep=last", "finish.early=false"]))


def test_keep_last_is_the_iterate_after_the_last_update(to_the_end: tuple[Outcome, list[Snapshot]]) -> None:
    outcome, seen = to_the_end
    assert outcome.iterations.tolist() == [3, 3, 3]
    assert outcome.evaluated.tolist() == [4, 4, 4]
    assert torch.equal(outcome.images, quantise(seen[-1].images))
    assert [len(each) for each in outcome.history] == [3, 3, 3]


def test_a_stopped_attack_is_that_of_a_recipe_that_ends_there(prepared: Prepare) -> None:
    short = [*SHORT, "finish.early=false"]
    stopped = run_attack(prepared("quick", short, slice(1)), lambda snapshot: snapshot.iteration == 1)
    ended = run_attack(prepared("quick", [*short, "finish.after=2"], slice(1)))
    assert (stopped.stopped_after, ended.stopped_after) == (2, 0)
    assert torch.equal(stopped.images, ended.images)
    assert stopped.history == ended.history
    assert len(ended.history[0]) == 2


def test_who_stops_an_attack_at_its_own_end_changes_nothing(
    prepared: Prepare, to_the_end: tuple[Outcome, list[Snapshot]]
) -> None:
    batch = prepared("quick", [*SHORT, "optimiser.iterations=3", "finish.keep=last", "finish.early=false"])
    stopped = run_attack(batch, lambda snapshot: snapshot.iteration >= 2)
    assert stopped.stopped_after == 0
    assert torch.equal(stopped.images, to_the_end[0].images)


def test_keep_last_with_early_is_the_iterate_that_fooled(prepared: Prepare) -> None:
    batch = prepared("quick", [*SHORT, "finish.keep=last"])
    outcome, seen = watched(batch)
    for row in range(3):
        own = [snapshot for snapshot in seen if row in snapshot.rows]
        fooled = [float(snapshot.margins[0, snapshot.rows.tolist().index(row)]) < 0 for snapshot in own]
        assert not any(fooled[:-1]), "an image must leave at the first iterate that fools"
        assert outcome.iterations[row] == own[-1].iteration


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("models", "confidence"),
    [(slice(1, 3), "0.05"), (slice(1, 3), "0.0"), (slice(0, 3), "1000.0"), (slice(1, 2), "0.0")],
)
def test_keep_best_is_the_nearest_that_fools_else_the_lowest_margin(
    prepared: Prepare, confidence: str, models: slice
) -> None:
    settings = [*SHORT, "optimiser.iterations=3", "finish.early=false", "finish.keep=best"]
    settings += [f"finish.confidence={confidence}"]
    batch = prepared("quick", settings, models=models)
    outcome, seen = watched(batch)
    for row in range(3):
        candidates = []
        for snapshot in seen:
            image = quantise(snapshot.images)[row : row + 1]
            _, rounded = select_rows(batch, torch.tensor([row])).surrogates.judge(image)
            worst = float(snapshot.margins[:, row].max())
            fooled = max(worst, float(rounded.max())) < -float(confidence)
            distance = float((image - batch.images[row]).square().mean())
            candidates.append((not fooled, distance if fooled else worst, snapshot.iteration))
        best = min(candidates)
        assert int(outcome.iterations[row]) == best[2]
        assert torch.equal(outcome.images[row], quantise(seen[best[2]].images)[row])


def test_image_that_nobody_gets_right_is_done_at_once_and_stays_as_it_is(prepared: Prepare) -> None:
    """The second classifier is wrong about the third image."""
    batch = prepared("quick", SHORT, slice(2, 3))
    outcome = run_attack(batch)
    assert outcome.iterations.tolist() == [0]
    assert outcome.evaluated.tolist() == [1]
    torch.testing.assert_close(outcome.images, batch.images, rtol=0, atol=1e-6)


def test_attention_is_reported_before_and_after(to_the_end: tuple[Outcome, list[Snapshot]]) -> None:
    outcome, _ = to_the_end
    for before, after in (each.maps for each in outcome.on_path):
        assert before.shape == after.shape == (8, 8)
        assert ((before >= 0) & (before <= 1)).all()
        assert not torch.equal(before, after)


def test_shares_are_kept_for_every_iteration_of_every_image(prepared: Prepare) -> None:
    outcome, seen = watched(
        prepared("quick", [*SHORT, "classification.fusion=laggard", "optimiser.iterations=3"], models=slice(0, 3))
    )
    for row in range(3):
        assert len(outcome.weights[row]) == len(outcome.history[row])
    for snapshot in seen[:-1] if not seen[-1].losses else seen:
        for place, row in enumerate(snapshot.rows.tolist()):
            assert outcome.weights[row][snapshot.iteration] == tuple(snapshot.weights[:, place].tolist())
    assert len({len(each) for each in outcome.weights}) > 1 or seen[-1].iteration == 3
