"""Attack on a GPU: the same bytes each time, then seconds and memory for an image by shape, precision and batch.

    python benchmarks/gpu.py [--device cuda] [--minutes 6] [--models sd2 sd15] [--quick]

Holds the lab's networks to the contract of backbones on the device. Attacks some lab
images twice with the command line, and a third time with an interruption, and compares every file. Then
times whole images of random pipelines and four judges, the most wanted case first, until the minutes are
over, of which every model has its share; cases that were not reached are named. Each case is kept as soon
as it is measured. --quick takes the smallest shape, and writes nothing.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from models import MODELS, Model, build, in_bf16
from peak import above, held
from pieces import whole_images
from timing import computing_time, machine

from attnshift.attack.method import Method
from attnshift.attack.prepare import prepare_batch
from attnshift.attack.run import run_attack
from attnshift.deterministic import settle_device
from attnshift.diffusion import load_pipeline
from attnshift.recipes.reading import load_latent_recipe
from attnshift.results.run import open_run
from attnshift.testing.backbones import BACKBONE_CHECKS
from results import record

UNLIKE = {"seconds", "cpu_seconds"}
"""Columns of a row that differ from run to run."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    parser.add_argument("--minutes", type=float, default=6)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["sd2", "sd15"])
    parser.add_argument("--quick", action="store_true", help="the smallest shape; nothing is written")
    options = parser.parse_args(arguments)
    begun = time.monotonic()
    settle_device(options.device)
    checked = contracts(options.device) | identity(options.device)
    print(*(f"{name}: {value}" for name, value in checked.items()), sep="\n", flush=True)
    names = ["tiny"] if options.quick else options.models
    for number, name in enumerate(names, 1):
        model, found = build(name, options.device), []
        ends = begun + 60 * options.minutes * number / len(names)
        # The first attack loads kernels and chooses among them.
        planned = list(cases(options.quick))
        replace(planned[0], batch=1).measured(model)
        for case in planned:
            found.append(case.measured(model) if time.monotonic() < ends else case.named() | {"reached": False})
            print(f"{name}:", *(f"{key} {value}" for key, value in found[-1].items()), sep=" ", flush=True)
            if not options.quick:
                record(options.device, name, {"cases": found, "checked": checked}, "gpu", machine(options.device))


@dataclass(frozen=True)
class Case:
    preset: str
    precision: str
    side: int
    batch: int

    def named(self) -> dict[str, Any]:
        return {"preset": self.preset, "precision": self.precision, "side": self.side, "batch": self.batch}

    def measured(self, model: Model) -> dict[str, Any]:
        """Seconds of an image, bytes of the batch above the weights, and minutes of a thousand images."""
        sized = replace(in_bf16(model) if self.precision == "bfloat16" else model, side=self.side)
        attack = self._attack(sized)
        before, begun = held(model.device), computing_time()
        try:
            taken = above(before, attack, model.device)
        except torch.OutOfMemoryError:
            return self.named() | {"fits": False}
        seconds = (computing_time() - begun) / self.batch
        judging = self._judging(sized) / self.batch
        minutes = 1000 * (seconds + judging) / 60
        return self.named() | {"seconds": seconds, "judging": judging, "bytes": taken, "minutes_of_1000": minutes}

    @torch.no_grad()
    def _judging(self, model: Model) -> float:
        """Seconds in which four judges classify the batch, its reconstruction and its clean images."""
        _, *judges = model.classifiers(5)
        images = torch.rand(3 * self.batch, 3, model.side, model.side, device=model.device)
        for judge in judges:
            judge(images[:1])
        begun = computing_time()
        for judge in judges:
            judge(images)
        return computing_time() - begun

    def _attack(self, model: Model) -> Callable[[], object]:
        """An attack on the whole batch, with its images at hand."""
        if self.preset == "naive":
            return whole_images(model, self.batch)["naive"]
        classifiers, method = model.classifiers(), Method.of(load_latent_recipe(self.preset))
        tasks = model.tasks(self.batch, classifiers[0])
        return lambda: run_attack(prepare_batch(method, model.backbone, classifiers, tasks))


def cases(quick: bool) -> Iterator[Case]:
    if quick:
        yield from (Case(preset, "float32", 64, 2) for preset in ("fast", "naive"))
        return
    for precision in ("bfloat16", "float32"):
        for side in (224, 512):
            yield from (Case("fast", precision, side, batch) for batch in (1, 4, 16, 32))
            yield Case("diffattack", precision, side, 1)
            # The published code has no other precision.
            if precision == "float32":
                yield Case("naive", precision, side, 1)


def contracts(device: str) -> dict[str, bool]:
    """True for each part of the backbones' contract that the lab's pipelines keep on ``device``."""
    checks = {f"{name}: {check.__name__}": (check, name) for name in ("lab", "lab-flow") for check in BACKBONE_CHECKS}
    return {told: _kept(check, load_pipeline(name).to(device)) for told, (check, name) in checks.items()}


def _kept(check: Callable[[Any], None], made: Any) -> bool:
    try:
        check(made)
    except AssertionError as error:
        print(error, file=sys.stderr)
        return False
    return True


def identity(device: str, count: int = 4) -> dict[str, bool]:
    """True where a repeated run and an interrupted one have the files of the first, byte for byte."""
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder, "images")
        _attnshift("lab", "render", str(images), "--count", str(count))
        runs = [Path(folder, name) for name in ("first", "again", "interrupted")]
        command = ["attack", str(images), "--labels", str(images / "labels.csv"), "--surrogate", "lab:resnet"]
        command += ["--preset", "fast", "--device", device, "--batch", "2"]
        for run in runs:
            if run.name == "interrupted":
                _interrupted([*command, "--out", str(run)], run)
            _attnshift(*command, "--out", str(run))
        first, *others = (_content(run) for run in runs)
        return {
            f"{run.name} run equals the first": content == first for run, content in zip(runs[1:], others, strict=True)
        }


def _content(run: Path) -> dict[str, Any]:
    images = {str(path.relative_to(run)): path.read_bytes() for path in sorted(run.rglob("*.png"))}
    rows = {row.id: {k: v for k, v in row.to_record().items() if k not in UNLIKE} for row in open_run(run).results}
    return {"images": images, "rows": rows}


def _interrupted(command: Sequence[str], run: Path) -> None:
    """Attack until the first image is stored, and end as after Ctrl-C."""
    process = subprocess.Popen([sys.executable, "-m", "attnshift", *command], stdout=subprocess.DEVNULL)
    while process.poll() is None and not list(run.rglob("*.png")):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    process.wait()


def _attnshift(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "attnshift", *arguments], check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
