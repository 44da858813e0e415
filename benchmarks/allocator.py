"""Measure attacks whose process keeps the memory that it frees, against one that gives it back.

    python benchmarks/allocator.py [--models lab] [--preset fast] [--count 6] [--set KEY=VALUE] [--rounds 5] [--quick]
    python benchmarks/allocator.py [--rounds 5] --command NAME attnshift attack … --out OUT

Each attack has a process of its own, on one thread, and the two kinds take turns. CPU seconds are
those of the attack, preparation included; the kernel's part of them is told apart. Memory is the
highest that the process had in use meanwhile. --command measures a whole command, with its imports
and its reading and writing, and calls it NAME; a word OUT stands for a new folder each time. --quick
tries it out on one image with one iteration, or on one round of the command, and writes nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from models import MODELS, build
from peak import highest
from timing import machine

from attnshift.attack.method import Method
from attnshift.attack.prepare import prepare_batch
from attnshift.attack.run import run_attack
from attnshift.execution.memory import keep_freed_memory
from attnshift.recipes.reading import load_recipe
from results import record

KINDS = {"given back": "0", "kept": "1"}
"""Values of the variable ATTNSHIFT_KEEP_MEMORY."""
Figures = dict[str, float]
Environment = dict[str, str]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["lab"])
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="change the preset")
    parser.add_argument("--count", type=int, default=6, help="images, attacked together")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one image, one iteration, nothing is written")
    parser.add_argument("--here", action="store_true", help="attack once in this process and print figures")
    parser.add_argument("--command", nargs=argparse.REMAINDER, metavar="NAME …", help="a command, in place of models")
    options = parser.parse_args(arguments)
    count, rounds, changes = options.count, options.rounds, options.set
    if options.quick:
        count, rounds, changes = 1, 1, ["optimiser.iterations=1"]
    if options.here:
        print(json.dumps(attacked(options.models[0], options.preset, changes, count)))
        return
    torch.set_num_threads(1)
    runs: dict[str, Callable[[Environment], Figures]]
    facts: dict[str, object] = {"rounds": rounds}
    if options.command:
        name, *command = options.command
        runs = {name: partial(spent_by, command)}
    else:
        attack = [sys.executable, __file__, "--here", "--preset", options.preset, "--count", str(count)]
        attack += ["--set", *changes] if changes else []
        runs = {name: partial(told_by, [*attack, "--models", name]) for name in options.models}
        facts |= {"images": count, "preset": " ".join([options.preset, *changes])}
    for name, run in runs.items():
        figures = measured(run, rounds)
        print(name, json.dumps(figures))
        if not options.quick:
            record("cpu", name, {"allocator": figures}, "allocator", machine() | facts)


def measured(run: Callable[[Environment], Figures], rounds: int) -> dict[str, Figures]:
    """Return the medians over rounds of all figures that ``run`` has of an environment, by kind."""
    found: dict[str, list[Figures]] = {kind: [] for kind in KINDS}
    for number in range(rounds):
        for kind, taken in found.items():
            taken.append(run(os.environ | {"ATTNSHIFT_KEEP_MEMORY": KINDS[kind]}))
            print(f"round {number + 1} of {rounds}: {kind} {taken[-1]}", file=sys.stderr)
    return {
        kind: {name: statistics.median(each[name] for each in taken) for name in taken[0]}
        for kind, taken in found.items()
    }


def told_by(command: Sequence[str], environment: Environment) -> Figures:
    """Return the figures that ``command`` prints."""
    ended = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(ended.stdout)


def spent_by(command: Sequence[str], environment: Environment) -> Figures:
    """Return what the kernel says that ``command`` has spent, with ``OUT`` a new folder.

    Its most bytes are never fewer than this process has, from which it is forked: 0.9 GB.
    """
    with TemporaryDirectory() as folder:
        words = [str(Path(folder) / "out") if word == "OUT" else word for word in command]
        child = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{' '.join(words)} ended with {child.returncode}")
    return {"seconds": usage.ru_utime + usage.ru_stime, "kernel": usage.ru_stime, "bytes": usage.ru_maxrss * 1024}


def attacked(name: str, preset: str, changes: Sequence[str], count: int) -> Figures:
    """Return CPU ``seconds`` of an attack, those of the ``kernel`` among them, and its most
    ``bytes``."""
    keep_freed_memory()
    torch.set_num_threads(1)
    model, method = build(name), Method.of(load_recipe(preset, changes))
    classifiers = model.classifiers()
    tasks = model.tasks(count, classifiers[0])
    begun = os.times()
    most = highest(lambda: run_attack(prepare_batch(method, model.backbone, classifiers, tasks)))
    ended = os.times()
    kernel = ended.system - begun.system
    return {"seconds": ended.user - begun.user + kernel, "kernel": kernel, "bytes": most}


if __name__ == "__main__":
    main()
