"""All consumers get all events, in order. No consumer can stop or change an attack."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pytest
import torch

from attnshift.attack.method import Method
from attnshift.attack.prepare import PreparedBatch, Task, prepare_batch
from attnshift.attack.run import run_attack
from attnshift.data.images import encode_png
from attnshift.errors import UserError
from attnshift.recipes.reading import load_recipe
from attnshift.telemetry import BatchBegun, Event, Iteration, RunBegun, RunEnded, Telemetry, fan_out
from attnshift.testing.recorded import RECORDED, begun, done

if TYPE_CHECKING:
    from attnshift.attack.loop import Snapshot
    from attnshift.classifiers.classifier import Classifier
    from attnshift.diffusion.stable_diffusion import StableDiffusion

ITERATIONS = 3


class Recorder:
    def __init__(self, iterations: bool = True):
        self.iterations = iterations
        self.events: list[Event] = []
        self.closed = 0

    def __call__(self, event: Event) -> None:
        assert not self.closed
        self.events.append(event)

    def close(self) -> None:
        self.closed += 1


class Stumbler(Recorder):
    """Raises at the event of kind ``at``."""

    def __init__(self, at: type[Event], error: BaseException):
        super().__init__()
        self._at, self._error = at, error

    def __call__(self, event: Event) -> None:
        super().__call__(event)
        if isinstance(event, self._at):
            raise self._error


def test_every_consumer_is_told_everything_that_it_wants() -> None:
    one, other, few = Recorder(), Recorder(), Recorder(iterations=False)
    with Telemetry([one, few, other]) as telemetry:
        for event in RECORDED:
            telemetry(event)
        assert (one.closed, few.closed, other.closed) == (0, 0, 0)
    assert one.events == other.events == [*RECORDED]
    assert few.events == [event for event in RECORDED if not isinstance(event, Iteration)]
    assert (one.closed, few.closed, other.closed) == (1, 1, 1)


def test_iterations_are_made_only_for_those_who_want_them(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []

    class Counted(Iteration):
        @classmethod
        def of(cls, *parts: object) -> Iteration:  # pyright: ignore[reportIncompatibleMethodOverride]
            made.append(parts)
            return Iteration(0, (), 0, {}, {}, {})

    monkeypatch.setattr(fan_out, "Iteration", Counted)
    assert Telemetry().watch(0, ["one"]) is None
    assert Telemetry([Recorder(iterations=False)]).watch(0, ["one"]) is None
    stumbler = Stumbler(BatchBegun, ValueError("no"))
    telemetry = Telemetry([stumbler, Recorder(iterations=False)])
    watch = telemetry.watch(0, ["one"])
    assert watch is not None
    snapshot: Snapshot = None  # pyright: ignore[reportAssignmentType]
    watch(["a"], snapshot)
    assert len(made) == 1
    telemetry(BatchBegun(0, ("a",)))
    watch(["a"], snapshot)
    assert len(made) == 1, "who wanted to know is gone"


def test_one_who_raises_is_left_behind_with_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    before, stumbler, after = Recorder(), Stumbler(Iteration, OSError("disk\nfull")), Recorder()
    with Telemetry([before, stumbler, after]) as telemetry:
        for event in RECORDED:
            telemetry(event)
    assert before.events == after.events == [*RECORDED]
    assert stumbler.events == [*RECORDED[:3]]
    assert stumbler.closed == 1
    assert capsys.readouterr().err == "attnshift: Stumbler is switched off, the attack goes on: disk full\n"


def test_closing_one_that_raises_closes_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    class Stuck(Recorder):
        def close(self) -> None:
            raise RuntimeError

    last = Recorder()
    Telemetry([Stuck(), last]).close()
    assert last.closed == 1
    assert capsys.readouterr().err == "attnshift: Stuck is switched off, the attack goes on: RuntimeError\n"


def test_a_warning_that_nobody_can_read_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone:
        def write(self, _: str) -> None:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stderr", Gone())
    last = Recorder()
    Telemetry([Stumbler(RunBegun, ValueError("no")), last])(begun())
    assert last.events == [begun()]


def test_stopping_the_attack_is_not_held_up() -> None:
    with pytest.raises(KeyboardInterrupt):
        Telemetry([Stumbler(RunBegun, KeyboardInterrupt())])(begun())


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (None, "finished"),
        (UserError("wrong"), "error"),
        (KeyboardInterrupt(), "interrupted"),
        (SystemExit(143), "interrupted"),
    ],
)
def test_a_run_says_how_it_ended(error: BaseException | None, reason: str) -> None:
    recorder = Recorder()
    telemetry = Telemetry([recorder])

    def carry_out() -> None:
        with telemetry.run(begun()):
            telemetry(done("a", -1.0, -1.0))
            telemetry(RECORDED[-2])
            if error is not None:
                raise error

    telemetry(done("of another run", -1.0, -1.0))
    if error is None:
        carry_out()
    else:
        with pytest.raises(type(error)):
            carry_out()
    end = recorder.events[-1]
    assert isinstance(end, RunEnded)
    assert (end.done, end.failed, end.reason) == (1, 1, reason)
    assert 0 <= end.seconds < 60
    assert recorder.events[1] == begun()


@pytest.fixture(scope="module")
def batch(backbone: StableDiffusion, classifiers: Sequence[Classifier]) -> PreparedBatch:
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    labels = classifiers[0](images).argmax(1).tolist()
    tasks = [
        Task(f"id {at}", images[at], label, name)
        for at, (label, name) in enumerate(zip(labels, ("mug", "ball"), strict=True))
    ]
    settings = [f"optimiser.iterations={ITERATIONS}", "finish.early=false"]
    return prepare_batch(Method.of(load_recipe("fast", settings)), backbone, classifiers[:2], tasks)


def test_images_are_equal_to_the_byte_with_and_without_telemetry(batch: PreparedBatch) -> None:
    recorder, stumbler = Recorder(), Stumbler(Iteration, RuntimeError("no"))
    telemetry = Telemetry([stumbler, recorder])
    names = batch.surrogates.names
    watch = telemetry.watch(5, names)
    assert watch is not None
    told = run_attack(batch, lambda snapshot: watch(batch.key.ids, snapshot))
    untold = run_attack(batch)
    assert [encode_png(image, {}) for image in told.images] == [encode_png(image, {}) for image in untold.images]
    assert told.history == untold.history
    assert len(stumbler.events) == 1
    iterations = [event for event in recorder.events if isinstance(event, Iteration)]
    assert [event.iteration for event in iterations] == [*range(ITERATIONS + 1)]
    for event in iterations[:-1]:
        assert event.batch == 5
        assert event.ids == batch.key.ids
        for place in range(2):
            kept = told.history[place][event.iteration]
            assert {name: values[place] for name, values in event.losses.items()} == pytest.approx(kept)
            shares = tuple(event.shares[name][place] for name in names)
            assert shares == told.weights[place][event.iteration]
    assert iterations[-1].losses == {}
    assert set(iterations[-1].margins) == set(names)
