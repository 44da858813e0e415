"""A backbone, classifiers and tasks in float64.

Clamp, relu and AdamW turn a rounding difference of fp32 into one of a thousandth; in float64 what an image owes to
its batch mates can be told from rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor

from attnshift.attack.method import Method
from attnshift.attack.prepare import PreparedBatch, Task, prepare_batch
from attnshift.classifiers import load_classifier
from attnshift.fingerprint import fingerprint_of
from attnshift.recipes.reading import load_recipe
from later import later
from pipelines import tiny_pipeline
from small_runs import TWO_STEPS

if TYPE_CHECKING:
    from attnshift.classifiers.classifier import Classifier
    from attnshift.diffusion.stable_diffusion import StableDiffusion

stable_diffusion = later("attnshift.diffusion.stable_diffusion")

NAMES = ("snowman", "mug", "ball")


@pytest.fixture(scope="session")
def exact() -> StableDiffusion:
    pipeline = tiny_pipeline(size=64)
    for module in (pipeline.vae, pipeline.unet, pipeline.text_encoder):
        module.double()
    return stable_diffusion.StableDiffusion(pipeline, "tiny")


@pytest.fixture(scope="session")
def exact_classifiers() -> list[Classifier]:
    loaded = [load_classifier(f"random:{name}") for name in ("test_resnet", "test_convnext", "test_efficientnet")]
    for classifier in loaded:
        classifier.network.double()
    return loaded


@pytest.fixture(scope="session")
def tasks(exact_classifiers: list[Classifier]) -> list[Task]:
    """Three 8-bit images away from black and white; the second classifier is right about the first two only."""
    images = torch.rand(3, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    images = ((0.1 + 0.8 * images) * 255).round() / 255
    best = exact_classifiers[1](images).topk(2, 1).indices
    labels = [int(best[0, 0]), int(best[1, 0]), int(best[2, 1])]
    return [
        Task(f"image {at}", image, label, name)
        for at, (image, label, name) in enumerate(zip(images, labels, NAMES, strict=True))
    ]


Prepare = Callable[..., PreparedBatch]


@pytest.fixture(scope="session")
def prepared(exact: StableDiffusion, exact_classifiers: list[Classifier], tasks: list[Task]) -> Prepare:
    """(preset, settings, rows, models) -> the prepared batch, on a path of two steps; each inversion is made once."""
    made: dict[str, dict[str, Tensor]] = {}

    def inversions(
        inputs: Mapping[str, Tensor], facts: Sequence[object], compute: Callable[[], dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        key = fingerprint_of(inputs, facts)
        if key not in made:
            made[key] = compute()
        return made[key]

    def build(
        preset: str, settings: Sequence[str] = (), rows: slice = slice(None), models: slice = slice(1, 2)
    ) -> PreparedBatch:
        method = Method.of(load_recipe(preset, [TWO_STEPS, *settings]))
        return prepare_batch(method, exact, exact_classifiers[models], tasks[rows], inversions)

    return build
