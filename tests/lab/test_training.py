"""One seeded, resumable optimisation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from attnshift.lab.training import Stage, TrainingBatch, optimise
from tiers import fast_first

STAGE = Stage("line", steps=230, batch=8, learning_rate=0.05, warmup=10)
INPUTS = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
TARGETS = INPUTS @ torch.tensor([[1.0], [-2.0], [0.5]]) + 0.3


class InterruptedTrainingError(Exception):
    pass


def loss(network: nn.Module, batch: TrainingBatch) -> Tensor:
    noisy = INPUTS[batch.indices] + 0.1 * batch.normal(8, 3) + 0.1 * batch.uniform(8, 1)
    return (network(noisy) - TARGETS[batch.indices]).square().mean()


def interrupted_after(steps: int) -> Callable[[nn.Module, TrainingBatch], Tensor]:
    left = iter(range(steps))

    def fail(network: nn.Module, batch: TrainingBatch) -> Tensor:
        if next(left, None) is None:
            raise InterruptedTrainingError
        return loss(network, batch)

    return fail


def train(
    checkpoint: Path,
    seed: int = 0,
    stage: Stage = STAGE,
    lowered: Callable[[nn.Module, TrainingBatch], Tensor] = loss,
    reports: list[str] | None = None,
    elsewhere: int = 0,
) -> dict[str, Tensor]:
    """Final weights; ``elsewhere`` is the state of the global generator, which must not matter."""
    torch.manual_seed(1)
    network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    torch.manual_seed(elsewhere)
    report = (lambda line: None) if reports is None else reports.append
    trained = optimise(stage, network, lowered, len(INPUTS), seed, checkpoint, report)
    assert trained is network
    assert not network.training
    return network.state_dict()


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("steps", fast_first([137, 229, 30, 100]))
def test_continued_training_ends_with_the_weights_of_an_undisturbed_one(tmp_path: Path, steps: int) -> None:
    undisturbed = train(tmp_path / "whole.pt")
    with pytest.raises(InterruptedTrainingError):
        train(tmp_path / "parts.pt", lowered=interrupted_after(steps), elsewhere=2)
    assert (tmp_path / "parts.pt").exists() == (steps >= 100)
    reports: list[str] = []
    continued = train(tmp_path / "parts.pt", reports=reports, elsewhere=3)
    assert equal(continued, undisturbed)
    assert any("continued at step" in line for line in reports) == (steps >= 100)


def test_finished_training_is_not_repeated(tmp_path: Path) -> None:
    first = train(tmp_path / "done.pt")

    def forbidden(network: nn.Module, batch: TrainingBatch) -> Tensor:
        raise AssertionError("trained although it was finished")

    assert equal(train(tmp_path / "done.pt", lowered=forbidden), first)


def test_seeds_and_stages_draw_differently(tmp_path: Path) -> None:
    short = Stage("line", 5, 8, 0.05)
    base = train(tmp_path / "a.pt", stage=short)
    assert equal(base, train(tmp_path / "b.pt", stage=short))
    assert not equal(base, train(tmp_path / "c.pt", seed=1, stage=short))
    assert not equal(base, train(tmp_path / "d.pt", stage=Stage("other", 5, 8, 0.05)))


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    network = nn.Linear(3, 1)
    optimise(STAGE, network, loss, len(INPUTS), 0, tmp_path / "x.pt", lambda line: None)
    with torch.no_grad():
        assert (network(INPUTS) - TARGETS).square().mean() < 0.1 * TARGETS.var()


def test_result_is_the_average_of_the_weights_and_not_the_last_ones(tmp_path: Path) -> None:
    """With a decay of min(ema, n/(n+9)), the weights of the first steps add up to one."""
    stage, seen = Stage("line", 6, 8, 0.05), []

    def watching(network: nn.Module, batch: TrainingBatch) -> Tensor:
        seen.append(network.weight.detach().clone())
        return loss(network, batch)

    torch.manual_seed(0)
    network = nn.Linear(3, 1)
    optimise(stage, network, watching, len(INPUTS), 0, tmp_path / "x.pt", lambda line: None)
    last = torch.load(tmp_path / "x.pt", weights_only=True)["network"]["weight"]
    average = seen[0]
    for step, weight in enumerate([*seen[1:], last], start=1):
        decay = min(0.995, step / (step + 9))
        average = decay * average + (1 - decay) * weight
    torch.testing.assert_close(network.weight.detach(), average)
    assert not torch.allclose(network.weight.detach(), last)


def test_a_loss_that_is_not_finite_stops_the_training(tmp_path: Path) -> None:
    with pytest.raises(FloatingPointError, match="line: the loss became nan at step 1"):
        train(tmp_path / "x.pt", lowered=lambda network, batch: loss(network, batch) * torch.nan)
    assert not (tmp_path / "x.pt").exists()
