"""What more surrogates cost: one attack iteration with one lab classifier, with all eight, and with all eight in the
notes' form, whose gradients are taken at the latents.

    python benchmarks/surrogates.py [--rounds 15] [--batch 8] [--threads 1]
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path

import torch
from timing import machine, median_ratio, take_turns

from attnshift.attack.loop import Carry, slope
from attnshift.attack.method import Method
from attnshift.attack.problem import Problem, Task, pose
from attnshift.attack.recipe import load_recipe
from attnshift.classifiers import load_classifier
from attnshift.classifiers.classifier import Classifier
from attnshift.diffusion import load_pipeline
from attnshift.diffusion.backbone import Backbone
from attnshift.lab.render import render
from attnshift.lab.scenes import scene
from attnshift.weights import classifier_names

RESULTS = Path(__file__).parent / "results" / "cpu.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    backbone = load_pipeline("lab")
    eight = [load_classifier("lab:resnet")]
    eight += [load_classifier(f"lab:{name}") for name in classifier_names() if name != "resnet"]
    tasks = lab_tasks(options.batch)
    work: dict[str, Callable[[], object]] = {}
    for preset in ("diffattack", "fast"):
        for name, classifiers, settings in (
            ("1", eight[:1], []),
            ("8", eight, []),
            ("8, at the latents", eight, ["classification.space=latent"]),
        ):
            work[f"{preset}, {name}"] = iteration(preset, settings, backbone, classifiers, tasks)
    seconds = take_turns(work, options.rounds)
    print(f"{len(eight)} lab classifiers, batch {options.batch}, {options.rounds} rounds; {machine()}\n")
    print("| preset | surrogates | median seconds an iteration | against one |\n|---|---|---|---|")
    found: dict[str, float] = {}
    for name, taken in seconds.items():
        preset, _, kind = name.partition(", ")
        found[name] = median_ratio(seconds, name, f"{preset}, 1")
        print(f"| `{preset}` | {kind} | {statistics.median(taken):.3f} | {found[name]:.2f} |")
    record = {
        preset: {
            "surrogates8_vs_1": found[f"{preset}, 8"],
            "surrogates8_at_latents_vs_1": found[f"{preset}, 8, at the latents"],
        }
        for preset in ("diffattack", "fast")
    }
    RESULTS.parent.mkdir(exist_ok=True)
    before = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    before["surrogates"] = {"machine": machine(), "batch": options.batch, "rounds": options.rounds, "lab": record}
    RESULTS.write_text(json.dumps(before, indent=1) + "\n")


def lab_tasks(count: int) -> list[Task]:
    scenes = [scene(0, "tuning", index) for index in range(count)]
    pairs = zip(scenes, render(scenes).images, strict=True)
    return [Task(f"lab {at}", image, each.label, each.class_name) for at, (each, image) in enumerate(pairs)]


def iteration(
    preset: str, settings: list[str], backbone: Backbone, classifiers: list[Classifier], tasks: list[Task]
) -> Callable[[], object]:
    """One iteration of the attack on ``tasks``, posed now."""
    quick = ["reconstruction.updates=1", "reconstruction.updates_per_step=0"] if preset == "diffattack" else []
    problem: Problem = pose(Method.of(load_recipe(preset, [*settings, *quick])), backbone, classifiers, tasks)
    latents, carry = problem.trajectory.start, Carry.start(problem)
    return lambda: slope(problem, latents, 3, carry)


if __name__ == "__main__":
    main()
