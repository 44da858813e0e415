"""AdvFM held to its formulas, on flows whose velocity is known in closed form.

The paper's time runs from noise to data and its velocity points to the data; here a level is the share of noise, and
the velocity is noise minus data. So the perturbation of the end enters with the other sign.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from attnshift.attack.effort import Effort
from attnshift.baselines.advfm import AdvFM
from attnshift.baselines.velocities import Velocities, even_levels, prepare_velocities
from attnshift.batching import select_rows
from attnshift.data.images import into_range
from attnshift.diffusion.backbone import Prediction
from attnshift.diffusion.conditioning import Conditioning
from attnshift.diffusion.flow import Flow
from attnshift.diffusion.noise_schedule import NoiseSchedule
from attnshift.errors import RecipeError
from attnshift.testing.models import pictures
from families import backbone_of
from mirror import Mirror, input_on, keys, linear_surrogates

STEPS, UPDATES, START = 4, 3, 0.8


@dataclass
class Stream(Mirror):
    """A mirror on a flow: ``velocity`` maps latents and a level to what is predicted there."""

    velocity: Callable[[Tensor, float], Tensor] = lambda latents, level: 0 * latents
    seen: list[float] = field(default_factory=list)
    name: str = "stream"

    def noise_schedule(self, schedule_steps: int, denoising_steps: int, size: Any = 0) -> NoiseSchedule:
        levels = [1 - at / schedule_steps for at in range(schedule_steps + 1)][schedule_steps - denoising_steps :]
        return NoiseSchedule(tuple(1000 * level for level in levels[:-1]), tuple(levels), levels[0], Flow())

    def denoise(self, latents: Tensor, timestep: float, text: Conditioning, reads: Any = ()) -> Prediction:
        self.seen.append(timestep / 1000)
        self.noise = lambda points, _, __: self.velocity(points, timestep / 1000)
        return super().denoise(latents, 0, text)


def curved(latents: Tensor, level: float) -> Tensor:
    return torch.tanh(2 * latents - 1) * (1 + level) - latents.mean((1, 2, 3), keepdim=True)


def prepared(velocity: Callable[[Tensor, float], Tensor] = curved, count: int = 2, **options: Any) -> Velocities:
    made = AdvFM(**{"steps": UPDATES, "schedule_steps": STEPS, "start_level": START} | options)
    return prepare_velocities(made, input_on(Stream(velocity=velocity), count))


def pushed(made: Velocities) -> Velocities:
    """The same attack on surrogates whose penalty falls wherever a value rises, so that each change is the radius."""
    shape = made.given.images.shape
    weights = torch.stack([-torch.ones(shape[1:]), torch.ones(shape[1:])])
    given = replace(made.given, surrogates=linear_surrogates(0.01 * weights, len(made.given.images)))
    return replace(made, given=given, residual=None)


def loss(made: Velocities, images: Tensor) -> Tensor:
    """What the attack lowers: minus the cross-entropy of the true labels."""
    (classifier,), labels = made.given.surrogates.classifiers, made.given.surrogates.goals.labels
    return classifier(into_range(images)).log_softmax(1).gather(1, labels[:, None]).sum()


def test_its_levels_are_even_and_are_told_to_the_denoiser_in_proportion() -> None:
    schedule = even_levels(Stream(), 0.6, 3, 64)  # type: ignore[arg-type]
    assert schedule.levels == pytest.approx((0.6, 0.4, 0.2, 0))
    assert schedule.timesteps == pytest.approx((600, 400, 200))
    assert isinstance(schedule.path, Flow)


def test_at_strength_0_it_gives_the_image_back() -> None:
    made = prepared()
    assert torch.equal(made(torch.zeros(2)), made.floor())
    assert torch.allclose(made.floor(), made.given.images, atol=1e-6)
    assert not torch.allclose(made(torch.ones(2)), made.floor(), atol=1e-3)


def test_the_field_of_a_point_ends_at_the_point_and_the_last_change() -> None:
    """v = (z - x) / level forgets where it came from, so nothing of the changes before is left."""
    point = torch.full((2, 3, 8, 8), 0.4)
    made = pushed(prepared(lambda latents, level: (latents - point) / level, steps=4))
    nothing = (torch.zeros(2, 3, 8, 8),) * STEPS
    made = replace(made, trajectory=replace(made.trajectory, offsets=nothing, straight=nothing))
    radius = made.options.epsilon * made.deviation
    assert torch.allclose(made(torch.ones(2)), point + radius.view(-1, 1, 1, 1), atol=1e-5)


def test_a_constant_field_adds_up_harmonic_shares_of_the_radius() -> None:
    made = pushed(prepared(lambda latents, level: torch.full_like(latents, 0.3), steps=4))
    radius = made.options.epsilon * made.deviation * sum(1 / left for left in range(1, STEPS + 1))
    moved = made(torch.ones(2)) - made.given.images
    inside = (made.given.images < 0.7).all(1, keepdim=True).expand_as(moved)
    assert torch.allclose(moved[inside], radius.view(-1, 1, 1, 1).expand_as(moved)[inside], atol=1e-5)


@pytest.mark.parametrize("gradient", ["exact", "detached"])
def test_the_walk_is_the_papers_in_its_own_time_and_signs(gradient: Any) -> None:
    made = prepared(gradient=gradient, end_weight=0.3)
    offsets, straight, latents = made.trajectory.offsets, made.trajectory.straight, made.trajectory.start
    assert offsets is not None
    assert straight is not None
    radius = (made.options.epsilon * made.deviation).view(-1, 1, 1, 1)
    length, times = START / STEPS, [1 - START + at * START / STEPS for at in range(STEPS)]

    def towards_data(points: Tensor, time: float) -> Tensor:
        return -curved(points, 1 - time)

    for at, time in enumerate(times):
        velocity, last = towards_data(latents, time), at == STEPS - 1
        change = torch.zeros_like(latents)
        for _ in range(UPDATES):
            change = change.detach().requires_grad_()
            end = latents + (1 - time) * velocity + straight[at] + change
            value = loss(made, made.shown(end))
            if not last:
                later = latents + length * velocity + length / (1 - time) * change + offsets[at]
                seen = later if gradient == "exact" else later.detach()
                ahead = later + (1 - time - length) * towards_data(seen, time + length) + straight[at + 1]
                value = 0.3 * value + 0.7 * loss(made, made.shown(ahead))
            (slope,) = torch.autograd.grad(value, change)
            change = torch.clamp(change.detach() - radius / 4 * slope.sign(), -radius, radius)
        latents = latents + length * (velocity + change / (1 - time)) + offsets[at]
    apart = (made(torch.ones(2)) - made.shown(latents).clamp(0, 1)).abs()
    assert float((apart > 1e-4).float().mean()) < 0.02, "rounding decides a few signs"


def test_at_the_last_step_both_losses_are_one() -> None:
    found = [prepared(schedule_steps=1, end_weight=weight)(torch.ones(2)) for weight in (0.0, 0.3, 1.0)]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[1], found[2])
    made = prepared()
    visit = made.trajectory.way[-1]
    latents = made.trajectory.start
    velocity = made.given.backbone.denoise(latents, 1000 * START / STEPS, made.trajectory.text).output
    change = 0.01 * torch.ones_like(latents)
    moved = made._moved(visit, latents, velocity, change)
    assert torch.allclose(moved, made.trajectory.preview(visit, latents, velocity) + change, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "forwards", "backwards", "gradients"),
    [
        ({}, STEPS + (STEPS - 1) * UPDATES, (STEPS - 1) * UPDATES, (2 * STEPS - 1) * UPDATES),
        ({"end_weight": 1.0}, STEPS, 0, STEPS * UPDATES),
        ({"gradient": "detached"}, STEPS + (STEPS - 1) * UPDATES, 0, (2 * STEPS - 1) * UPDATES),
    ],
)
def test_work_is_that_of_the_formulas(options: dict[str, Any], forwards: int, backwards: int, gradients: int) -> None:
    made, effort = prepared(**options), Effort()
    backbone: Any = made.given.backbone
    backbone.forwards = backbone.backwards = 0
    effort.of_edit(made)(torch.ones(2))
    assert (backbone.forwards, backbone.backwards) == (2 * forwards, 2 * backwards)
    assert (effort.denoisings, effort.gradients) == (2 * forwards, 2 * gradients)


def test_an_image_gets_its_own_strength_and_what_it_gets_alone() -> None:
    made, strengths = prepared(), torch.tensor([0.5, 2.0])
    found = made(strengths)
    assert torch.equal(found, prepared()(strengths))
    half = replace(made, options=made.options.scaled(0.5))(torch.ones(2))
    assert torch.allclose(half[:1], found[:1], atol=1e-5)
    for row in range(2):
        kept = torch.tensor([row])
        assert torch.allclose(select_rows(made, kept)(strengths[kept]), found[kept], atol=1e-4)


@pytest.mark.heavy
@pytest.mark.parametrize("family", ["sd3 medium without t5", "flux dev"])
def test_it_raises_the_loss_on_tiny_pipelines_of_flows(family: str) -> None:
    given = replace(input_on(backbone_of(family), 2), images=pictures(2))
    surrogates = linear_surrogates(torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0)), 2)
    given = replace(given, surrogates=surrogates, key=keys(2))
    attack = AdvFM(steps=2, schedule_steps=2, epsilon=0.3)
    attack.check(given)
    made = attack.prepare(given)
    assert torch.allclose(made.floor(), given.images, atol=1e-5)
    before, after = (given.surrogates.judge(each)[0] for each in (given.images, made(torch.ones(2))))
    assert (after < before).all()


def test_a_model_that_is_no_flow_is_refused() -> None:
    mirror: Any = Mirror(levels=(0.5, 0.9))
    mirror.name = "mirror"
    with pytest.raises(RecipeError, match="AdvFM perturbs the velocity of a rectified flow, and mirror predicts none"):
        AdvFM().check(input_on(mirror))
