"""Who gets what, and when the engine waits, hires or gives up: with a Ray that does what the test says."""

from __future__ import annotations

import importlib
import platform
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from attnshift.data.datasets import Item
from attnshift.data.references import Reference
from attnshift.diffusion import load_pipeline
from attnshift.errors import RunError, UnavailableError
from attnshift.execution.engines import Assignment, WorkerDied
from attnshift.execution.shipping import files_of, read_blocks
from attnshift.recipes.reading import load_recipe
from attnshift.results.spec import RunSpec
from later import later

if find_spec("ray") is None:
    pytest.skip("Ray is not installed", allow_module_level=True)

# Ours is used first in each test, and tells Ray to be quiet.
HOME = "attnshift.execution.engines.ray_engine"
ray_engine = later(HOME)
ray = later("ray")


def gone() -> Exception:
    return ray.exceptions.ActorDiedError()


NEVER = object()
"""An outcome that does not come."""


@dataclass(eq=False)
class Actor:
    """Ends every call with its next outcome, or with the usual one: ready, or "done" for each wanted item."""

    outcomes: list[Any]
    options: dict[str, Any]
    calls: list[tuple[str, ...]] = field(default_factory=list)
    given: list[Any] = field(default_factory=list)
    """Last argument of each call: models, then images."""
    killed: bool = False

    def __getattr__(self, name: str) -> SimpleNamespace:
        if name not in ("ready", "attack"):
            raise AttributeError(name)
        return SimpleNamespace(remote=lambda *arguments: self.call(arguments))

    def call(self, arguments: tuple[Any, ...]) -> Awaited:
        wanted = arguments[1] if len(arguments) > 1 else ()
        self.calls.append(wanted)
        self.given.append(arguments[-1] if arguments else None)
        return Awaited(self.outcomes.pop(0) if self.outcomes else [f"{each} done" for each in wanted])


@dataclass(eq=False)
class Awaited:
    outcome: Any


@dataclass
class FakeRay:
    """``plans`` are the outcomes of each actor, in the order in which they are started; then all is well.
    ``machines`` are the resources of each host."""

    machines: list[dict[str, float]] = field(default_factory=lambda: [{"CPU": 2.0}])
    plans: list[list[Any]] = field(default_factory=list)
    initialised: bool = True
    actors: list[Actor] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    waited: Callable[[], None] = lambda: None
    exceptions: Any = field(default_factory=lambda: ray.exceptions)

    def is_initialized(self) -> bool:
        return self.initialised

    def init(self, address: str, **_: object) -> None:
        self.log.append(f"init {address}")

    def shutdown(self) -> None:
        self.log.append("shutdown")

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": each} for each in self.machines]

    def remote(self, _: type) -> SimpleNamespace:
        return SimpleNamespace(options=lambda **options: SimpleNamespace(remote=lambda *_: self._start(options)))

    def _start(self, options: dict[str, Any]) -> Actor:
        place = len(self.actors)
        self.actors.append(Actor(list(self.plans[place]) if place < len(self.plans) else [], options))
        return self.actors[-1]

    def wait(self, references: list[Awaited], num_returns: int, timeout: float) -> tuple[list[Awaited], list[Awaited]]:
        assert references
        assert num_returns == 1
        self.waited()
        return [each for each in references if each.outcome is not NEVER][:1], []

    def get(self, reference: Awaited) -> Any:
        if isinstance(reference.outcome, Exception):
            raise reference.outcome
        return reference.outcome

    def put(self, value: bytes) -> Awaited:
        self.log.append("put")
        return Awaited(value)

    def kill(self, actor: Actor) -> None:
        actor.killed = True


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    made = FakeRay()
    monkeypatch.setattr(ray_engine, "ray", made)
    monkeypatch.setattr(ray_engine, "_TICK", 0.01)
    monkeypatch.setattr(ray_engine, "_PATIENCE", 0.1)
    return made


def spec(device: str = "cpu", threads: int = 1) -> RunSpec:
    return RunSpec(
        images="images",
        labels=None,
        items="x",
        pipeline="lab",
        surrogates=("lab:resnet",),
        size=64,
        batch=1,
        device=device,
        threads=threads,
        recipe=load_recipe("quick"),
    )


def assignments(count: int, drawn: list[int] | None = None) -> Iterator[Assignment]:
    for number in range(count):
        if drawn is not None:
            drawn.append(number)
        name = f"item{number}"
        item = Item(name, f"{name}.png", Reference("file", f"/{name}.png"), 0, "mug")
        yield Assignment(number, (item,), (name,))


