"""Where the time went, told by a clock that only moves when a part of the attack says so."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor

from attnshift import profiling
from attnshift.attack.prepare import Task, prepare_batch
from attnshift.attack.run import run_attack
from attnshift.classifiers.classifier import Classifier
from attnshift.diffusion.stable_diffusion import StableDiffusion
from attnshift.profiling import PARTS, Profile, part, profiled, time_backward, timed

if TYPE_CHECKING:
    from attack.conftest import Prepare

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


def test_every_second_counts_once_and_for_the_innermost_part(clock: Clock) -> None:
    with profiled() as seen:
        clock.now += 1
        with part("bookkeeping"):
            clock.now += 2
            with part("fusion"):
                clock.now += 4
                with part("classifiers"):
                    clock.now += 8
                clock.now += 16
            clock.now += 32
        clock.now += 64
    clock.now += 128
    counted = {name: seconds for name, seconds in seen.seconds.items() if seconds}
    assert counted == {"storing": 65, "bookkeeping": 34, "fusion": 20, "classifiers": 8}
    assert seen.whole == 127
    assert seen.iterations == 62


def test_what_iterations_are_made_of_belongs_to_others_outside_of_them(clock: Clock) -> None:
    with profiled() as seen, part("controls"):
        with part("denoising"):
            clock.now += 1
        with part("inversion"):
            clock.now += 2
    assert (seen.seconds["controls"], seen.seconds["inversion"], seen.seconds["denoising"]) == (1, 2, 0)


def test_parts_are_closed_by_exceptions(clock: Clock) -> None:
    def broken() -> None:
        with part("loading"):
            clock.now += 1
            raise ValueError("broken")

    with profiled() as seen:
        with pytest.raises(ValueError, match="broken"):
            broken()
        clock.now += 2
    assert (seen.seconds["loading"], seen.seconds["storing"]) == (1, 2)


def test_nothing_happens_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden() -> float:
        raise AssertionError("a clock was read")

    monkeypatch.setattr(profiling, "_now", forbidden)
    tensor = torch.ones(1, requires_grad=True) * 1
    classifiers = [torch.nn.Identity()]
    with part("bookkeeping"):
        time_backward("denoising", tensor)
    assert timed(classifiers) is classifiers
    assert not tensor._backward_hooks


class Takes(torch.autograd.Function):
    """The same tensor, for which the clock moves on in forward and in backward."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, clock: Clock, name: str) -> Tensor:
        ctx.clock, ctx.name = clock, name
        clock.now += FORWARD[name]
        return tensor.view_as(tensor)

    @staticmethod
    def time_backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
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


@pytest.mark.parametrize("changes", [[], ["diffusion.checkpointing=true"], ["classification.space=latent"]])
def test_backward_passes_count_for_what_they_go_through(
    prepared: Prepare, tasks: list[Task], clock: Clock, slow_classifier: Classifier, changes: list[str]
) -> None:
    plain = prepared("fast", [f"optimiser.iterations={ITERATIONS}", "finish.keep=last", "finish.early=false", *changes])
    backbone = Slow(plain.backbone, clock)  # type: ignore[arg-type]
    with profiled() as seen:
        batch = prepare_batch(plain.method, backbone, [slow_classifier], tasks)  # type: ignore[arg-type]
        run_attack(batch)
    checkpointing, latent = "diffusion.checkpointing=true" in changes, "classification.space=latent" in changes
    passes = 2 if latent else 1
    # The last iterate is rendered once more, and its classes are read. At the latents a second pass carries the
    # classification back, and only that one goes through the decoder.
    there = ITERATIONS * (passes + checkpointing) + 1
    expected = {
        "denoising": STEPS * (there * FORWARD["denoise"] + ITERATIONS * passes * BACKWARD["denoise"]),
        "decoder": (ITERATIONS * passes + 1) * FORWARD["decode"] + ITERATIONS * BACKWARD["decode"],
        "classifiers": (ITERATIONS + 1) * FORWARD["classify"] + ITERATIONS * BACKWARD["classify"],
        "fusion": 0,
        "terms": 0,
        "bookkeeping": 0,
        # Noise arm and attention before and after, and in the preparation the clean path and the round trip.
        "controls": 3 * STEPS * FORWARD["denoise"] + FORWARD["decode"],
        "inversion": STEPS * FORWARD["denoise"],
        "reconstruction": STEPS * FORWARD["denoise"],
        "preparation": STEPS * FORWARD["denoise"] + 2 * FORWARD["decode"],
        "loading": 0,
        "storing": 0,
    }
    assert seen.seconds == pytest.approx(expected)
    assert seen.whole == pytest.approx(clock.now)


def test_profile_starts_with_every_part() -> None:
    assert tuple(Profile().seconds) == PARTS
