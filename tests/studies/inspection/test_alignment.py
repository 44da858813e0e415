"""Cosines at the start latents, on the smallest pipeline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor

from attnshift.attack.method import Method
from attnshift.attack.prepare import PreparedBatch, Task, prepare_batch
from attnshift.metrics.statistics import bootstrap
from attnshift.recipes.reading import load_latent_recipe
from attnshift.studies.inspection.bench import prompts_of
from attnshift.studies.inspection.gradients import Alignment, align_with
from attnshift.studies.inspection.probes import Probes, find_probes

if TYPE_CHECKING:
    from attnshift.classifiers.classifier import Classifier
    from attnshift.diffusion.stable_diffusion import StableDiffusion

Align = Callable[..., list[Alignment]]


@pytest.fixture(scope="module")
def tasks() -> list[Task]:
    images = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    images = torch.nn.functional.interpolate(images, (64, 64), mode="bicubic").clamp(0.1, 0.9)
    return [Task(f"image {at}", image, 5 + at, "mug") for at, image in enumerate(images)]


@pytest.fixture(scope="module")
def align(backbone: StableDiffusion, classifiers: list[Classifier]) -> Align:
    """Alignments of tasks, with the first classifier as the surrogate, moved away from the clean latents by
    ``strength``."""
    given = ["interference.choose=given", "interference.phrase=tree"]

    def measured(
        tasks: Sequence[Task],
        tuning: Sequence[Classifier] = classifiers[1:2],
        terms: Sequence[str] = ("l2",),
        strength: float = 0.0,
        steps: int = 2,
    ) -> list[Alignment]:
        recipe = load_latent_recipe("fast", [f"diffusion.denoising_steps={steps}", *given])
        probes: Probes = find_probes(recipe, backbone, 64, terms)
        method = replace(Method.of(recipe), objective=probes.objective())
        batch = prepare_batch(method, backbone, classifiers[:1], tasks)
        latents = moved(batch, strength)
        return align_with(tuning, batch, probes.terms, latents, 0, prompts_of(batch, tasks))[0]

    return measured


def moved(batch: PreparedBatch, strength: float) -> Tensor:
    start = batch.render.trajectory.start
    steps = [torch.randn(start.shape[1:], generator=torch.Generator().manual_seed(int(id[-1]))) for id in batch.key.ids]
    return start + strength * torch.stack(steps)


def of_kind(found: Sequence[Alignment], kind: str) -> list[Alignment]:
    return [each for each in found if each.kind == kind]


def test_a_margin_is_aligned_with_itself(align: Align, tasks: list[Task], classifiers: list[Classifier]) -> None:
    (own,) = of_kind(align(tasks, classifiers[:1]), "surrogate")
    assert own.cosine.tolist() == pytest.approx([1.0] * 3, abs=1e-4)


@pytest.mark.heavy
def test_several_unseen_classifiers_count_the_same(
    align: Align, tasks: list[Task], classifiers: list[Classifier]
) -> None:
    both, first, second = (
        of_kind(align(tasks[:1], tuning), "surrogate")[0].cosine
        for tuning in (classifiers[1:], classifiers[1:2], classifiers[2:])
    )
    torch.testing.assert_close(both, (first + second) / 2, rtol=1e-3, atol=1e-4)


def test_a_random_direction_is_aligned_with_nothing(align: Align, tasks: list[Task]) -> None:
    many = [replace(tasks[at % 3], id=f"drawn {at}") for at in range(9)]
    (null,) = of_kind(align(many), "random")
    interval = bootstrap(null.cosine.tolist())
    assert interval.low < 0 < interval.high
    assert len(set(null.cosine.tolist())) == 9
    assert bool(null.ratio.isnan().all())


def test_what_an_image_shows_does_not_depend_on_its_batch_mates(align: Align, tasks: list[Task]) -> None:
    terms = ("contrast,form=log",)
    together, alone = (align(each, terms=terms, strength=0.05, steps=1) for each in (tasks[:2], tasks[1:2]))
    assert {each.kind for each in together} == {"surrogate", "classification", "term", "random", "direction"}
    for whole, own in zip(together, alone, strict=True):
        assert (whole.kind, whole.name, whole.place, whole.step) == (own.kind, own.name, own.place, own.step)
        torch.testing.assert_close(whole.cosine[1:2], own.cosine, rtol=1e-2, atol=2e-3, equal_nan=True)
        torch.testing.assert_close(whole.ratio[1:2], own.ratio, rtol=1e-2, atol=1e-6, equal_nan=True)


def test_a_term_at_rest_has_no_direction(align: Align, tasks: list[Task]) -> None:
    """Rounding of a gradient of zero is no direction: distances rest at the clean latents."""
    terms = ("self_attention", "perceptual", "l2")
    still, away = (of_kind(align(tasks[:1], terms=terms, strength=each), "term") for each in (0.0, 0.1))
    for each in still:
        assert bool(each.cosine.isnan().all()), each
        assert bool(each.ratio.isnan().all()), each
    # A map of one position is what it is.
    for each in (each for each in away if each.side != 1):
        assert bool(each.cosine.isfinite().all()), each
        assert bool((each.ratio > 0).all()), each


@pytest.mark.heavy
def test_a_term_at_one_step_has_the_gradient_of_that_step(align: Align, tasks: list[Task]) -> None:
    found = of_kind(align(tasks[:1], terms=("entropy",), strength=0.05), "term")
    own = {(each.place, each.side, each.step) for each in found}
    assert {step for *_, step in own} == {-1, 0, 1}
    assert {side for _, side, _ in own} == {0, 8, 4, 2, 1}
    for each in (each for each in found if each.side != 1):
        assert bool((each.cosine.abs() <= 1.0001).all())
