"""AdvDiff and NatADiff held to their formulas, on a model whose noise is known in closed form."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from attnshift.baselines.advdiff import AdvDiff, AdvDiffFromNoise
from attnshift.baselines.crossing import Crossing, prepare_crossing, wrong_classes
from attnshift.baselines.edits import EditInput
from attnshift.baselines.natadiff import NatADiff, NatADiffFromNoise
from attnshift.baselines.rounds import Rounds, prepare_rounds
from attnshift.batching import select_rows
from attnshift.classifiers.classifier import Classifier
from attnshift.data.images import into_range
from attnshift.diffusion.ddim import ddim_step
from attnshift.diffusion.denoising import guided_prediction
from attnshift.diffusion.visits import visits
from attnshift.ensemble.surrogates import Surrogates
from attnshift.errors import RecipeError
from attnshift.losses.classification import CrossEntropy
from attnshift.testing.models import pictures
from attnshift.types import Goals
from mirror import Mirror, keys

LEVELS = (0.3, 0.6, 0.9, 0.99)
STEPS = len(LEVELS) - 1
NAMES = ("mug", "cup", "red ball", "Mug", "snowman")
ALONE: dict[str, Any] = {"views": 1, "passes": 1, "inverted_steps": STEPS, "guided": (0.0, 1.0), "relative": False}
"""NatADiff without views and time travel, and with the paper's lengths."""


def curved(latents: Tensor, timestep: int, text: Tensor) -> Tensor:
    return torch.tanh(latents * timestep / 3 + text.mean((1, 2)).view(-1, 1, 1, 1) / 20)


class Linear(torch.nn.Module):
    def __init__(self, sharpness: float) -> None:
        super().__init__()
        self.weights = torch.nn.Parameter(torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(1)))
        self.sharpness = sharpness

    def forward(self, images: Tensor) -> Tensor:
        return self.sharpness * torch.einsum("bchw,kchw->bk", images, self.weights)


def input_on(backbone: Any, count: int = 2, sharpness: float = 1.0) -> EditInput:
    images = pictures(count, 8)
    classifier = Classifier.wrap(Linear(sharpness), "linear", 8, [0.4] * 3, [0.3] * 3, class_names=NAMES)
    labels = classifier(images).argmax(1).tolist()
    surrogates = Surrogates([classifier], CrossEntropy(), Goals.of(labels, [None] * count))
    return EditInput(backbone, surrogates, images, ("a photo of a mug",) * count, keys(count))


def rounds(backbone: Any = None, sharpness: float = 1.0, **options: Any) -> Rounds:
    backbone = Mirror(levels=LEVELS, noise=curved) if backbone is None else backbone
    return prepare_rounds(AdvDiff(inverted_steps=STEPS, **options), input_on(backbone, sharpness=sharpness))


def crossing(backbone: Any = None, **options: Any) -> Crossing:
    backbone = Mirror(levels=LEVELS, noise=curved) if backbone is None else backbone
    return prepare_crossing(NatADiff(**ALONE | options), input_on(backbone))


def plain(prepared: Rounds | Crossing, start: Tensor) -> Tensor:
    """Guided sampling from ``start``, written out."""
    latents, trajectory = start, prepared.trajectory
    assert trajectory.offsets is not None
    for index, offset in enumerate(trajectory.offsets):
        noise, _ = guided_prediction(prepared.given.backbone, trajectory, latents, index)
        latents = ddim_step(latents, noise, *LEVELS[index : index + 2]) + offset
    return latents


def log_p(prepared: Rounds | Crossing, images: Tensor, aims: Tensor) -> Tensor:
    (classifier,) = prepared.given.surrogates.classifiers
    return classifier(into_range(images)).log_softmax(1).gather(1, aims[:, None]).sum()


@pytest.mark.parametrize("prepare", [rounds, crossing])
def test_without_its_terms_an_attack_is_guided_sampling_and_gives_the_image_back(prepare: Any) -> None:
    prepared = prepare()
    start = prepared.trajectory.start
    assert torch.equal(prepared.sample(start, prepared.steering(torch.zeros(2), 0)), plain(prepared, start))
    assert torch.equal(prepared.sample(start + 1), plain(prepared, start + 1))
    assert torch.equal(prepared(torch.zeros(2)), prepared.floor())
    assert torch.allclose(prepared.floor(), prepared.given.images, atol=1e-6)
    assert not torch.allclose(prepared(torch.ones(2)), prepared.floor(), atol=1e-3)


