"""Measure which share of the machine's matrix rate an iteration reaches, and its largest kernels.

    python benchmarks/rates.py [--models lab mini] [--batch 1] [--rounds 3] [--device cpu] [--quick]

The ceiling is the rate of the fastest square matrix product in the precision of the weights.
Operations are those of matrix products, convolutions and attention, forward and backward, two for
each product that is summed. Kernels are those that torch's profiler distinguishes. --quick writes
nothing.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from models import MODELS, Model, build, in_bf16
from pieces import EXACT, FAST, Iteration, Prepared
from timing import machine, medians, take_turns
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from attnshift.deterministic import settle_device
from results import record

SIDES = {"cpu": (1024, 2048), "cuda": (4096, 8192)}
LARGEST = 4


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["lab", "mini"])
    parser.add_argument("--batch", type=int, default=1, help="images in one iteration; naive always has one")
    parser.add_argument("--rounds", type=int, default=3, help="one of sd2 on a CPU")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=0, help="0: as many as attnshift attack uses")
    parser.add_argument("--quick", action="store_true", help="one round, nothing is written")
    options = parser.parse_args(arguments)
    settle_device(options.device)
    for name in options.models:
        model = build(name, options.device)
        torch.set_num_threads(options.threads or model.threads)
        slow = model.large and options.device == "cpu"
        rounds = 1 if options.quick or slow else options.rounds
        figures = measured(model, options.batch, rounds)
        print(name, *(f"{key}: {value}" for key, value in figures["rates"].items()), sep="\n  ")
        if not options.quick:
            circumstances = machine(options.device) | {"rounds": rounds, "batch": options.batch}
            record(options.device, name, figures, "rates", circumstances)


@dataclass(frozen=True)
class Variant:
    prepare: Callable[[Model, int], Iteration]
    weights: torch.dtype = torch.float32


VARIANTS: dict[str, Variant] = {
    "naive": Variant(lambda model, batch: Prepared.of(model, EXACT).naive),
    "exact": Variant(lambda model, batch: Prepared.of(model, EXACT, batch=batch).ours),
    "bf16": Variant(lambda model, batch: Prepared.of(in_bf16(model), EXACT, batch=batch).ours, torch.bfloat16),
    "quick": Variant(lambda model, batch: Prepared.of(model, FAST, batch=batch).ours),
    "quick, bf16": Variant(lambda model, batch: Prepared.of(in_bf16(model), FAST, batch=batch).ours, torch.bfloat16),
}


def measured(model: Model, batch: int, rounds: int) -> dict[str, Any]:
    """Measure every variant.

    A variant has ``operations`` of one iteration, ``seconds``, the ``share`` of the matrix rate in
    [0,1], and the ``kernels`` that take most, each with its share of the time. ``ceilings`` are
    operations a second.
    """
    ceilings = {
        str(dtype).removeprefix("torch."): matrix_rate(dtype, model.device) for dtype in (torch.float32, torch.bfloat16)
    }
    found: dict[str, Any] = {}
    for name, variant in VARIANTS.items():
        work = variant.prepare(model, batch)
        operations = counted(work)
        # Counting was the warm-up.
        seconds = medians(take_turns({name: work}, rounds, warm_up=0))[name]
        ceiling = ceilings[str(variant.weights).removeprefix("torch.")]
        found[name] = {
            "operations": operations,
            "seconds": seconds,
            "share": operations / seconds / ceiling,
            "kernels": largest_kernels(work, model.device),
        }
    return {"rates": {"ceilings": ceilings, "variants": found}}


def matrix_rate(dtype: torch.dtype, device: str) -> float:
    """Return operations a second of the fastest square matrix product, best of five."""
    best = math.inf
    for side in SIDES[device]:
        left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        taken = take_turns({f"{dtype} {side}": lambda left=left, right=right: left @ right}, 5)
        best = min(best, *(seconds / (2 * side**3) for each in taken.values() for seconds in each))
    return 1 / best


class Operations(TorchDispatchMode):
    """Counts in ``total`` the operations of all code that runs inside it."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(
        self, func: Any, types: object, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        formula = FORMULAS.get(func.overloadpacket)
        if formula is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=result)
        return result


def _attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: object, **__: object) -> int:
    return int(sdpa_flop_count(query.shape, key.shape, value.shape))


def _attention_backward(
    grad: torch.Tensor, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: object, **__: object
) -> int:
    return int(sdpa_backward_flop_count(grad.shape, query.shape, key.shape, value.shape))


# torch knows the formulas of CUDA's fused attention, and not those of the CPU's.
FORMULAS: dict[Any, Callable[..., int]] = {
    **flop_registry,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}


def counted(work: Iteration) -> int:
    with Operations() as operations:
        work()
    return operations.total


def largest_kernels(work: Iteration, device: str) -> list[tuple[str, float]]:
    """Return the kernels that take most time, with their share in [0,1] of all kernels."""
    on_gpu = device == "cuda"
    activity = ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU
    with profile(activities=[activity], acc_events=True) as profiled:  # torch 2.11 warns without it
        work()
    events = profiled.key_averages()
    taken = {event.key: event.self_device_time_total if on_gpu else event.self_cpu_time_total for event in events}
    largest = sorted(taken, key=taken.__getitem__, reverse=True)[:LARGEST]
    return [(name, taken[name] / sum(taken.values())) for name in largest]


if __name__ == "__main__":
    main()
