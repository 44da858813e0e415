"""The time of an attack, told by a clock that only moves in the networks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor

from attnshift import profiling
from attnshift.attack.prepare import Task, prepare_batch
from attnshift.attack.run import run_attack
from attnshift.profiling import profiled
from tiers import fast_first

if TYPE_CHECKING:
    from attack.conftest import Prepare
    from attnshift.classifiers.classifier import Classifier
    from attnshift.diffusion.stable_diffusion import StableDiffusion

FORWARD, BACKWARD = (
    {"denoise": 1.0, "decode": 10.0, "classify": 100.0},
    {"denoise": 1e3, "decode": 1e4, "classify": 1e5},
)


class Clock:
    now = 0.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(profiling, "_now", lambda: clock.now)
    return clock


class Takes(torch.autograd.Function):
    """The same tensor, for which the clock moves on in forward and in backward."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, clock: Clock, name: str) -> Tensor:
        ctx.clock, ctx.name = clock, name
        clock.now += FORWARD[name]
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        ctx.clock.now += BACKWARD[ctx.name]
        return gradient, None, None


@dataclass
class Slow:
    """A backbone whose denoiser and decoder take the clock's time."""

    backbone: StableDiffusion
    clock: Clock

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backbone, name)

    def denoise(self, latents: Tensor, *others: Any) -> Any:
        return self.backbone.denoise(Takes.apply(latents, self.clock, "denoise"), *others)

    def decode(self, latents: Tensor, *others: Any) -> Tensor:
        return self.backbone.decode(Takes.apply(latents, self.clock, "decode"), *others)


@pytest.fixture
def slow_classifier(exact_classifiers: list[Classifier], clock: Clock) -> Classifier:
    network = torch.nn.Sequential(exact_classifiers[1].network)
    network.register_forward_pre_hook(lambda _, images: (Takes.apply(images[0], clock, "classify"),))
    return replace(exact_classifiers[1], network=network)


ITERATIONS, STEPS = 3, 4


@pytest.mark.heavy
@pytest.mark.parametrize("changes", fast_first([[], ["diffusion.checkpointing=true"], ["classification.space=latent"]]))
def test_backward_passes_count_for_what_they_go_through(
    prepared: Prepare, tasks: list[Task], clock: Clock, slow_classifier: Classifier, changes: list[str]
) -> None:
    usual = [f"optimiser.iterations={ITERATIONS}", f"diffusion.denoising_steps={STEPS}", "finish.keep=last"]
    plain = prepared("quick", [*usual, "finish.early=false", *changes])
    backbone = Slow(plain.render.backbone, clock)  # type: ignore[arg-type]
    with profiled() as seen:
        batch = prepare_batch(plain.method, backbone, [slow_classifier], tasks)  # type: ignore[arg-type]
        run_attack(batch)
    checkpointing, latent = "diffusion.checkpointing=true" in changes, "classification.space=latent" in changes
    passes = 2 if latent else 1
    # The last iterate is rendered once more, and its classes are read. At the latents a second pass carries the
    # classification back, and only that one goes through the decoder.
    # In iteration 1 the pulls of variance and classification are measured, the latter at the latents without a pass.
    measured = 1 + (not latent)
    there = ITERATIONS * (passes + checkpointing) + 1 + measured * checkpointing
    expected = {
        "denoising": STEPS * (there * FORWARD["denoise"] + (ITERATIONS * passes + measured) * BACKWARD["denoise"]),
        "decoder": (ITERATIONS * passes + 1) * FORWARD["decode"] + (ITERATIONS + (not latent)) * BACKWARD["decode"],
        "classifiers": (ITERATIONS + 1) * FORWARD["classify"] + ITERATIONS * BACKWARD["classify"],
        "fusion": 0,
        "terms": 0,
        "bookkeeping": 0,
        # Noise arm, and attention before and after on the path and on the file, which is inverted for it.
        "controls": 5 * STEPS * FORWARD["denoise"] + FORWARD["decode"],
        "inversion": 2 * STEPS * FORWARD["denoise"],
        "reconstruction": STEPS * FORWARD["denoise"],
        "preparation": STEPS * FORWARD["denoise"] + 2 * FORWARD["decode"],
        "loading": 0,
        "storing": 0,
    }
    assert seen.seconds == pytest.approx(expected)
    assert seen.whole == pytest.approx(clock.now)