def failed(cause: Exception) -> Exception:
    return ray.exceptions.RayTaskError("ready", "Traceback …", cause).as_instanceof_cause()


def test_each_assignment_comes_back_once_with_what_its_worker_made(fake: FakeRay) -> None:
    returned = list(ray_engine.RayEngine(spec())(assignments(5)))
    assert sorted((each.number, results) for each, results in returned) == [(n, [f"item{n} done"]) for n in range(5)]
    assert len(fake.actors) == 2


def test_nothing_is_taken_before_somebody_is_free_for_it(fake: FakeRay) -> None:
    """The rest may be claimed by another process; and what is taken counts as begun."""
    drawn: list[int] = []
    fake.plans = [[None, NEVER], [None, NEVER]]
    working = ray_engine.RayEngine(spec())(assignments(5, drawn))
    seen: list[int] = []

    def look() -> None:
        seen.append(len(drawn))
        if len(seen) == 5:
            raise KeyboardInterrupt

    fake.waited = look
    with pytest.raises(KeyboardInterrupt):
        next(working)
    assert seen == [1, 1, 2, 2, 2], "the first one shows that there is something to do"


def test_where_nothing_is_left_to_do_no_worker_starts(fake: FakeRay) -> None:
    assert list(ray_engine.RayEngine(spec())(assignments(0))) == []
    assert not fake.actors


def test_who_dies_gives_back_what_it_had_and_is_replaced(fake: FakeRay) -> None:
    fake.plans = [[None, gone()]]
    (_, first), *others = ray_engine.RayEngine(spec(), workers=1)(assignments(3))
    assert isinstance(first, WorkerDied)
    assert "died unexpectedly" in first.reason
    assert [results for _, results in others] == [["item1 done"], ["item2 done"]]
    assert [actor.killed for actor in fake.actors] == [True, False]


def test_a_worker_whose_work_raises_is_replaced_too(fake: FakeRay) -> None:
    """What it leaves behind on a GPU cannot be known."""
    fake.plans = [[None, failed(RuntimeError("device-side assert"))]]
    (_, first), (_, second) = ray_engine.RayEngine(spec(), workers=1)(assignments(2))
    assert first == WorkerDied("device-side assert")
    assert second == ["item1 done"]


@pytest.mark.parametrize(
    ("device", "threads", "machines", "count"),
    [
        ("cpu", 1, [{"CPU": 2.0}, {"CPU": 3.0}], 5),
        ("cpu", 2, [{"CPU": 3.0}, {"CPU": 3.0}], 2),
        ("cuda", 16, [{"CPU": 8.0, "GPU": 4.0}, {"CPU": 64.0}], 4),
        ("cuda", 1, [{"CPU": 2.0, "GPU": 4.0}], 2),
    ],
)
def test_as_many_workers_as_fit_into_the_machines(
    fake: FakeRay, device: str, threads: int, machines: list[dict[str, float]], count: int
) -> None:
    fake.machines = machines
    list(ray_engine.RayEngine(spec(device, threads))(assignments(1)))
    assert len(fake.actors) == count
    wanted = (threads, 0) if device == "cpu" else (1, 1)
    assert {(actor.options["num_cpus"], actor.options["num_gpus"]) for actor in fake.actors} == {wanted}


@pytest.mark.parametrize(
    ("device", "threads", "workers", "shown"),
    [("cpu", 3, 0, "3 CPU"), ("cuda", 1, 0, "1 GPU and 1 CPU"), ("cpu", 3, 4, "3 CPU")],
)
def test_where_not_even_one_fits_nobody_waits(
    fake: FakeRay, device: str, threads: int, workers: int, shown: str
) -> None:
    with pytest.raises(RunError, match=f"room for one worker, which takes {shown}$"):
        ray_engine.RayEngine(spec(device, threads), workers=workers)


def test_more_workers_than_there_is_room_for_do_not_hold_up_those_that_started(fake: FakeRay) -> None:
    fake.plans = [[], [NEVER], [NEVER]]
    assert len(list(ray_engine.RayEngine(spec(), workers=3)(assignments(4)))) == 4


