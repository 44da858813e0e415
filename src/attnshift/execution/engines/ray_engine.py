"""Engine for many machines: Ray actors hold the models, and a free actor gets the next micro-batch.

The plan decides which images are attacked together, and the coordinator stores and counts. When an
actor or its host dies, its micro-batch comes back as ``WorkerDied``, and a new actor is started.

A host needs no file of the coordinator's host. Images come with the micro-batch. Models that are
folders or files come through Ray's object store, once for each host that lacks them.
"""

# Ray's decorators and handles have no types that a checker can follow.
# pyright: reportAttributeAccessIssue=false, reportFunctionMemberAccess=false, reportCallIssue=false, reportArgumentType=false

from __future__ import annotations

import logging
import os
import platform
import signal
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from attnshift.data.datasets import Item
from attnshift.data.references import Reference, fetch, scheme_of
from attnshift.errors import ImageError, RunError, UnavailableError, UserError
from attnshift.execution.engines import Assignment, Returned, WorkerDied
from attnshift.execution.memory import keep_freed_memory
from attnshift.execution.shipping import Parts, files_of, loaded_as, local_models, read_blocks, temporary_folder
from attnshift.execution.worker import Failure, Result, Worker
from attnshift.results.spec import RunSpec

# Ray reads both at its import. The first stops its reports to its authors, the second keeps
# messages about a cluster in its logs.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".*")
try:
    import ray
except ImportError:
    raise UnavailableError("`engine` ray needs Ray, which is not installed: pip install 'attnshift[ray]'") from None

__all__ = ["RayEngine"]

_PATIENCE = 600.0
"""Seconds without any worker, at work or ready, after which the run gives up."""
_TICK = 1.0
"""Seconds between two looks at the cluster's resources and at signals to stop."""
_STARTS = 3
"""Failed starts in a row, for each worker that is wanted, after which no more are started."""


@contextmanager
def _own_signals() -> Iterator[Iterable[int]]:
    """Restore our handlers of SIGINT and SIGTERM at the end; gives the signals that have one."""
    ours: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        ours = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        ours = {number: handler for number, handler in ours.items() if handler is not None}
    try:
        yield ours
    finally:
        for number, handler in ours.items():
            signal.signal(number, handler)


@contextmanager
def _signals_wait() -> Iterator[None]:
    """Delay SIGINT and SIGTERM to the end: Ray changes or loses what a handler raises inside it."""
    came: list[int] = []
    try:
        with _own_signals() as numbers:
            for number in numbers:
                signal.signal(number, lambda number, frame: came.append(number))
            yield
    finally:
        if came:
            signal.raise_signal(came[0])


@dataclass(frozen=True)
class _Sent:
    """A model in the object store.

    ``files`` maps places in its folder to references to their blocks. ``name`` is that of a model
    which is a single file, else empty.
    """

    name: str
    files: Mapping[str, Sequence[Any]]

    def write(self, folder: Path) -> Path:
        """Write the files into ``folder``, and return the path of the model there."""
        try:
            for place, blocks in self.files.items():
                (folder / place).parent.mkdir(parents=True, exist_ok=True)
                with (folder / place).open("wb") as file:
                    for block in blocks:
                        file.write(ray.get(block))
        except OSError as error:
            what = f"models that were sent cannot be written to {folder} ({error.strerror})"
            raise RunError(f"{what}; make room there, or set TMPDIR") from None
        return folder / self.name


