"""Ingredients along the path, held to their formulas on a model whose noise is known in closed form."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor

from attnshift.attack.loop import AttackState, Gradient, optimise_latents, value_and_grad
from attnshift.attack.method import Method
from attnshift.attack.path import check_sites, levels_at
from attnshift.attack.prepare import PreparedBatch, Task, prepare_batch
from attnshift.attack.remarks import idle_settings
from attnshift.attack.run import run_attack
from attnshift.batching import select_rows
from attnshift.classifiers.classifier import Classifier
from attnshift.data.images import into_range
from attnshift.diffusion.ddim import ddim_step
from attnshift.diffusion.denoising import denoise
from attnshift.errors import RecipeError
from attnshift.recipes.reading import load_latent_recipe
from attnshift.recipes.schema import Recipe
from attnshift.recipes.strength import at_strength
from attnshift.sizes import Size
from attnshift.testing.models import pictures
from attnshift.types import Site
from mirror import Mirror

if TYPE_CHECKING:
    from attack.conftest import Prepare

LEVELS = (0.3, 0.6, 0.9, 0.99)
STEPS = len(LEVELS) - 1
NAMES = ("mug", "cup", "snowman")
PLAIN = [
    f"diffusion.denoising_steps={STEPS}",
    "optimiser.iterations=4",
    "expectation.draws=1",
    "budget.metric=none",
    "budget.limit=0",
    "classification.momentum=0",
    "classification.fusion_options.scale=raw",
]
PREVIEW, AHEAD = ["path.seen=preview"], ["path.seen=preview", "path.look_ahead=0.3"]
RANDOM = ["path.seen=preview", "path.level=random"]
TANGENT, BOUNDARY = ["path.tangent=true"], ["path.boundary=0.5", "path.boundary_guidance=2"]
TRAVEL = ["path.passes=3", "path.travelled=[0.3, 0.5]"]
TOGETHER = [*AHEAD, "path.level=random", *TANGENT, *BOUNDARY, *TRAVEL]
EACH = [PREVIEW, AHEAD, RANDOM, TANGENT, BOUNDARY, TRAVEL, TOGETHER]


class Model(Mirror):
    """A mirror as a whole backbone; its noise depends on the prompt, by its length."""

    name = "mirror"
    streams = ("text",)
    device = torch.device("cpu")

    def locate(self, prompt: str, phrase: str, start: int | None = None, *_: object) -> tuple[int, ...]:
        return (0,)

    def sites(self, side: int) -> tuple[Site, ...]:
        return ()


def curved(latents: Tensor, timestep: int, text: Tensor) -> Tensor:
    return torch.tanh(latents * timestep / 3 + text.mean((1, 2)).view(-1, 1, 1, 1).to(latents) / 20)


class Network(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weights = torch.nn.Parameter(torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(1)))

    def forward(self, images: Tensor) -> Tensor:
        return (torch.einsum("bchw,kchw->bk", images, self.weights) / 10).tanh()


def prepared_on(settings: Sequence[str], rows: slice = slice(None)) -> PreparedBatch:
    model: Any = Model(levels=LEVELS, noise=curved)
    images = pictures(3, 8).double()
    classifier = Classifier.wrap(Network(), "curved", 8, [0.4] * 3, [0.3] * 3, class_names=NAMES)
    classifier.network.double()
    tasks = [Task(f"image {at}", image, at, NAMES[at]) for at, image in enumerate(images)]
    method = Method.of(load_latent_recipe("latents", [*PLAIN, *settings]))
    return prepare_batch(method, model, [classifier], tasks[rows])


def away(batch: PreparedBatch) -> Tensor:
    """Latents near the start, the same for an image in any batch."""
    start = batch.render.trajectory.start
    return start + 0.05 * torch.sin(40 * start)


def at(batch: PreparedBatch, pull: float = 0.0, iteration: int = 2) -> Gradient:
    state = AttackState.start(batch)
    if state.pull is not None:
        state = replace(state, pull=state.pull + pull)
    return value_and_grad(batch, away(batch), iteration, state)


def stepped(batch: PreparedBatch, latents: Tensor, step: int) -> tuple[Tensor, Tensor]:
    """The latents after ``step`` and the preview before it, written out, without constants."""
    text = batch.render.trajectory.text.states
    noise = curved(latents, STEPS - step, text)
    return ddim_step(latents, noise, *LEVELS[step : step + 2]), ddim_step(latents, noise, LEVELS[step], LEVELS[-1])


def corrected(batch: PreparedBatch, latents: Tensor, level: int) -> tuple[Tensor, Tensor]:
    """The latents that enter step ``level`` and their preview, on the path that gives the image back."""
    clean = batch.stored[0]
    for step in range(level):
        constant = batch.stored[step + 1] - stepped(batch, clean, step)[0]
        latents, clean = stepped(batch, latents, step)[0] + constant, batch.stored[step + 1]
    return latents, stepped(batch, latents, level)[1] + batch.stored[-1] - stepped(batch, clean, level)[1]


def loss(batch: PreparedBatch, final: Tensor) -> Tensor:
    (classifier,) = batch.surrogates.classifiers
    assert batch.render.residual is not None
    shown = into_range(final + batch.render.residual)
    return batch.surrogates.criterion(classifier(shown), batch.surrogates.goals).sum()


@pytest.mark.parametrize("settings", EACH, ids=" ".join)
def test_each_gives_the_image_back_in_iteration_zero_and_ignores_batch_mates(settings: list[str]) -> None:
    batch = prepared_on(settings)
    first = next(optimise_latents(batch))
    assert torch.allclose(first.images, batch.images, atol=1e-9)
    assert torch.allclose(batch.observe.clean.images, batch.images, atol=1e-9)
    whole, again = at(batch, 0.7), at(prepared_on(settings), 0.7)
    assert torch.equal(whole.gradient, again.gradient)
    assert torch.equal(whole.images, again.images)
    for row in range(3):
        alone = at(prepared_on(settings, slice(row, row + 1)), 0.7)
        assert torch.allclose(alone.gradient[0], whole.gradient[row], rtol=1e-5, atol=1e-9)
        assert torch.allclose(alone.images[0], whole.images[row], rtol=1e-6)
    kept = select_rows(batch, torch.tensor([2, 0]))
    assert torch.allclose(at(kept, 0.7).gradient, whole.gradient[[2, 0]], rtol=1e-5, atol=1e-9)
    plain = at(prepared_on([]))
    assert not torch.allclose(plain.gradient, whole.gradient, rtol=1e-3), "it changes something"


@pytest.mark.parametrize("level", [0, 1, 2])
def test_the_classifiers_see_the_preview_and_snapshots_the_end(level: int) -> None:
    batch = prepared_on([*PREVIEW, f"path.level={level}"])
    latents = away(batch).requires_grad_()
    (expected,) = torch.autograd.grad(loss(batch, corrected(batch, latents, level)[1]), latents)
    found, plain = at(batch), at(prepared_on([]))
    assert torch.allclose(found.gradient, expected, rtol=1e-5, atol=1e-9)
    assert torch.allclose(found.images, plain.images, atol=1e-12)
    assert torch.allclose(found.fused.margins, plain.fused.margins)


@pytest.mark.parametrize("level", [0, 1])
def test_looking_ahead_weighs_the_losses_of_two_previews(level: int) -> None:
    batch = prepared_on([*AHEAD, f"path.level={level}"])
    latents = away(batch).requires_grad_()
    now, after = (loss(batch, corrected(batch, latents, step)[1]) for step in (level, level + 1))
    (expected,) = torch.autograd.grad(0.3 * now + 0.7 * after, latents)
    found = at(batch)
    assert torch.allclose(found.gradient, expected, rtol=1e-5, atol=1e-9)
    assert found.losses["classification"].sum() == pytest.approx(float((0.3 * now + 0.7 * after).detach()))
    at_latents = at(prepared_on([*AHEAD, f"path.level={level}", "classification.space=latent"]))
    assert torch.allclose(at_latents.gradient, expected, rtol=1e-5, atol=1e-9)


def test_no_image_walks_further_than_its_preview_where_no_iterates_are_compared() -> None:
    batch = prepared_on([*RANDOM, "finish.keep=last"])
    model, levels = batch.render.backbone, levels_at(batch.method.recipe, replace(batch.key, iteration=2))
    assert isinstance(model, Mirror)
    assert levels is not None
    model.forwards = 0
    found = at(batch)
    assert model.forwards == sum(level + 1 for level in levels)
    ends = [corrected(batch, away(batch), level)[1][row] for row, level in enumerate(levels)]
    assert batch.render.residual is not None
    assert torch.allclose(found.images, (torch.stack(ends) + batch.render.residual).clamp(0, 1))


def test_random_levels_are_drawn_for_each_image_and_iteration() -> None:
    recipe, key = load_latent_recipe("latents", [*PLAIN, *RANDOM]), prepared_on([]).key
    drawn = [levels_at(recipe, replace(key, iteration=iteration)) for iteration in range(40)]
    assert {level for levels in drawn for level in levels or ()} == set(range(STEPS))
    assert len(set(drawn)) > 10
    alone = [levels_at(recipe, replace(key, ids=key.ids[1:2], iteration=iteration)) for iteration in range(40)]
    assert [levels and levels[1:2] for levels in drawn] == alone
    ahead = [levels_at(load_latent_recipe("latents", [*PLAIN, *RANDOM, "path.look_ahead=0.3"]), key)]
    assert max(level for levels in ahead for level in levels or ()) < STEPS - 1


def test_a_tangential_gradient_has_no_part_along_the_score() -> None:
    batch, plain = prepared_on(TANGENT), at(prepared_on([])).gradient
    noise = curved(away(batch), STEPS, batch.render.trajectory.text.states)
    along = (plain * noise).sum((1, 2, 3), True) / noise.square().sum((1, 2, 3), True)
    found = at(batch).gradient
    assert torch.allclose(found, plain - along * noise)
    assert (found * noise).sum((1, 2, 3)).abs().max() < 1e-12
    assert along.abs().min() > 1e-6


def test_the_pull_towards_the_boundary_grows_from_nothing_and_leaves_the_clean_arm_alone() -> None:
    batch = prepared_on(BOUNDARY)
    snapshots = list(optimise_latents(batch))
    pulls = [each.state.pull[0].item() for each in snapshots if each.state.pull is not None]
    assert pulls == [0, 0.25, 0.5, 0.75, 1]
    trajectory, model = batch.render.trajectory, batch.render.backbone
    assert batch.observe.interference is not None
    phrases = batch.observe.interference.phrases
    joint = model.embed(
        [f"a photo of a {other} and a {true}" for other, true in zip(phrases, NAMES, strict=True)]
    ).states
    latents, offsets = snapshots[-1].latents, trajectory.offsets
    assert offsets is not None
    for step, offset in enumerate(offsets):
        own, both, empty = (
            curved(latents, STEPS - step, text)
            for text in (trajectory.text.states, joint, model.embed(["", "", ""]).states)
        )
        latents = ddim_step(latents, own + 0.5 * 2 * (both - empty), *LEVELS[step : step + 2]) + offset
    assert batch.render.residual is not None
    assert torch.allclose(snapshots[-1].images, (latents + batch.render.residual).clamp(0, 1))
    assert not torch.allclose(batch.render(snapshots[-1].latents).images, snapshots[-1].images, atol=1e-3)
    assert torch.equal(at(batch).gradient, at(prepared_on([])).gradient), "without pull it is the plain path"


def test_time_travel_walks_some_steps_again_with_noise_of_the_image_s_own() -> None:
    batch = prepared_on(TRAVEL)
    trajectory = batch.render.trajectory
    assert [visit.index for visit in trajectory.way] == [0, 1, 1, 1, 2]
    renewals = [each for each in trajectory.renewals if each is not None]
    assert len(renewals) == 2
    assert not torch.allclose(renewals[0], renewals[1])
    alone = prepared_on(TRAVEL, slice(1, 2)).render.trajectory.renewals[1]
    assert alone is not None
    assert torch.equal(alone[0], renewals[0][1])
    found, _ = denoise(batch.render.backbone, trajectory, trajectory.start)
    assert torch.allclose(found, batch.stored[-1])


def test_strength_scales_the_pull_towards_a_boundary() -> None:
    recipe = load_latent_recipe("latents", BOUNDARY)
    scaled = [at_strength(recipe, strength) for strength in (0.5, 3)]
    assert [each.path.boundary for each in scaled if isinstance(each, Recipe)] == [0.25, 1.0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["path.look_ahead=0.3"], r"look_ahead looks ahead of a preview"),
        ([*PREVIEW, "path.level=3"], r"path\.level is 3 and diffusion\.denoising_steps 3; the steps count from 0 to 2"),
        ([*AHEAD, "path.level=2"], r"look_ahead needs a step after it"),
        ([*AHEAD, "path.level=random", "diffusion.denoising_steps=1"], r"look_ahead needs a step after it"),
        ([*AHEAD, "diffusion.gradient_steps=1"], r"leave diffusion\.gradient_steps out, or set more than 1"),
        ([*TANGENT, "optimiser.learning_rate=0", "pixels.learning_rate=0.1"], r"the path is not walked"),
        (["path.boundary_template=a {}"], r"must hold \{interference\} once"),
        (["path.boundary_template=a {interference}"], r"must hold \{\} once"),
        (["path.travelled=[0.5, 0.2]"], r"the first number must not exceed the second"),
        (["path.level=some"], r"path\.level"),
    ],
)
def test_combinations_that_make_no_sense_are_refused(settings: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message) as refused:
        load_latent_recipe("latents", [*PLAIN, *settings])
    assert "\n" not in str(refused.value)


def test_settings_that_cannot_act_are_told() -> None:
    idle = ["path.level=1", "path.boundary_guidance=3", "path.travelled=[0.0, 1.0]"]
    lines = idle_settings(Method.of(load_latent_recipe("latents", [*PLAIN, *idle])))
    told = [line.split(" cannot act")[0] for line in lines if line.startswith("path.")]
    assert told == [each.split("=")[0] for each in idle]


@pytest.mark.heavy
def test_all_together_hold_a_budget(prepared: Prepare) -> None:
    settings = ["budget.metric=ssim", "budget.limit=0.95", "optimiser.iterations=2", *AHEAD, *TANGENT, *BOUNDARY]
    outcome = run_attack(prepared("strong", [*settings, "path.passes=2"], slice(1)))
    assert outcome.spent is not None
    assert 0 < outcome.spent.max() <= 1


@pytest.mark.parametrize(("settings", "walks"), [([], True), (AHEAD, True), (PREVIEW, False), (RANDOM, False)])
def test_terms_read_attention_only_where_the_whole_path_is_walked(settings: list[str], walks: bool) -> None:
    recipe = load_latent_recipe("latents", [*settings, "diffusion.denoising_steps=2"])
    assert recipe.previews_the_end == walks
    check_sites(recipe, [])
    with nullcontext() if walks else pytest.raises(RecipeError, match="leaves steps out whose attention terms read"):
        check_sites(recipe, [Site("mid", "cross", "mid", Size.of(8), 2)])