def test_workers_that_were_idle_are_asked_before_they_get_something(fake: FakeRay) -> None:
    """A host may go between two calls, and no item is to blame for that."""
    fake.plans = [[None, ["one done"], gone()]]
    engine = ray_engine.RayEngine(spec(), workers=1)
    assert len(list(engine(assignments(1)))) == 1
    assert [results for _, results in engine(assignments(1))] == [["item0 done"]]
    assert [actor.calls for actor in fake.actors] == [[(), ("item0",), ()], [(), ("item0",)]]


def test_a_worker_that_refuses_to_start_ends_the_run_in_one_line(fake: FakeRay) -> None:
    fake.plans = [[failed(RunError("this worker differs from its run in weights.pipeline"))]]
    with pytest.raises(RunError) as caught:
        list(ray_engine.RayEngine(spec())(assignments(1)))
    assert str(caught.value) == "a worker cannot start: this worker differs from its run in weights.pipeline"


def test_workers_that_always_end_while_they_start_are_given_up(fake: FakeRay) -> None:
    fake.plans = [[gone()]] * 100
    with pytest.raises(RunError, match="no Ray worker is left; 7 ended while they started, the last one: The actor"):
        list(ray_engine.RayEngine(spec(), workers=2)(assignments(1)))
    assert len(fake.actors) == 7


def test_who_is_at_work_goes_on_where_others_cannot_start(fake: FakeRay) -> None:
    fake.plans = [[], *[[gone()]] * 100]
    assert len(list(ray_engine.RayEngine(spec(), workers=2)(assignments(20)))) == 20
    assert len(fake.actors) < 10


def test_nobody_waits_for_ever(fake: FakeRay) -> None:
    fake.plans = [[NEVER], [NEVER]]
    with pytest.raises(RunError, match="no Ray worker has started for"):
        list(ray_engine.RayEngine(spec())(assignments(1)))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_who_is_told_to_stop_in_the_midst_of_ray_stops_after_it(fake: FakeRay, number: signal.Signals) -> None:
    """Ray makes another status of what a handler raises in it, or loses it."""
    log: list[str] = []

    def waited() -> None:
        signal.raise_signal(number)
        log.append("waited")

    def stop(number: int, frame: object) -> None:
        log.append("stopped")
        raise SystemExit(128 + number)

    fake.waited = waited
    before = signal.signal(number, stop)
    try:
        with pytest.raises(SystemExit) as end:
            list(ray_engine.RayEngine(spec())(assignments(1)))
        assert signal.getsignal(number) is stop
    finally:
        signal.signal(number, before)
    assert end.value.code == 128 + number
    assert log == ["waited", "stopped"]


def test_a_host_that_comes_back_gets_workers_again(fake: FakeRay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_engine, "_PATIENCE", 60)
    fake.plans = [[None, gone()]]
    working = ray_engine.RayEngine(spec(threads=2))(assignments(2))
    _, first = next(working)
    assert isinstance(first, WorkerDied)
    fake.machines = []
    rounds: list[float] = []

    def sleep(seconds: float) -> None:
        rounds.append(seconds)
        fake.machines = [{"CPU": 2.0}] if len(rounds) == 3 else []

    monkeypatch.setattr(ray_engine.time, "sleep", sleep)
    assert [results for _, results in working] == [["item1 done"]]
    assert len(rounds) == 3


@pytest.mark.parametrize("address", [None, "auto"])
def test_what_was_started_ends_with_the_run(fake: FakeRay, address: str | None) -> None:
    fake.initialised = False
    engine = ray_engine.RayEngine(spec(), address)
    list(engine(assignments(1)))
    engine.close()
    assert fake.log == [f"init {address or 'local'}", "shutdown"]


def test_somebody_else_s_ray_is_used_and_left_alone(fake: FakeRay) -> None:
    fake.plans = [[], [NEVER]]
    engine = ray_engine.RayEngine(spec())
    list(engine(assignments(1)))
    engine.close()
    assert fake.log == []
    assert [actor.killed for actor in fake.actors] == [True, True]


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("127.0.0.1:1", "no cluster answers"),
        ("127.0.0.1:99999", "no cluster answers"),
        ("ray://127.0.0.1:1", "expected HOST:PORT"),
        ("6379", "expected HOST:PORT"),
        ("host:port", "expected HOST:PORT"),
    ],
)
def test_an_address_where_nobody_is(fake: FakeRay, address: str, shown: str) -> None:
    fake.initialised = False
    with pytest.raises(RunError, match=f"`address` is {address}.*{shown}"):
        ray_engine.RayEngine(spec(), address)
    assert fake.log == []


