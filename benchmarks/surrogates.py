"""Time one attack iteration with one surrogate, with eight, and with eight whose gradients are
taken at the latents, beside seven classifiers alone: forward to their loss and back to the image.

    python benchmarks/surrogates.py [--models lab] [--rounds 9] [--device cpu] [--quick]

``mini`` attacks eight light ImageNet architectures, ``sd2`` the eight of DiffAttack's paper, all
untrained.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any

import torch
from models import MODELS, Model, build
from pieces import Prepared
from timing import machine, medians, take_turns
from torch import Tensor
from torch.nn.functional import cross_entropy

from results import record

PRESETS = ("diffattack", "quick")
ALONE = "7 alone"
LATENT = ("classification.space=latent",)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["lab"])
    parser.add_argument("--rounds", type=int, default=9, help="a third as many of sd2 on a CPU")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=0, help="0: as many as attnshift attack uses")
    parser.add_argument("--quick", action="store_true", help="one round, nothing is written")
    options = parser.parse_args(arguments)
    for name in options.models:
        model = build(name, options.device)
        slow = model.large and options.device == "cpu"
        rounds = 1 if options.quick else max(1, options.rounds // 3) if slow else options.rounds
        torch.set_num_threads(options.threads or model.threads)
        figures = time_surrogates(model, rounds)
        print(name, *(f"{key}: {value}" for key, value in figures.items()), sep="\n  ")
        if not options.quick:
            circumstances = machine(options.device) | {"rounds": rounds, "batch": model.batch}
            record(options.device, name, figures, "surrogates", circumstances)


def time_surrogates(model: Model, rounds: int) -> dict[str, Any]:
    """Seconds by preset and by what was attacked."""
    figures: dict[str, dict[str, float]] = {}
    for preset in PRESETS:
        work = {
            "1": Prepared.of(model, preset, batch=model.batch).ours,
            "8": Prepared.of(model, preset, batch=model.batch, surrogates=8).ours,
            ALONE: seven_alone(model),
        }
        # On the CPU eight backward passes through the large model take a quarter of an hour and say
        # nothing new.
        if not model.large:
            work["8 at the latents"] = Prepared.of(model, preset, LATENT, model.batch, 8).ours
        figures[preset] = medians(take_turns(work, rounds))
    return {"seconds_surrogates": figures}


def seven_alone(model: Model) -> Callable[[], list[Tensor]]:
    """Return the gradients of the loss of seven classifiers at a batch of images, to be taken."""
    first, *others = model.classifiers(8)
    tasks = model.tasks(model.batch, first)
    labels = torch.tensor([task.label for task in tasks], device=model.device)
    images = torch.stack([task.image for task in tasks]).to(model.device).requires_grad_()
    return lambda: [torch.autograd.grad(cross_entropy(classifier(images), labels), images)[0] for classifier in others]


if __name__ == "__main__":
    main()