@dataclass
class RayEngine:
    """Engine of ``workers`` actors, or with 0 of as many as the cluster has room for at any time.

    Each actor takes ``spec.threads`` CPUs, or one GPU and one CPU. Without an ``address`` Ray
    starts on this machine, for the run.
    """

    spec: RunSpec
    address: str | None = None
    workers: int = 0
    cache: Path | None = None
    _idle: list[Any] = field(default_factory=list, init=False)
    _starting: dict[Any, Any] = field(default_factory=dict, init=False)
    _busy: dict[Any, tuple[Any, Assignment]] = field(default_factory=dict, init=False)
    _lost: int = field(default=0, init=False)
    """Number of failed starts since one succeeded; ``_why`` is the reason of the last one."""
    _why: str = field(default="", init=False)
    _models: dict[str, Parts] = field(default_factory=dict, init=False)
    """Models on this host by name; ``_sent`` are those in the object store, by path."""
    _sent: dict[Path, _Sent] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        if self.spec.device not in ("cpu", "cuda"):
            raise RunError(f"`device` is {self.spec.device}, but Ray assigns the GPUs; use cpu or cuda")
        if self.workers < 0:
            raise RunError(f"`workers` is {self.workers}; it must be 0, for as many as there is room for, or more")
        self._connected = not ray.is_initialized()
        if self._connected:
            _connect(self.address)
        if not self._room() and (self.address is None or not self.workers):
            shown = " and ".join(f"{count} {name}" for name, count in self._needs().items())
            self.close()
            raise RunError(f"no machine of the Ray cluster has room for one worker, which takes {shown}")

    def __call__(self, assignments: Iterable[Assignment]) -> Iterator[Returned]:
        waiting, more = iter(assignments), True
        first = next(waiting, None)
        if first is None:
            # Without work no models are loaded.
            return
        waiting = chain([first], waiting)
        self._models = local_models(self.spec)
        self._ping_idle()
        since = time.monotonic()
        while True:
            # An assignment waits until an actor is free, since another process may take it.
            while more and self._idle:
                assignment = next(waiting, None)
                if assignment is None:
                    more = False
                else:
                    self._give(assignment)
            if self._busy:
                since = time.monotonic()
            elif not more:
                return
            self._start_workers()
            self._give_up_if_stalled(time.monotonic() - since)
            for reference in self._ready():
                if reference in self._starting:
                    self._worker_ready(reference)
                else:
                    yield self._returned(reference)

    def close(self) -> None:
        """Let the actors go, and the cluster if it was started for this run."""
        if self._connected:
            # Ray ends the actors of a process that leaves.
            ray.shutdown()
        else:
            for actor in (*self._idle, *self._starting.values(), *(actor for actor, _ in self._busy.values())):
                ray.kill(actor)
        for each in (self._idle, self._starting, self._busy, self._sent):
            each.clear()

    @_signals_wait()
    def _ping_idle(self) -> None:
        """Ask idle actors to answer, since they may have died."""
        while self._idle:
            actor = self._idle.pop()
            self._starting[actor.ready.remote()] = actor

    @_signals_wait()
    def _give(self, assignment: Assignment) -> None:
        actor = self._idle.pop()
        images = _contents(assignment.items)
        self._busy[actor.attack.remote(assignment.items, assignment.wanted, images)] = actor, assignment

    @_signals_wait()
    def _start_workers(self) -> None:
        """Start actors until there are as many as wanted, unless too many starts have failed."""
        wanted = self.workers or self._room()
        options: dict[str, Any] = {
            "num_cpus": self._needs()["CPU"],
            "num_gpus": self._needs().get("GPU", 0),
            "max_restarts": 0,
            "scheduling_strategy": "SPREAD",
            "runtime_env": {"env_vars": {"OMP_NUM_THREADS": str(self.spec.threads)}},
        }
        there = len(self._idle) + len(self._starting) + len(self._busy)
        for _ in range(wanted - there if self._lost < _STARTS * wanted else 0):
            spec = self.spec.model_dump_json()
            actor = ray.remote(_Actor).options(**options).remote(spec, self.cache, Path.cwd(), self._models)
            self._starting[actor.ready.remote()] = actor

    def _needs(self) -> Mapping[str, int]:
        """Resources of one worker. With a GPU, the GPU does the work."""
        return {"CPU": self.spec.threads} if self.spec.device == "cpu" else {"GPU": 1, "CPU": 1}

    def _room(self) -> int:
        """Number of workers that the machines of the cluster would hold if nothing else ran."""
        machines = [each["Resources"] for each in ray.nodes() if each["Alive"]]
        return sum(
            int(min(machine.get(name, 0) // count for name, count in self._needs().items())) for machine in machines
        )

    def _give_up_if_stalled(self, seconds: float) -> None:
        """Raise ``RunError`` if no worker is active and none will be."""
        if not self._busy and not self._starting and self._lost:
            raise RunError(f"no Ray worker is left; {self._lost} ended while they started, the last one: {self._why}")
        if seconds > _PATIENCE:
            raise RunError(f"no Ray worker has started for {_PATIENCE:.0f} s; `ray status` shows what is missing")

    @_signals_wait()
    def _ready(self) -> list[Any]:
        """The next reference with a result, or none after ``_TICK`` seconds."""
        references = [*self._busy, *self._starting]
        if references:
            return ray.wait(references, num_returns=1, timeout=_TICK)[0]
        time.sleep(_TICK)
        return []

    @_signals_wait()
    def _worker_ready(self, reference: Any) -> None:
        actor = self._starting.pop(reference)
        try:
            lacking = ray.get(reference)
        except ray.exceptions.RayTaskError as error:
            raise RunError(f"a worker cannot start: {_line(error.cause)}") from None
        except ray.exceptions.RayError as error:
            if getattr(error, "actor_init_failed", False):
                raise RunError(f"a worker cannot start: {_line(error)}") from None
            self._lost, self._why = self._lost + 1, _line(error)
        else:
            if lacking:
                self._starting[actor.ready.remote({path: self._files(path) for path in lacking})] = actor
                return
            self._lost = 0
            self._idle.append(actor)

    def _files(self, path: Path) -> _Sent:
        """The model at ``path`` in the object store, where it is put once for all hosts."""
        if path not in self._sent:
            try:
                files = {
                    place: [ray.put(block) for block in read_blocks(file)] for place, file in files_of(path).items()
                }
                self._sent[path] = _Sent("" if path.is_dir() else path.name, files)
            except (OSError, ray.exceptions.ObjectStoreFullError) as error:
                raise RunError(f"{path} cannot be sent to a host that lacks it ({_line(error)})") from None
        return self._sent[path]

    @_signals_wait()
    def _returned(self, reference: Any) -> Returned:
        actor, assignment = self._busy.pop(reference)
        try:
            results = ray.get(reference)
        except ray.exceptions.RayError as error:
            # The actor goes even if only the call failed, because its state may be damaged.
            ray.kill(actor)
            return assignment, WorkerDied(_line(getattr(error, "cause", error)))
        self._idle.append(actor)
        return assignment, results


class _Actor:
    """A worker in a process of its own, anywhere in the cluster."""

    def __init__(self, spec: str, cache: Path | None, folder: Path, models: Mapping[str, Parts]):
        self.spec, self.cache, self.folder, self.models = spec, cache, folder, models
        self.worker: Worker | None = None

    def ready(self, sent: Mapping[Path, _Sent] = {}) -> list[Path]:
        """Load everything, once; or return the paths of models that this host lacks.

        The caller then calls again with their files. Ray reports an exception here to the caller,
        and does not report one in ``__init__``.
        """
        if self.worker is not None:
            return []
        paths = {part for parts in self.models.values() for part in parts if isinstance(part, Path)}
        lacking = [path for path in sorted(paths) if not (self.folder / path).exists() and path not in sent]
        if lacking:
            return lacking
        # Relative names of models are relative to the coordinator's folder.
        if self.folder.is_dir():
            os.chdir(self.folder)
        try:
            keep_freed_memory()
            with temporary_folder() as folder:
                places = {path: each.write(folder / str(at)) for at, (path, each) in enumerate(sent.items())}
                spec = RunSpec.model_validate_json(self.spec)
                self.worker = Worker.load(spec, self.cache, loaded_as(self.models, places))
        except UserError as error:
            raise RunError(f"{error} (on {platform.node()})") from None
        return []

    def attack(
        self, items: tuple[Item, ...], wanted: tuple[str, ...], images: Mapping[Reference, bytes]
    ) -> list[Result | Failure]:
        """Attack ``items``; ``images`` are the bytes of those that this host need not fetch."""
        assert self.worker is not None
        return self.worker.attack(items, wanted, read=lambda each: images[each] if each in images else fetch(each))


def _contents(items: Iterable[Item]) -> dict[Reference, bytes]:
    """Images and masks of ``items`` that are files here.

    A file that cannot be read now is left out: the worker tries it again and reports the failure.
    """
    contents = {}
    for reference in (each for item in items for each in (item.image, item.mask) if each is not None):
        if reference.kind != "url" or scheme_of(reference.location) == "file":
            with suppress(ImageError):
                contents[reference] = fetch(reference)
    return contents


def _connect(address: str | None) -> None:
    """Join the cluster at ``address``, or start one."""
    if address not in (None, "auto"):
        _check_reachable(address)
    # Exceptions report every error.
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    try:
        with _own_signals():
            ray.init(
                address or "local",
                log_to_driver=False,
                configure_logging=False,
                include_dashboard=None if address else False,
            )
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        where = (
            "Ray does not start on this machine"
            if address is None
            else f"`address` is {address}, where no cluster answers"
        )
        raise RunError(f"{where} ({_line(error)})") from None


def _check_reachable(address: str) -> None:
    """Raise ``RunError`` if nothing answers at ``address``. Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdecimal():
        raise RunError(f"`address` is {address}; expected HOST:PORT, or auto for the cluster that this machine is in")
    try:
        socket.create_connection((host, int(port)), 10).close()
    except (OSError, OverflowError, UnicodeError) as error:
        raise RunError(f"`address` is {address}, where no cluster answers ({_line(error)})") from None


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
