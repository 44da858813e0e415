"""Pieces of work that the benchmarks compare, each ready to run many times."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from models import Model, in_bf16
from published import Published
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from attnshift.attack.loop import AttackState, Gradient, value_and_grad
from attnshift.attack.method import Method
from attnshift.attack.prepare import PreparedBatch, Task, prepare_batch
from attnshift.attack.run import run_attack
from attnshift.batching import concatenated
from attnshift.classifiers.classifier import Classifier
from attnshift.data.images import quantise
from attnshift.diffusion.stable_diffusion import StableDiffusion
from attnshift.recipes.reading import load_recipe

# The naive DiffAttack is the one of the reference test.
sys.path.append(str(Path(__file__).parent.parent / "tests"))
from reference.handover import bare, prepared
from reference.naive_diffattack import Iterate, look, naive_diffattack, show

__all__ = [
    *("Images", "Iteration", "Prepared"),
    *("batches", "check_agreement", "iterations", "published_images", "whole_images"),
]

Iteration = Callable[[], object]
Images = Callable[[], Tensor]

EXACT, FAST = "diffattack", "quick"
# Null-text tuning has no part in the cost of an iteration.
QUICK = ["reconstruction.updates=1", "reconstruction.updates_per_step=0"]
WITHOUT_TERMS = ["terms.self_attention.weight=0", "terms.variance.weight=0"]
NUMBER = 3


@dataclass(frozen=True)
class Prepared:
    """First images of ``model``, prepared; ``latents`` are some distance from the start."""

    model: Model
    classifiers: Sequence[Classifier]
    tasks: Sequence[Task]
    batch: PreparedBatch
    latents: Tensor

    @classmethod
    def of(
        cls, model: Model, preset: str, settings: Sequence[str] = (), batch: int = 1, surrogates: int = 1
    ) -> Prepared:
        classifiers = model.classifiers(surrogates)
        tasks = model.tasks(batch, classifiers[0])
        settings = [*settings, *(QUICK if preset == EXACT else [])]
        ready = prepare_batch(Method.of(load_recipe(preset, settings)), model.backbone, classifiers, tasks)
        start = ready.render.trajectory.start
        step = torch.randn(start.shape, generator=torch.Generator().manual_seed(0)).to(start)
        return cls(model, classifiers, tasks, ready, start + 0.02 * step)

    def ours(self) -> Gradient:
        return value_and_grad(self.batch, self.latents, NUMBER, AttackState.start(self.batch))

    def naive(self) -> Iterate:
        """Run an iteration on the first image alone, as DiffAttack does it."""
        task = self.tasks[0]
        preparation = prepared(self.batch, self.model.backbone, 0, task.class_name)
        return look(self.model.backbone, bare(self.classifiers[0]), preparation, self.latents[:1], task.label)

    def checkpointed_floor(self) -> Tensor:
        """Run the floor with each guided step and the decoder computed again on the way back."""
        return self.floor(lambda part, *given: checkpoint(part, *given, use_reentrant=False))

    def floor(self, carried_out: Callable[..., Any] = lambda part, *given: part(*given)) -> Tensor:
        """Run the same guided steps, decoder and classifier both ways, with diffusers alone."""
        backbone, trajectory = self.model.backbone, self.batch.render.trajectory
        scheduler, scale = backbone.scheduler, backbone.vae.config["scaling_factor"]
        scheduler.set_timesteps(20)
        labels = torch.tensor([task.label for task in self.tasks], device=self.latents.device)
        start = self.latents.detach().requires_grad_()
        with torch.enable_grad():
            latents = start
            for timestep, empty in zip(trajectory.noise_schedule.timesteps, trajectory.unconditional, strict=True):
                states = concatenated([empty, trajectory.text]).states
                output = carried_out(_denoised, backbone, torch.cat([latents, latents]), timestep, states)
                without, told = output.chunk(2)
                noise = without + trajectory.guidance * (told - without)
                latents = scheduler.step(noise, int(timestep), latents).prev_sample
            images = (carried_out(_decoded, backbone, latents / scale) / 2 + 0.5).clamp(0, 1)
            loss = torch.nn.functional.cross_entropy(self.classifiers[0](images), labels, reduction="sum")
            return torch.autograd.grad(loss, start)[0]


def _denoised(backbone: StableDiffusion, latents: Tensor, timestep: float, states: Tensor) -> Tensor:
    return backbone.unet(latents, timestep, encoder_hidden_states=states).sample


def _decoded(backbone: StableDiffusion, latents: Tensor) -> Tensor:
    return backbone.vae.decode(latents).sample


def iterations(model: Model) -> dict[str, Iteration]:
    """Return one iteration on one image for each variant, and one on two images."""
    exact, rounded = Prepared.of(model, EXACT), in_bf16(model)
    check_agreement(exact)
    return {
        "naive": exact.naive,
        "exact": exact.ours,
        "without_terms": Prepared.of(model, EXACT, WITHOUT_TERMS).ours,
        "floor": exact.floor,
        "bf16": Prepared.of(rounded, EXACT).ours,
        "bf16_pair": Prepared.of(rounded, EXACT, batch=2).ours,
        "quick": Prepared.of(model, FAST).ours,
    }


def batches(model: Model, preset: str, sizes: Sequence[int]) -> dict[int, Iteration]:
    """Return one iteration for each number of images."""
    return {size: Prepared.of(model, preset, batch=size).ours for size in sizes}


def whole_images(model: Model, count: int, settings: Sequence[str] = ()) -> dict[str, Images]:
    """Return whole attacks on ``count`` images, from the image to the saved values.

    DiffAttack attacks one image at a time, ours as many together as ``attnshift attack`` does.
    ``settings`` change ``quick``.
    """
    classifiers = model.classifiers()
    tasks = model.tasks(count, classifiers[0])
    network = bare(classifiers[0])
    methods = {
        "exact": Method.of(load_recipe(EXACT)),
        "fast": Method.of(load_recipe("fast")),
        "quick": Method.of(load_recipe(FAST, settings)),
    }

    def attacked(task: Task) -> Tensor:
        image, draw = task.image.to(model.device), (0, task.id)
        steps = methods["exact"].recipe.optimiser.iterations
        result = naive_diffattack(model.backbone, network, image, task.label, task.class_name, steps, draw)
        return show(model.backbone, result.preparation, result.latent)

    def ours(method: Method) -> Tensor:
        parts = [tasks[at : at + model.batch] for at in range(0, count, model.batch)]
        return torch.cat(
            [run_attack(prepare_batch(method, model.backbone, classifiers, part)).images for part in parts]
        )

    return {
        "naive": lambda: quantise(torch.stack([attacked(task) for task in tasks])),
        **{name: lambda method=method: ours(method) for name, method in methods.items()},
    }


def published_images(folder: Path, model: Model, count: int) -> Images:
    """Return attacks on the same images by DiffAttack's published code, a clone in ``folder``."""
    attack, tasks = Published(folder, model), model.tasks(count, model.classifiers()[0])
    return lambda: attack(tasks)


def check_agreement(case: Prepared) -> None:
    """Check that both do the same work: equal losses and gradient, up to rounding."""
    ours, naive = case.ours(), case.naive()
    for name, plain in naive.losses.items():
        found = float(ours.losses[name][0])
        assert abs(found - plain) <= 1e-3 * abs(plain), f"{name}: {found}, and DiffAttack's is {plain}"
    error = float((ours.gradient - naive.gradient).norm() / naive.gradient.norm())
    # A rounding error that takes a ReLU of the classifier across zero changes a gradient by some
    # thousandths.
    assert error < 0.05, f"the gradients differ by {error}"