def test_rounds_without_steps_are_all_equal() -> None:
    backbone = Mirror(levels=LEVELS, noise=curved)
    prepared = rounds(backbone, scale=0.0, start_scale=0.0, rounds=4)
    backbone.starts.clear()
    assert torch.equal(prepared(torch.ones(2)), prepared.floor())
    assert len(backbone.starts) == 4 + 1, "the control arm is one more"
    assert all(torch.equal(each[:2], prepared.trajectory.start) for each in backbone.starts)


def test_the_start_alone_moves_along_the_gradient_at_the_end() -> None:
    backbone = Mirror(levels=LEVELS, noise=curved)
    prepared = rounds(backbone, scale=0.0, start_scale=1e-3, rounds=2, sharpness=20.0)
    backbone.starts.clear()
    attacked = prepared(torch.tensor([1.0, 0.5]))
    first, second = (each[2:] for each in backbone.starts)
    assert torch.equal(first, prepared.trajectory.start)
    end = plain(prepared, first).requires_grad_()
    shown = prepared.shown(end)
    (classifier,) = prepared.given.surrogates.classifiers
    aims = classifier(shown).argsort(1, descending=True)[:, 1]
    (gradient,) = torch.autograd.grad(log_p(prepared, shown, aims), end)
    lengths = torch.tensor([1e-3, 0.5e-3]) * first.flatten(1).norm(dim=1) / gradient.flatten(1).norm(dim=1)
    assert torch.allclose(second, first + lengths.view(-1, 1, 1, 1) * gradient, atol=1e-5)
    assert torch.allclose(attacked, prepared.shown(plain(prepared, second)).clamp(0, 1), atol=1e-6)


@pytest.mark.parametrize("decoded", ["preview", "noisy"])
@pytest.mark.parametrize("relative", [False, True])
def test_a_guided_step_moves_the_latents_along_the_gradient(decoded: Any, relative: bool) -> None:
    prepared = rounds(decoded=decoded, relative=relative, scale=0.01, start_scale=0.0, rounds=1)
    trajectory, latents = prepared.trajectory, prepared.trajectory.start
    assert trajectory.offsets is not None
    aims: Tensor | None = None
    for index, offset in enumerate(trajectory.offsets):
        noise, _ = guided_prediction(prepared.given.backbone, trajectory, latents, index)
        source, target = LEVELS[index : index + 2]
        latents = ddim_step(latents, noise, source, target) + offset
        if index == STEPS - 1:
            break
        points = latents.clone().requires_grad_()
        seen = points if decoded == "noisy" else (points - (1 - target) ** 0.5 * noise) / target**0.5
        shown = prepared.shown(seen)
        if aims is None:
            (classifier,) = prepared.given.surrogates.classifiers
            own = torch.nn.functional.one_hot(prepared.given.surrogates.goals.labels, 5).bool()
            aims = classifier(shown.clamp(0, 1)).masked_fill(own, -torch.inf).argmax(1)
        (gradient,) = torch.autograd.grad(log_p(prepared, shown, aims), points)
        length = 0.01 * torch.ones(2)
        if relative:
            length = length * latents.flatten(1).norm(dim=1) / gradient.flatten(1).norm(dim=1)
        latents = latents + length.view(-1, 1, 1, 1) * gradient
    assert torch.allclose(prepared(torch.ones(2)), prepared.shown(latents).clamp(0, 1), atol=1e-5)


@pytest.mark.parametrize(("steps", "share", "guided"), [(200, 0.2, 40), (41, 1.0, 40), (10, 0.0, 0)])
def test_the_last_part_of_the_way_is_guided_but_not_its_last_step(steps: int, share: float, guided: int) -> None:
    backbone = Mirror(levels=tuple(torch.linspace(0.5, 0.99, steps + 1).tolist()), noise=curved)
    options = AdvDiff(inverted_steps=steps, guided_share=share, rounds=1)
    prepared = prepare_rounds(options, input_on(backbone, 1))
    seen: list[Tensor] = []
    (classifier,) = prepared.given.surrogates.classifiers

    def counted(images: Tensor) -> Tensor:
        if images.requires_grad:
            seen.append(images)
        return classifier(images)

    surrogates = replace(prepared.given.surrogates, classifiers=[counted])
    replace(prepared, given=replace(prepared.given, surrogates=surrogates))(torch.ones(1))
    assert len(seen) == guided


