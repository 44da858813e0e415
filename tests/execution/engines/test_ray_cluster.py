"""Runs on a Ray cluster of several hosts, all on this machine: what comes out, whoever is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from attnshift.errors import RunError
from attnshift.execution.coordinate import RunOptions, attack_folder
from attnshift.execution.prepare import prepare_run
from attnshift.results.ledger import DEATHS
from attnshift.results.store import Store
from later import later
from small_classifiers import as_elsewhere
from small_runs import SHORT_PATH, SURROGATE, Told, pngs, run_small, small_settings, write_photos
from tables import records, untimed

if find_spec("ray") is None:
    pytest.skip("Ray is not installed", allow_module_level=True)

if TYPE_CHECKING:
    from attnshift.data.datasets import Item
    from attnshift.execution.engines.ray_engine import RayEngine, _Actor

ray = later("ray")
ray_engine = later("attnshift.execution.engines.ray_engine")
cluster_utils = later("ray.cluster_utils")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A head without room for workers, and two hosts of one CPU."""
    # First ours, which tells Ray to be quiet.
    assert ray_engine.RayEngine
    with pytest.MonkeyPatch.context() as patch:
        # Else Ray would keep a password in the home of whoever tests.
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("OMP_NUM_THREADS", "1")
        made = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
        for _ in range(2):
            made.add_node(num_cpus=1)
        yield made
        made.shutdown()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Labelled by what Ray's workers see, and attacked by the same."""
    with as_elsewhere():
        yield write_photos(tmp_path_factory.mktemp("photos")).parent


