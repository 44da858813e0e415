"""A Ray cluster of hosts that share nothing: each has a network address and folders of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

import attnshift
from attnshift.classifiers import load_classifier
from attnshift.execution.coordinate import attack_folder
from attnshift.results.store import Store
from small_runs import SHORT_PATH, SURROGATE, pngs, small_settings, write_photos
from tables import untimed

if find_spec("ray") is None:
    pytest.skip("Ray is not installed", allow_module_level=True)

ADDRESS = "198.18.7.{}"
"""Of the block that is set aside for tests of networks (RFC 2544); it exists within the namespaces alone."""
SECONDS = 300
"""Most that the cluster takes, from its start to the last result, on a busy machine."""
CHANGES = ("optimiser.iterations=2", "finish.keep=last", SHORT_PATH)


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=20)


def why_not() -> str:
    """The reason why this system cannot make hosts, or nothing."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "needs Linux, as root"
    if not shutil.which("ip") or not shutil.which("unshare"):
        return "needs ip and unshare"
    name = f"attnshift-{os.getpid()}-try"
    try:
        run("ip", "netns", "add", name)
    except subprocess.CalledProcessError as error:
        return f"this system makes no network namespaces ({error.stderr.strip()})"
    try:
        run("ip", "-n", name, "link", "add", "bridge", "type", "bridge")
        run("ip", "netns", "exec", name, "unshare", "--mount", "--pid", "--fork", "--mount-proc", "true")
    except subprocess.CalledProcessError as error:
        return f"this system makes no namespaces ({error.stderr.strip()})"
    finally:
        run("ip", "netns", "delete", name)
    return ""


class Hosts:
    """Hosts on one network, which nobody else is on. ``private`` are folders that each has for itself, and empty."""

    def __init__(self, stack: ExitStack, private: Path, logs: Path):
        self.stack, self.private, self.logs = stack, private, logs
        self.first = self._namespace(1)
        self._set("link", "add", "bridge", "type", "bridge")
        self._set("addr", "add", f"{ADDRESS.format(1)}/24", "dev", "bridge")
        self._set("link", "set", "bridge", "up")
        self._set("route", "add", "default", "dev", "bridge")

    def _namespace(self, number: int) -> str:
        name = f"attnshift-{os.getpid()}-{number}"
        run("ip", "netns", "add", name)
        self.stack.callback(run, "ip", "netns", "delete", name)
        run("ip", "-n", name, "link", "set", "lo", "up")
        return name

    def _set(self, *command: str) -> None:
        run("ip", "-n", self.first, *command)

    def add(self, number: int) -> str:
        """Another host, by its network namespace."""
        name = self._namespace(number)
        self._set("link", "add", f"to{number}", "type", "veth", "peer", "name", "eth0", "netns", name)
        self._set("link", "set", f"to{number}", "master", "bridge", "up")
        run("ip", "-n", name, "addr", "add", f"{ADDRESS.format(number)}/24", "dev", "eth0")
        run("ip", "-n", name, "link", "set", "eth0", "up")
        run("ip", "-n", name, "route", "add", "default", "dev", "eth0")
        return name

    def start(self, host: str, script: str, hidden: tuple[Path, ...] = ()) -> subprocess.Popen[str]:
        """Run ``script`` on ``host``, where the folders ``hidden`` are empty; with its process all others end."""
        empty = [f"mount -t tmpfs -o size=400m none '{each}'" for each in (*hidden, self.private, Path("/dev/shm"))]
        lines = ["set -e", *empty, f"cd '{self.private}'", script]
        enter = ["ip", "netns", "exec", host, "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        source = str(Path(attnshift.__file__).parents[1])
        environment = os.environ | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": source,
            "HOME": str(self.private),
            "TMPDIR": str(self.private),
            "OMP_NUM_THREADS": "1",
            "RAY_AUTH_MODE": "disabled",
            "RAY_USAGE_STATS_ENABLED": "0",
            # A host whose cable is out is missed after some seconds.
            "RAY_health_check_initial_delay_ms": "1000",
            "RAY_health_check_period_ms": "1000",
            "RAY_health_check_timeout_ms": "5000",
            "RAY_health_check_failure_threshold": "3",
        }
        with (self.logs / f"{host}.log").open("w") as log:
            process = subprocess.Popen(
                [*enter, "sh", "-c", "\n".join(lines)], env=environment, stdout=log, stderr=log, text=True
            )
        self.stack.callback(self.end, process)
        return process

    @staticmethod
    def end(process: subprocess.Popen[str]) -> None:
        process.kill()
        process.wait(20)


