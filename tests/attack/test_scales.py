"""What an attack within a budget does not depend on: the scale of the latents. What it does: the limit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from attnshift.attack.method import Method
from attnshift.attack.prepare import Task, prepare_batch
from attnshift.attack.run import run_attack
from attnshift.recipes.reading import load_recipe
from small_runs import TWO_STEPS

if TYPE_CHECKING:
    from attack.conftest import Prepare
    from attnshift.classifiers.classifier import Classifier
    from attnshift.diffusion.backbone import Prediction, Read
    from attnshift.diffusion.stable_diffusion import StableDiffusion

WITHIN = ["expectation.draws=1", "finish.early=false", "optimiser.relative=true", "optimiser.iterations=2"]


class Rescaled:
    """The same model with latents ``factor`` times as large."""

    def __init__(self, backbone: StableDiffusion, factor: float):
        self.backbone, self.factor = backbone, factor

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backbone, name)

    def encode(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        return self.factor * self.backbone.encode(images, noise)

    def decode(self, latents: Tensor, checkpointing: bool = False) -> Tensor:
        return self.backbone.decode(latents / self.factor, checkpointing)

    def denoise(self, latents: Tensor, timestep: int, text: Tensor, reads: Sequence[Read] = ()) -> Prediction:
        predicted = self.backbone.denoise(latents / self.factor, timestep, text, reads)
        return replace(predicted, output=self.factor * predicted.output)


def test_the_scale_of_the_latents_changes_nothing(
    exact: StableDiffusion, exact_classifiers: list[Classifier], tasks: list[Task]
) -> None:
    recipe = load_recipe("quick", [TWO_STEPS, *WITHIN, "budget={metric='l2', limit=1.0}"])
    # A factor that no power of two is, so that rounding differs where it can.
    plain, rescaled = (
        run_attack(prepare_batch(Method.of(recipe), backbone, exact_classifiers[1:2], tasks[:1]))
        for backbone in (exact, Rescaled(exact, 7.3))
    )
    assert (plain.images != torch.stack([task.image for task in tasks[:1]])).any()
    torch.testing.assert_close(rescaled.images, plain.images, rtol=0, atol=1.01 / 255)
    assert (rescaled.images != plain.images).double().mean() < 0.001, "more than rounding at a half"
    assert torch.equal(rescaled.iterations, plain.iterations)


def test_a_looser_budget_goes_further(prepared: Prepare) -> None:
    within = ["expectation.draws=1", "finish.early=false", "optimiser.relative=true", "optimiser.iterations=2"]
    tight, loose = (
        prepared("quick", [*within, f"budget={{metric='l2', limit={limit}}}"], slice(1)) for limit in (0.3, 3.0)
    )
    shown = (tight.images, run_attack(tight).images, run_attack(loose).images)
    clean, near, far = (tight.surrogates.judge(images)[1].max() for images in shown)
    assert far < near < clean