@pytest.fixture(scope="module")
def finished(photos: Path, pipeline_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """An undisturbed run, in batches of two. Not to be written to."""
    return run_small(small_settings(photos, pipeline_folder, tmp_path_factory.mktemp("finished") / "run"))


@pytest.fixture(scope="module")
def finished_singly(photos: Path, pipeline_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """An undisturbed run, in batches of one. Not to be written to."""
    return run_small(small_settings(photos, pipeline_folder, tmp_path_factory.mktemp("singly") / "run", batch=1))


def events(store: Store) -> list[dict[str, Any]]:
    ledgers = sorted((store.folder / "ledger").glob("*.jsonl"))
    return [json.loads(line) for ledger in ledgers for line in ledger.read_text().splitlines() if line]


def assert_same(store: Store, other: Store) -> None:
    assert pngs(store.folder) == pngs(other.folder)
    assert untimed(store) == untimed(other)


def killing(file: str, once: Path | None = None) -> type[_Actor]:
    """Workers that are killed over the image ``file``, every time or only the first."""

    class Killed(ray_engine._Actor):
        def attack(self, items: tuple[Item, ...], wanted: tuple[str, ...], images: Any) -> Any:
            if any(item.file == file for item in items) and not (once and once.exists()):
                if once:
                    once.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return super().attack(items, wanted, images)

    return Killed


@pytest.mark.heavy
def test_the_same_bytes_as_in_one_process(
    cluster: Any,
    finished: Store,
    photos: Path,
    pipeline_folder: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where a worker is killed in the middle; and Ray says nothing."""
    once = tmp_path / "killed"
    monkeypatch.setattr(ray_engine, "_Actor", killing(records(finished, "results")[0]["file"], once))
    settings, told = small_settings(photos, pipeline_folder, tmp_path / "run"), Told()
    store = attack_folder(
        settings, told.telemetry(), RunOptions(engine=partial(ray_engine.RayEngine, address=cluster.address))
    )
    assert once.exists()
    assert_same(store, finished)
    first, second, third = (row["id"] for row in records(finished, "results"))
    assert [each.id for each in told.done] == [third, first, second], "what a worker died of comes last"
    assert Counter(each["event"] for each in events(store)) == {"begun": 3, "ended": 2, "died": 1}
    assert capfd.readouterr() == ("", "")


@pytest.mark.heavy
def test_a_worker_with_other_weights_does_not_start(
    cluster: Any, photos: Path, pipeline_folder: Path, tmp_path: Path
) -> None:
    settings = small_settings(photos, pipeline_folder, tmp_path / "run")
    spec = prepare_run(settings).worker.spec

    def make(_: Any) -> RayEngine:
        changed = spec.model_copy(update={"weights": spec.weights | {SURROGATE: "another"}})
        return ray_engine.RayEngine(changed, cluster.address, 1)

    with pytest.raises(RunError) as caught:
        attack_folder(settings, options=RunOptions(engine=make))
    assert "cannot start: this worker differs from its run in weights." in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert [each["event"] for each in events(Store(settings.out))] == ["begun", "stopped"], "no item is to blame"


@pytest.mark.heavy
def test_an_image_that_ends_every_worker_is_left_out_and_its_mates_are_not(
    cluster: Any, finished: Store, photos: Path, pipeline_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fatal, mate, other = records(finished, "results")
    monkeypatch.setattr(ray_engine, "_Actor", killing(fatal["file"]))
    settings = small_settings(photos, pipeline_folder, tmp_path / "run")
    store = attack_folder(settings, options=RunOptions(engine=partial(ray_engine.RayEngine, address=cluster.address)))
    rows = records(store, "results")
    assert [row["id"] for row in rows] == [mate["id"], other["id"]]
    assert rows[1] | {"seconds": 0, "cpu_seconds": 0} == other | {"seconds": 0, "cpu_seconds": 0}
    assert rows[0]["batch"] == 1, "alone, as its mate would have ended it"
    (failed,) = records(store, "failed")
    assert failed["id"] == fatal["id"]
    assert f"ended its worker {DEATHS + 1} times and is left out" in failed["reason"]
    died = Counter(id for each in events(store) if each["event"] == "died" for id in each["items"])
    assert died == {fatal["id"]: DEATHS + 1, mate["id"]: DEATHS}


@pytest.mark.heavy
def test_others_do_what_a_killed_host_had(
    cluster: Any,
    finished_singly: Store,
    photos: Path,
    pipeline_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host = cluster.add_node(num_cpus=1)
    name, at_work = host.node_id, tmp_path / "at work"

    class Held(ray_engine._Actor):
        """On that host an attack does not end by itself."""

        def attack(self, items: tuple[Item, ...], wanted: tuple[str, ...], images: Any) -> Any:
            # Here, since a worker has no modules of the tests.
            import ray

            if ray.get_runtime_context().get_node_id() == name:
                at_work.touch()
                time.sleep(600)
            # One after the other, so that this host gets one of them.
            while not at_work.exists():
                time.sleep(0.1)
            return super().attack(items, wanted, images)

    def kill() -> None:
        while not at_work.exists():
            time.sleep(0.1)
        cluster.remove_node(host, allow_graceful=False)

    monkeypatch.setattr(ray_engine, "_Actor", Held)
    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    settings = small_settings(photos, pipeline_folder, tmp_path / "run", batch=1)
    store = attack_folder(settings, options=RunOptions(engine=partial(ray_engine.RayEngine, address=cluster.address)))
    killer.join(10)
    assert_same(store, finished_singly)
    assert Counter(each["event"] for each in events(store)) == {"begun": 4, "ended": 3, "died": 1}


@pytest.mark.heavy
def test_ctrl_c_ends_the_ray_of_this_machine_and_one_process_continues(
    finished: Store, photos: Path, pipeline_folder: Path, tmp_path: Path
) -> None:
    """As a terminal sends it: to all processes in the foreground."""
    settings = small_settings(photos, pipeline_folder, tmp_path / "run")
    changes = ["optimiser.iterations=2", "finish.keep=last", SHORT_PATH]
    command = [
        *(sys.executable, "-c", "from attnshift.cli import main; main()", "attack", str(settings.images)),
        *("--labels", str(settings.labels), "--pipeline", str(pipeline_folder), "--surrogate", SURROGATE),
        *("--preset", "quick"),
        *("--batch", "2", "--out", str(settings.out), *(part for each in changes for part in ("--set", each))),
    ]
    environment = os.environ | {"HOME": str(tmp_path), "RAY_TMPDIR": "/tmp", "OMP_NUM_THREADS": "1"}
    running = subprocess.Popen(
        [*command, "--engine", "ray"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while not list(settings.out.glob("ledger/*")):
        assert running.poll() is None, running.communicate()
        time.sleep(0.1)
    os.killpg(running.pid, signal.SIGINT)
    out, err = running.communicate(timeout=60)
    assert running.returncode == 130, err
    assert "photo-" not in out, "it was stopped before an image was done"
    assert err.startswith("attnshift: stopped")
    assert len(err.splitlines()) == 1
    with pytest.raises(ProcessLookupError):
        # Nobody of its group is left.
        os.killpg(running.pid, 0)
    assert_same(attack_folder(settings), finished)
