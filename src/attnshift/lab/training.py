"""Seeded training that can be resumed, for all networks of the lab.

The draws of a step depend on (seed, stage, step), and a checkpoint holds all values that a step
reads. So an interrupted training ends with the same weights as an undisturbed one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy
import torch
from torch import Tensor, nn

from attnshift.randomness import generator

__all__ = ["Report", "Stage", "TrainingBatch", "optimise"]

Report = Callable[[str], None]


@dataclass(frozen=True)
class Stage:
    name: str
    steps: int
    batch: int
    learning_rate: float
    weight_decay: float = 0.01
    ema: float = 0.995
    warmup: int = 100


@dataclass(frozen=True)
class TrainingBatch:
    """Rows of the training set for one step, and the generator of the step's draws."""

    indices: Tensor
    draw: numpy.random.Generator

    def uniform(self, *shape: int) -> Tensor:
        return torch.from_numpy(self.draw.random(shape)).float()

    def normal(self, *shape: int) -> Tensor:
        return torch.from_numpy(self.draw.standard_normal(shape, dtype=numpy.float32))


def optimise(
    stage: Stage,
    network: nn.Module,
    loss: Callable[[nn.Module, TrainingBatch], Tensor],
    examples: int,
    seed: int,
    checkpoint: Path,
    report: Report,
) -> nn.Module:
    """Train ``network`` on ``examples`` rows by AdamW, with warm-up and a cosine schedule.

    At the end it has the exponential moving average of its weights. Raises ``FloatingPointError``
    if the loss is not finite.
    """
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=stage.learning_rate, weight_decay=stage.weight_decay)
    average = [parameter.detach().clone() for parameter in parameters]
    step = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        network.load_state_dict(state["network"])
        optimiser.load_state_dict(state["optimiser"])
        average, step = state["average"], state["step"]
        report(f"{stage.name}: continued at step {step}")
    network.train()
    recent, begun, first = 0.0, time.monotonic(), step
    while step < stage.steps:
        for group in optimiser.param_groups:
            group["lr"] = stage.learning_rate * _rate(step, stage)
        draw = generator("lab training", seed, stage.name, step)
        batch = TrainingBatch(torch.from_numpy(draw.integers(examples, size=stage.batch)), draw)
        value = loss(network, batch)
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        step += 1
        decay = min(stage.ema, step / (step + 9))
        with torch.no_grad():
            for averaged, parameter in zip(average, parameters, strict=True):
                averaged.lerp_(parameter, 1 - decay)
        latest = value.item()
        recent = latest if step == first + 1 else 0.95 * recent + 0.05 * latest
        if not math.isfinite(recent):
            raise FloatingPointError(f"{stage.name}: the loss became {recent} at step {step}")
        if step % 100 == 0 or step == stage.steps:
            pace = (time.monotonic() - begun) / (step - first)
            report(
                f"{stage.name}: step {step}/{stage.steps} loss {recent:.4f} left {pace * (stage.steps - step):.0f} s"
            )
            _save(checkpoint, network, optimiser, average, step)
    with torch.no_grad():
        for parameter, averaged in zip(parameters, average, strict=True):
            parameter.copy_(averaged)
    return network.eval()


def _rate(step: int, stage: Stage) -> float:
    warm = min(1.0, (step + 1) / stage.warmup)
    return warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / stage.steps)))


def _save(path: Path, network: nn.Module, optimiser: torch.optim.Optimizer, average: list[Tensor], step: int) -> None:
    temporary = path.with_suffix(".partial")
    state = {"network": network.state_dict(), "optimiser": optimiser.state_dict(), "average": average, "step": step}
    torch.save(state, temporary)
    temporary.replace(path)