@contextmanager
def hosts(logs: Path) -> Iterator[Hosts]:
    """Hosts that are gone afterwards, whatever happens."""
    with ExitStack() as stack:
        # Ray's sockets lie in it, and the path of a socket has at most 107 bytes.
        private = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="as-", dir="/tmp")))
        yield Hosts(stack, private, logs)


def events(folder: Path) -> list[dict[str, Any]]:
    lines = (line for ledger in sorted(folder.glob("ledger/*.jsonl")) for line in ledger.read_text().splitlines())
    return [json.loads(line) for line in lines if line]


def attacks(host: str) -> bool:
    """True while a worker on ``host`` attacks: Ray calls its process after the method that it is in."""
    network = Path("/run/netns", host).stat().st_ino
    for process in Path("/proc").glob("[0-9]*"):
        try:
            busy = (process / "cmdline").read_bytes().startswith(b"ray::_Actor.attack")
            if busy and (process / "ns" / "net").stat().st_ino == network:
                return True
        except OSError:
            # It has ended meanwhile.
            continue
    return False


@pytest.mark.heavy
@pytest.mark.usefixtures("elsewhere")
def test_hosts_that_share_nothing_do_all_the_work(pipeline_folder: Path, tmp_path: Path) -> None:
    """Images, labels, pipeline and surrogate lie on the first host alone, which does none of the work. One of the two
    others loses its power while it attacks. All results arrive once, with the bytes of a run in one process."""
    if reason := why_not():
        pytest.skip(reason)
    base, logs, out = tmp_path / "first", tmp_path / "logs", tmp_path / "first" / "run"
    photos = base / "photos"
    logs.mkdir()
    write_photos(photos)
    pipeline = Path(shutil.copytree(pipeline_folder, base / "models" / "tiny"))
    weights = base / "models" / "resnet.safetensors"
    state = load_classifier(SURROGATE).network.state_dict()
    save_file({name: value.contiguous() for name, value in state.items()}, weights)
    surrogate = f"checkpoint:{SURROGATE.partition(':')[2]}@{weights}"
    address, changes = f"{ADDRESS.format(1)}:6379", " ".join(f"--set {each}" for each in CHANGES)
    options = "--disable-usage-stats --object-store-memory 100000000"
    head = f"""
        ray start --head --port 6379 --node-ip-address {ADDRESS.format(1)} --num-cpus 0 --include-dashboard false \
            --temp-dir "$TMPDIR" {options}
        touch '{base}/up'
        while test ! -e '{base}/complete'; do sleep 0.1; done
        exec '{sys.executable}' -m attnshift attack '{photos}/images' --labels '{photos}/labels.csv' \
            --pipeline '{pipeline}' --surrogate '{surrogate}' --batch 1 --threads 1 --out '{out}' {changes} \
            --preset quick --engine ray --address {address} --workers 2
    """
    with hosts(logs) as network:
        until = time.monotonic() + SECONDS
        command = network.start(network.first, head)

        def wait(what: str, happened: Any) -> None:
            while not happened():
                told = "\n".join(f"{each.name}: {each.read_text()[-2000:]}" for each in sorted(logs.iterdir()))
                assert command.poll() is None, f"the command ended before {what}; {told}"
                assert time.monotonic() < until, f"{what}: not within {SECONDS} s; {told}"
                time.sleep(0.1)

        wait("Ray has started", (base / "up").exists)
        joined = {}
        for number in (2, 3):
            host = network.add(number)
            join = f"""
                test ! -e '{photos}' && test ! -e '{pipeline}' && test ! -e '{weights}'
                until ray start --address {address} --node-ip-address {ADDRESS.format(number)} --num-cpus 1 {options}
                do ray stop --force; done
                sleep {SECONDS}
            """
            joined[host] = network.start(host, join, hidden=(base,))
        for host in joined:
            wait("all have joined", lambda host=host: "Ray runtime started" in (logs / f"{host}.log").read_text())
        (base / "complete").touch()
        wait("one is at work", lambda: any(map(attacks, joined)))
        host = next(each for each in joined if attacks(each))
        run("ip", "-n", host, "link", "set", "eth0", "down")
        network.end(joined[host])
        while command.poll() is None:
            assert time.monotonic() < until, f"not all done within {SECONDS} s"
            time.sleep(0.1)
        assert command.returncode == 0, (logs / f"{network.first}.log").read_text()[-2000:]
    assert Counter(each["event"] for each in events(out)) == {"begun": 4, "ended": 3, "died": 1}
    settings = small_settings(photos, pipeline, tmp_path / "local", surrogates=(surrogate,), batch=1, threads=1)
    local, remote = attack_folder(settings), Store(out)
    assert len(pngs(out)) > 0
    assert pngs(out) == pngs(local.folder)
    assert len(untimed(remote)) == 3
    assert untimed(remote) == untimed(local)
