"""Measure the memory above the loaded weights of one attack iteration on one image, beside
DiffAttack as published.

    python benchmarks/memory.py [--models lab mini] [--device cpu] [--published CLONE] [--quick]

Each variant has a process of its own. The prepared batch counts too, because it exists while the
iteration runs. With a clone of DiffAttack's repository a whole image is measured too, by its code
and by ours. --quick writes nothing.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from models import LARGE, MODELS, Model, build, in_bf16
from peak import ENVIRONMENT, above, held
from pieces import Prepared, published_images, whole_images
from timing import machine

from attnshift.deterministic import settle_device
from results import record

SAVING = ("diffusion.checkpointing=true",)
VARIANTS: dict[str, Callable[[Model], Callable[[], object]]] = {
    "naive": lambda model: Prepared.of(model, "diffattack").naive,
    "exact": lambda model: Prepared.of(model, "diffattack").ours,
    "checkpointed": lambda model: Prepared.of(model, "diffattack", SAVING).ours,
    "floor": lambda model: Prepared.of(model, "diffattack").floor,
    "checkpointed_floor": lambda model: Prepared.of(model, "diffattack").checkpointed_floor,
    "bf16": lambda model: Prepared.of(model, "diffattack").ours,
    "quick": lambda model: Prepared.of(model, "quick").ours,
}
IMAGES: dict[str, Callable[[Model, Path], Callable[[], object]]] = {
    "published_image": lambda model, clone: published_images(clone, model, 1),
    "exact_image": lambda model, clone: whole_images(model, 1)["exact"],
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["lab", "mini"])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--published", type=Path, help="a clone of DiffAttack's repository")
    parser.add_argument("--quick", action="store_true", help="nothing is written")
    parser.add_argument(
        "--variant", choices=[*VARIANTS, *IMAGES], help="measure this one in this process and print bytes"
    )
    options = parser.parse_args(arguments)
    # Those of each variant's own process too.
    torch.set_num_threads(1)
    if options.variant:
        print(measure(options.models[0], options.variant, options.device, options.published))
        return
    for name in options.models:
        variants = variants_with(options.published)
        taken = {variant: in_a_process(name, variant, options.device, options.published) for variant in variants}
        print(name, *(f"{key}: {value}" for key, value in taken.items()), sep="\n  ")
        if not options.quick:
            record(options.device, name, {"bytes": taken}, "memory", machine(options.device))


def variants_with(clone: Path | None) -> dict[str, Callable[[Model], Callable[[], object]]]:
    """Return what is measured, with a ``clone`` whole images too."""
    return VARIANTS | ({} if clone is None else {name: partial(work, clone=clone) for name, work in IMAGES.items()})


def measure(name: str, variant: str, device: str, clone: Path | None) -> int:
    """Return the bytes above the loaded weights of one variant, preparation included."""
    settle_device(device)
    # A first run loads libraries and makes their buffers; a small model does it where a large one
    # takes minutes.
    prepared = variants_with(clone)[variant]
    prepared(_loaded("mini" if name in LARGE else name, variant, device))()
    model = _loaded(name, variant, device)
    before = held(device)
    return above(before, prepared(model), device)


def _loaded(name: str, variant: str, device: str) -> Model:
    model = build(name, device)
    model.classifiers()
    return in_bf16(model) if variant == "bf16" else model


def in_a_process(name: str, variant: str, device: str, clone: Path | None = None) -> int:
    """Run ``measure`` in a process of its own."""
    command = [sys.executable, __file__, "--models", name, "--variant", variant, "--device", device]
    command += [] if clone is None else ["--published", str(clone)]
    print(f"{name}: {variant}", file=sys.stderr)
    ended = subprocess.run(command, env=os.environ | ENVIRONMENT, stdout=subprocess.PIPE, text=True, check=True)
    return int(ended.stdout)


if __name__ == "__main__":
    main()