@pytest.mark.parametrize(
    ("device", "workers", "shown"), [("cuda:1", 0, "`device` is cuda:1"), ("cpu", -1, "`workers` is -1")]
)
def test_what_cannot_be_meant_is_refused(fake: FakeRay, device: str, workers: int, shown: str) -> None:
    with pytest.raises(RunError, match=shown):
        ray_engine.RayEngine(spec(device), workers=workers)


def test_without_ray_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, HOME)
    with pytest.raises(UnavailableError, match=r"pip install 'attnshift\[ray\]'"):
        importlib.import_module(HOME)


def test_who_cannot_start_says_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    broken = spec().model_copy(update={"pipeline": "nowhere"})
    with pytest.raises(RunError, match=rf"nowhere.* \(on {platform.node()}\)$"):
        ray_engine._Actor(broken.model_dump_json(), None, tmp_path, {}).ready()


def test_relative_names_are_looked_for_where_the_command_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Path] = []
    monkeypatch.setattr(ray_engine.Worker, "load", lambda *_: seen.append(Path.cwd()))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    for folder in (tmp_path / "there", tmp_path / "only on the coordinator"):
        ray_engine._Actor(spec().model_dump_json(), None, folder, {}).ready()
    assert seen == [tmp_path / "there", tmp_path / "there"]


def test_images_that_are_files_come_with_the_micro_batch_and_others_do_not(fake: FakeRay, tmp_path: Path) -> None:
    file, mask = Reference("file", str(tmp_path / "a.png")), Reference("member", str(tmp_path / "masks.tar"), 2, 3)
    (tmp_path / "a.png").write_bytes(b"image")
    (tmp_path / "masks.tar").write_bytes(b"a mask")
    url, gone = Reference("url", "https://example.com/b.png"), Reference("file", str(tmp_path / "gone.png"))
    items = [
        Item("a", "a.png", file, 0, "mug", mask),
        Item("b", "b.png", url, 0, "mug"),
        Item("c", "gone.png", gone, 0, "mug"),
    ]
    engine = ray_engine.RayEngine(spec(), workers=1)
    assert len([*engine([Assignment(0, tuple(items), ("a", "b", "c"))])]) == 1
    assert fake.actors[0].given[-1] == {file: b"image", mask: b"mas"}


def test_models_are_put_into_the_store_once_for_all_that_lack_them(fake: FakeRay, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(b"{}")
    fake.plans = [[[tmp_path]], [[tmp_path]], []]
    engine = ray_engine.RayEngine(spec(), workers=3)
    assert len([*engine(assignments(3))]) == 3
    sent = [actor.given[1] for actor in fake.actors[:2]]
    assert [each[tmp_path].files["config.json"][0].outcome for each in sent] == [b"{}", b"{}"]
    assert fake.log == ["put"]
    assert len(fake.actors) == 3


def test_a_worker_loads_what_it_was_sent_under_its_own_name(
    fake: FakeRay, pipeline_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    fingerprint = load_pipeline(str(pipeline_folder)).fingerprint()
    lacked = Path("models/tiny")
    wanted = spec().model_copy(update={"pipeline": "models/tiny", "weights": {}})
    engine = ray_engine.RayEngine(wanted)
    files = {name: [fake.put(block) for block in read_blocks(file)] for name, file in files_of(pipeline_folder).items()}
    loaded: list[RunSpec] = []
    monkeypatch.setattr(RunSpec, "differences", lambda found, _: loaded.append(found) or [])
    actor = ray_engine._Actor(wanted.model_dump_json(), None, tmp_path / "nowhere", {"models/tiny": ("", lacked, "")})
    assert actor.ready() == [lacked]
    assert actor.ready({lacked: ray_engine._Sent("", files)}) == []
    assert actor.ready() == []
    assert loaded[0].weights["pipeline"] == fingerprint
    assert [*tmp_path.iterdir()] == [], "what was sent is removed once it is loaded"
    engine.close()


def test_a_host_without_room_for_a_model_says_so(fake: FakeRay, tmp_path: Path) -> None:
    (tmp_path / "0").touch()
    with pytest.raises(RunError, match=r"cannot be written to .*; make room there, or set TMPDIR"):
        ray_engine._Sent("", {"config.json": [fake.put(b"{}")]}).write(tmp_path / "0")
