"""Measure attacks whose process keeps the memory that it frees, against one that gives it back.

    python benchmarks/allocator.py [--models lab] [--preset fast] [--count 6] [--set KEY=VALUE] [--rounds 5] [--quick]

Each attack has a process of its own, on one thread, and the two kinds take turns. CPU seconds are
those of the attack, preparation included; the kernel's part of them is told apart. Memory is the
highest that the process had in use meanwhile. --quick tries it out on one image with one iteration
and writes nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence

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


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["lab"])
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="change the preset")
    parser.add_argument("--count", type=int, default=6, help="images, attacked together")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one image, one iteration, nothing is written")
    parser.add_argument("--here", action="store_true", help="attack once in this process and print figures")
    options = parser.parse_args(arguments)
    count, rounds, changes = options.count, options.rounds, options.set
    if options.quick:
        count, rounds, changes = 1, 1, ["optimiser.iterations=1"]
    if options.here:
        print(json.dumps(attacked(options.models[0], options.preset, changes, count)))
        return
    torch.set_num_threads(1)
    for name in options.models:
        command = [sys.executable, __file__, "--here", "--models", name, "--preset", options.preset]
        command += ["--count", str(count), *(["--set", *changes] if changes else [])]
        figures = measured(command, rounds)
        print(name, json.dumps(figures))
        if not options.quick:
            facts = {"rounds": rounds, "images": count, "preset": " ".join([options.preset, *changes])}
            record("cpu", name, {"allocator": figures}, "allocator", machine() | facts)


def measured(command: Sequence[str], rounds: int) -> dict[str, Figures]:
    """Return the medians over rounds of all figures that ``command`` prints, by kind."""
    found: dict[str, list[Figures]] = {kind: [] for kind in KINDS}
    for number in range(rounds):
        for kind, taken in found.items():
            environment = os.environ | {"ATTNSHIFT_KEEP_MEMORY": KINDS[kind]}
            ended = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
            taken.append(json.loads(ended.stdout))
            print(f"round {number + 1} of {rounds}: {kind} {taken[-1]}", file=sys.stderr)
    return {
        kind: {name: statistics.median(each[name] for each in taken) for name in taken[0]}
        for kind, taken in found.items()
    }


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