def test_an_image_stops_when_it_is_fooled_and_others_go_on() -> None:
    """Each image gets what it gets alone, and one that resists comes back as the last round left it."""
    prepared = rounds(sharpness=3.0, scale=0.02, start_scale=0.0, rounds=3)
    backbone: Any = prepared.given.backbone
    strengths = torch.tensor([0.0, 3.0])
    backbone.starts.clear()
    attacked = prepared(strengths)
    assert [len(each) // 2 for each in backbone.starts] == [2, 1, 1]
    margins = prepared.given.surrogates.judge(attacked)[1][0]
    assert margins[0] > 0 > margins[1]
    assert torch.equal(attacked[:1], prepared.floor()[:1])
    for row in range(2):
        kept = torch.tensor([row])
        assert torch.allclose(select_rows(prepared, kept)(strengths[kept]), attacked[kept], atol=1e-5)


def test_without_its_share_the_joint_prompt_is_not_looked_at() -> None:
    counts = {}
    for boundary in (0.0, 0.2):
        backbone = Mirror(levels=LEVELS, noise=curved)
        prepared = crossing(backbone, boundary=boundary)
        backbone.forwards = backbone.backwards = 0
        prepared(torch.ones(2))
        counts[boundary] = backbone.forwards, backbone.backwards
    assert counts == {0.0: (2 * 2 * STEPS, 2 * STEPS), 0.2: (3 * 2 * STEPS, 2 * STEPS)}


def test_a_detached_gradient_does_not_pass_the_denoiser() -> None:
    backbone = Mirror(levels=LEVELS, noise=curved)
    crossing(backbone, gradient="detached")(torch.ones(2))
    assert backbone.backwards == 0


def test_where_both_prompts_are_one_the_boundary_changes_nothing() -> None:
    prepared = crossing(scale=0.0)
    start, (visit, *_) = prepared.trajectory.start, prepared.trajectory.way
    apart = [prepared.steering(torch.tensor([each, each]), 0).prediction(start, visit) for each in (0.0, 1.0)]
    assert not torch.allclose(apart[0], apart[1], atol=1e-3)
    same = replace(prepared, joint=prepared.trajectory.text)
    for strength in (0.0, 1.0, 5.0):
        noise = same.steering(torch.full((2,), strength), 0).prediction(start, visit)
        assert torch.allclose(noise, apart[0], atol=1e-5)


@pytest.mark.parametrize("gradient", ["exact", "detached"])
@pytest.mark.parametrize("relative", [False, True])
def test_the_gradient_has_the_length_of_the_formula_and_its_direction(gradient: Any, relative: bool) -> None:
    prepared = crossing(gradient=gradient, relative=relative, boundary=0.0, scale=0.5)
    start, (visit, *_) = prepared.trajectory.start, prepared.trajectory.way
    noise = [prepared.steering(torch.tensor([0.0, each]), 0).prediction(start, visit) for each in (0.0, 1.0, 2.0)]
    unit = (3 * 8 * 8) ** 0.5 if relative else 1.0
    slopes = [(after - before) / 0.5 for before, after in pairwise(noise)]
    for slope in slopes:
        assert torch.allclose(slope[0], torch.zeros(()), atol=1e-6), "an image by itself"
        assert float(slope[1].norm()) == pytest.approx(unit * (1 - LEVELS[0]) ** 0.5, rel=1e-3)
    points = start.clone().requires_grad_()
    own = prepared.given.backbone.denoise(points, 3, prepared.trajectory.text).output
    own = own.detach() if gradient == "detached" else own
    shown = prepared.shown((points - (1 - LEVELS[0]) ** 0.5 * own) / LEVELS[0] ** 0.5)
    (uphill,) = torch.autograd.grad(log_p(prepared, shown, prepared.wrong), points)
    cosine = torch.cosine_similarity(-slopes[0][1].flatten(), uphill[1].flatten(), dim=0)
    assert float(cosine) == pytest.approx(1, abs=1e-4)


def test_logits_are_averaged_over_the_views_before_the_softmax() -> None:
    prepared = crossing(views=3, transforms={"colour": {"brightness": 0.9}})
    surrogates = prepared.over_views(prepared.trajectory.way[0])
    (classifier,), images = prepared.given.surrogates.classifiers, prepared.given.images
    averaged: Any = surrogates.classifiers[0]
    seen = [view(images) for view in averaged._views]
    assert torch.equal(seen[0], images)
    assert not torch.allclose(seen[1], seen[2], atol=1e-2)
    assert torch.allclose(averaged(images), torch.stack([classifier(each) for each in seen]).mean(0), atol=1e-5)
    again: Any = prepared.over_views(prepared.trajectory.way[1]).classifiers[0]
    assert not torch.allclose(again._views[1](images), seen[1], atol=1e-2), "each visit has its own views"


def test_time_travel_visits_a_middle_part_and_leads_back_to_the_image() -> None:
    assert sum(not each.again for each in visits(100, 5, (0.5, 0.8))) == 100
    assert sum(each.again for each in visits(100, 5, (0.5, 0.8))) == 4 * 31
    backbone = Mirror(levels=LEVELS, noise=curved)
    prepared = crossing(backbone, passes=3, travelled=(0.3, 0.5))
    assert [each.index for each in prepared.trajectory.way] == [0, 1, 1, 1, 2]
    assert torch.allclose(prepared.floor(), prepared.given.images, atol=1e-5)
    assert torch.allclose(prepared(torch.zeros(2)), prepared.given.images, atol=1e-5)
    other = replace(prepared.given, key=replace(prepared.given.key, seed=1))
    shifted = prepare_crossing(prepared.options, other)
    assert torch.equal(shifted.trajectory.start, prepared.trajectory.start)
    assert not torch.allclose(shifted(torch.ones(2)), prepared(torch.ones(2)), atol=1e-4), "noise is drawn by the seed"


def test_a_try_that_fails_is_followed_by_one_half_as_strong_again() -> None:
    prepared = crossing(tries=3, boundary=0.1, scale=0.01)
    steered = [prepared.steering(torch.ones(2), attempt) for attempt in range(3)]
    assert [float(each.boundary[0]) for each in steered] == pytest.approx([0.1, 0.15, 0.2])
    assert [float(each.scale[0]) for each in steered] == pytest.approx([0.01, 0.015, 0.02])
    far = replace(prepared, options=replace(prepared.options, tries=1))
    assert torch.equal(prepared(torch.zeros(2)), far(torch.zeros(2)))
    assert torch.allclose(prepared(torch.ones(2)), far(2 * torch.ones(2)), atol=1e-6), "no try fools"


def test_the_wrong_class_is_the_nearest_other_name_or_the_target() -> None:
    backbone = Mirror(levels=LEVELS, noise=curved)
    given = input_on(backbone, 1)
    goals = replace(given.surrogates.goals, labels=torch.tensor([0]))
    given = replace(given, surrogates=replace(given.surrogates, goals=goals))
    found = wrong_classes(NatADiff(), given, NAMES)
    assert found.tolist() == [1], "'Mug' is the same word"
    goals = replace(goals, targets=torch.tensor([4]))
    given = replace(given, surrogates=replace(given.surrogates, goals=goals))
    assert wrong_classes(NatADiff(), given, NAMES).tolist() == [4]


def test_natadiff_needs_class_names() -> None:
    given = input_on(Mirror(levels=LEVELS))
    nameless = [replace(each, class_names=()) for each in given.surrogates.classifiers]  # type: ignore[type-var]
    with pytest.raises(RecipeError, match="'natadiff' needs class names, and no surrogate has them; name them"):
        NatADiff(**ALONE).check(replace(given, surrogates=replace(given.surrogates, classifiers=nameless)))


@pytest.mark.parametrize(
    ("attack", "switched_off"),
    [
        (AdvDiffFromNoise(schedule_steps=STEPS, rounds=1, guided_share=1.0), {"scale": 0.0, "start_scale": 0.0}),
        (NatADiffFromNoise(schedule_steps=STEPS, passes=2, views=1), {"boundary": 0.0, "scale": 0.0}),
    ],
)
def test_from_noise_the_control_arm_is_a_twin_that_no_image_decides(
    attack: Any, switched_off: dict[str, float]
) -> None:
    """Its noise is named by the image's id; the way is plain guided sampling."""
    prepared = attack.prepare(input_on(Mirror(levels=LEVELS, noise=curved)))
    assert prepared.trajectory.offsets is None
    assert prepared.residual is None
    twin = prepared.floor()
    assert torch.equal(prepared(torch.zeros(2)), twin)
    assert torch.equal(replace(attack, **switched_off).prepare(prepared.given)(torch.ones(2)), twin)
    assert not torch.allclose(prepared(torch.ones(2)), twin, atol=1e-3)
    black = replace(prepared.given, images=0 * prepared.given.images)
    assert torch.equal(attack.prepare(black).floor(), twin)
    renamed = replace(prepared.given, key=replace(prepared.given.key, ids=("other", "image 1")))
    others = attack.prepare(renamed).floor()
    assert not torch.allclose(others[0], twin[0], atol=1e-3)
    assert torch.allclose(others[1], twin[1], atol=1e-6)
