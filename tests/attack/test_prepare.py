"""What is prepared before an attack."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch

from attnshift.attack.method import Method
from attnshift.attack.prepare import Task, prepare_batch
from attnshift.batching import select_rows
from attnshift.recipes.reading import load_recipe

if TYPE_CHECKING:
    from attack.conftest import Prepare
    from attnshift.classifiers.classifier import Classifier
    from attnshift.diffusion.stable_diffusion import StableDiffusion

FEW = ["reconstruction.updates=0", "reconstruction.updates_per_step=0"]


@pytest.mark.heavy
def test_sampled_codes_belong_to_the_image_and_the_seed(
    exact: StableDiffusion, exact_classifiers: list[Classifier], tasks: list[Task]
) -> None:
    def start(shown: list[Task], seed: int = 0) -> torch.Tensor:
        method = Method.of(load_recipe("diffattack", [*FEW, f"seed={seed}"]))
        return prepare_batch(method, exact, exact_classifiers[:1], shown).render.trajectory.start

    whole = start(tasks)
    torch.testing.assert_close(start(tasks[::-1]), whole.flip(0), rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(start(tasks[1:2])[0], whole[1], rtol=1e-6, atol=1e-9)
    assert (start(tasks, seed=1) - whole).abs().amax((1, 2, 3)).min() > 1e-4
    renamed = [replace(task, id=f"other {task.id}") for task in tasks]
    assert (start(renamed) - whole).abs().amax((1, 2, 3)).min() > 1e-4


def test_tokens_are_those_of_each_images_own_prompt(prepared: Prepare) -> None:
    assert prepared("quick").observe.tokens == ((5, 6), (5,), (5,))
    assert prepared("diffattack", FEW).observe.tokens == ((1, 2), (1,), (1,))


def test_goals_are_the_tasks_own(
    exact: StableDiffusion, exact_classifiers: list[Classifier], tasks: list[Task]
) -> None:
    method = Method.of(load_recipe("quick", ["diffusion.denoising_steps=1"]))
    labels = [task.label for task in tasks]
    aims = [(label + 1 + at) % 1000 for at, label in enumerate(labels)]
    shown = [replace(task, target=aim) for task, aim in zip(tasks, aims, strict=True)]
    goals = prepare_batch(method, exact, exact_classifiers[:1], shown).surrogates.goals
    assert goals.targets is not None
    assert (goals.labels.tolist(), goals.targets.tolist()) == (labels, aims)
    assert prepare_batch(method, exact, exact_classifiers[:1], tasks).surrogates.goals.targets is None


def test_rows_cut_everything_alike(prepared: Prepare) -> None:
    batch = prepared("quick", ["diffusion.guidance=2.5"])
    part = select_rows(batch, torch.tensor([2, 0]))
    assert part.observe.tokens == (batch.observe.tokens[2], batch.observe.tokens[0])
    assert torch.equal(part.surrogates.goals.labels, batch.surrogates.goals.labels[[2, 0]])
    assert part.render.residual is not None
    assert batch.render.residual is not None
    offsets, whole_offsets = part.render.trajectory.offsets, batch.render.trajectory.offsets
    assert offsets is not None
    assert whole_offsets is not None
    pairs = [
        (part.images, batch.images),
        (part.render.residual, batch.render.residual),
        (part.round_trip, batch.round_trip),
        (part.observe.clean.latents, batch.observe.clean.latents),
        (part.observe.clean.images, batch.observe.clean.images),
        (part.render.trajectory.start, batch.render.trajectory.start),
        (part.render.trajectory.text.states, batch.render.trajectory.text.states),
        *((a.states, b.states)
          for a, b in zip(part.render.trajectory.unconditional, batch.render.trajectory.unconditional, strict=True)),
        *zip(offsets, whole_offsets, strict=True),
        *((a, b) for site, steps in batch.observe.clean.attention.items()
          for a, b in zip(part.observe.clean.attention[site], steps, strict=True)),
    ]  # fmt: skip
    for cut, whole in pairs:
        assert torch.equal(cut, whole[[2, 0]])
