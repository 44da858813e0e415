"""Time an attack against DiffAttack as published and against its own floor.

    python benchmarks/speed.py [--models lab mini] [--rounds 9] [--parts iterations images batch] [--device cpu]

The parts are one iteration, a whole image, and the throughput of larger batches.

``sd2`` takes 18 GB with jemalloc (LD_PRELOAD=libjemalloc.so.2), which gives free memory back, or
with MALLOC_MMAP_THRESHOLD_=65536 in the environment, which is slower. On a CPU only its iterations
are timed unless --parts asks for more. --quick tries everything out and writes nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from models import MODELS, Model, build
from pieces import Images, batches, iterations, published_images, whole_images
from timing import machine, medians, take_turns
from torch import Tensor

from attnshift.deterministic import settle_device
from attnshift.metrics.metrics import ssim
from attnshift.profiling import profiled
from results import record

BATCHES = (1, 2, 4, 8, 16)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["lab", "mini"])
    parser.add_argument("--rounds", type=int, default=9, help="five at most of images, and a third of sd2 on a CPU")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=[])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=0, help="0: as many as attnshift attack uses")
    parser.add_argument("--published", type=Path, help="a clone of DiffAttack's repository: time whole images by it")
    parser.add_argument("--quick", action="store_true", help="one round, batches of 1 and 2, nothing is written")
    options = parser.parse_args(arguments)
    rounds = 1 if options.quick else options.rounds
    settle_device(options.device)
    for name in options.models:
        model = build(name, options.device)
        torch.set_num_threads(options.threads or model.threads)
        slow = model.large and options.device == "cpu"
        for part in options.parts or (["iterations"] if slow else PARTS):
            repeated = max(1, rounds // 3) if slow else min(rounds, 5) if part == "images" else rounds
            figures = PARTS[part](model, repeated, options)
            print(f"{name}, {part}", *(f"{key}: {value}" for key, value in figures.items()), sep="\n  ")
            if not options.quick:
                threads = torch.get_num_threads()
                called = name if threads == 1 or options.device != "cpu" else f"{name}, {threads} threads"
                record(options.device, called, figures, part, machine(options.device) | {"rounds": repeated})


def time_iterations(model: Model, rounds: int, options: argparse.Namespace) -> dict[str, Any]:
    return {"seconds_iteration": medians(take_turns(iterations(model), rounds))}


def time_images(model: Model, rounds: int, options: argparse.Namespace) -> dict[str, Any]:
    """Time whole images.

    An attack may end early on the lab alone; elsewhere ``quick`` runs all its iterations.
    """
    count = 1 if options.quick else model.batch
    work = whole_images(model, count, () if model.name == "lab" else ("finish.early=false",))
    if options.published:
        work["published"] = published_images(options.published, model, count)
    images: dict[str, Tensor] = {}

    def keeping(name: str) -> None:
        images[name] = work[name]()

    # The first image warms up everything.
    seconds = take_turns({name: lambda name=name: keeping(name) for name in work}, rounds, warm_up=0)
    return {
        "seconds_image": {name: value / count for name, value in medians(seconds).items()},
        "images": count,
        "profile": {name: shares(work[name]) for name in ("exact", "fast", "quick")},
        **({"judged": judged(model, images)} if model.name == "lab" else {}),
    }


def shares(work: Images) -> dict[str, float]:
    """Return the share in [0,1] of each part in a whole attack, and of its bookkeeping."""
    with profiled() as profile:
        work()
    found = {name: seconds / profile.whole for name, seconds in profile.seconds.items() if name != "loading"}
    return found | {"bookkeeping_in_iterations": profile.seconds["bookkeeping"] / profile.iterations}


def time_batches(model: Model, rounds: int, options: argparse.Namespace) -> dict[str, Any]:
    """Return images per second in one iteration, by preset and number of images."""
    sizes, curves = BATCHES[:2] if options.quick else BATCHES, {}
    for preset in ("diffattack", "quick"):
        seconds = medians(take_turns(batches(model, preset, sizes), rounds))
        curves[preset] = {str(size): size / taken for size, taken in seconds.items()}
    return {"batch": curves}


@torch.no_grad()
def judged(model: Model, attacked: Mapping[str, Tensor]) -> dict[str, dict[str, float]]:
    """Return success on the attacked classifier and on the seven others, and the mean SSIM.

    Success counts the images that a classifier gets right when clean.
    """
    classifiers = model.classifiers(8)
    tasks = model.tasks(len(next(iter(attacked.values()))), classifiers[0])
    clean = torch.stack([task.image for task in tasks]).to(model.device)
    labels = torch.tensor([task.label for task in tasks], device=model.device)
    right = torch.stack([classifier(clean).argmax(1) == labels for classifier in classifiers])
    found = {}
    for name, images in attacked.items():
        wrong = torch.stack([classifier(images).argmax(1) != labels for classifier in classifiers]) & right
        found[name] = {
            "attacked": float(wrong[:1].sum() / right[:1].sum()),
            "others": float(wrong[1:].sum() / right[1:].sum()),
            "ssim": float(ssim(clean, images).mean()),
        }
    return found


PARTS = {"iterations": time_iterations, "images": time_images, "batch": time_batches}

if __name__ == "__main__":
    main()
