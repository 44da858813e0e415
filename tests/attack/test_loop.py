"""The loop: one gradient per iteration, for each image as if it were alone."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor

from attnshift.attack.loop import AttackState, Gradient, Snapshot, optimise_latents, value_and_grad
from attnshift.batching import select_rows
from attnshift.diffusion.denoising import denoise
from small_runs import TWO_STEPS
from tiers import fast_first

if TYPE_CHECKING:
    from attack.conftest import Prepare
    from attnshift.attack.prepare import PreparedBatch

FEW = [TWO_STEPS, "diffusion.schedule_steps=10", "reconstruction.updates=1", "reconstruction.updates_per_step=1"]
PRESETS = [("quick", [TWO_STEPS]), ("diffattack", FEW)]


def away(batch: PreparedBatch, seed: int = 0) -> Tensor:
    """Latents near the start, where the self-attention term has a gradient."""
    start = batch.render.trajectory.start
    step = torch.stack(
        [
            torch.randn(start.shape[1:], dtype=start.dtype, generator=torch.Generator().manual_seed(seed + row))
            for row in range(len(start))
        ]
    )
    return start + 0.02 * step


def attention_clean(batch: PreparedBatch, seed: int = 0) -> Gradient:
    """The objective's slope near the start, as the fourth iteration sees it."""
    return value_and_grad(batch, away(batch, seed), 3, AttackState.start(batch))


@pytest.mark.parametrize(("preset", "settings"), PRESETS)
@pytest.mark.parametrize("models", fast_first([slice(0, 3), slice(1, 2)]))
def test_gradient_does_not_depend_on_batch_mates(
    prepared: Prepare, preset: str, settings: list[str], models: slice
) -> None:
    together = prepared(preset, settings, models=models)
    whole = attention_clean(together)
    for row in (0, 2):
        alone = prepared(preset, settings, slice(row, row + 1), models)
        own = attention_clean(alone, seed=row)
        assert own.gradient.norm() > 0
        assert (own.gradient[0] - whole.gradient[row]).norm() < 1e-5 * own.gradient.norm()
        for name, values in own.losses.items():
            torch.testing.assert_close(values[0], whole.losses[name][row], rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(("preset", "settings"), PRESETS)
def test_one_pull_back_is_the_gradient_of_the_whole_loss(prepared: Prepare, preset: str, settings: list[str]) -> None:
    """With a linear fusion, differentiating everything at once gives the same."""
    batch = prepared(preset, [*settings, "classification.fusion_options.scale=raw"], slice(2), slice(0, 3))
    found = attention_clean(batch)
    leaf = away(batch).requires_grad_()
    branch = batch.render(leaf, batch.observe.sites)
    surrogates = batch.surrogates
    logits = [classifier(branch.images) for classifier in surrogates.classifiers]
    fooling = torch.stack([surrogates.criterion(each, surrogates.goals) for each in logits]).mean(0)
    weighted = batch.method.recipe.classification.weight * fooling
    terms, _ = batch.method.objective(batch.observe(branch, 3))
    (expected,) = torch.autograd.grad((weighted + sum(terms.values())).sum(), leaf)
    # Criteria compute in fp32, and their rounding differs between the two ways.
    assert (found.gradient - expected).norm() < 1e-4 * expected.norm()
    torch.testing.assert_close(found.losses["classification"], weighted.detach(), rtol=1e-5, atol=1e-5)
    assert set(found.losses) == {"variance", "self_attention", "classification"}


def test_sites_are_those_of_the_objective_and_the_clean_branch_holds_no_others(prepared: Prepare) -> None:
    batch = prepared("quick", ["terms.self_attention.select.grid=half"])
    sites = batch.render.backbone.sites(64)
    expected = {replace(site, form="projections") for site in sites if (site.kind, site.grid.rows) == ("self", 4)}
    expected |= {site for site in sites if (site.kind, site.grid.rows) == ("cross", 2)}
    assert set(batch.observe.sites) == expected
    assert set(batch.observe.clean.attention) == {site for site in expected if site.kind == "self"}
    assert not any(maps.requires_grad for steps in batch.observe.clean.attention.values() for maps in steps)


@pytest.mark.heavy
@pytest.mark.parametrize("guidance", fast_first(["2.5", "1.0"]))
def test_residual_makes_iteration_zero_the_image_itself(prepared: Prepare, guidance: str) -> None:
    with_residual = prepared("quick", [f"diffusion.guidance={guidance}"])
    first = next(optimise_latents(with_residual))
    torch.testing.assert_close(first.images, with_residual.images, rtol=0, atol=1e-6)
    torch.testing.assert_close(with_residual.observe.clean.images, with_residual.images, rtol=0, atol=1e-6)
    without = prepared("quick", [f"diffusion.guidance={guidance}", "diffusion.residual=false"])
    assert (next(optimise_latents(without)).images - without.images).abs().max() > 0.01


def test_checkpointing_changes_nothing(prepared: Prepare) -> None:
    plain, saving = (prepared("quick", [f"diffusion.checkpointing={on}"], slice(1)) for on in ("false", "true"))
    expected, gradient = attention_clean(plain).gradient, attention_clean(saving).gradient
    assert (gradient - expected).norm() < 1e-6 * expected.norm()


@pytest.mark.heavy
def test_a_gradient_through_the_last_steps_only_changes_nothing_but_the_gradient(prepared: Prepare) -> None:
    whole, last, all_of_them = (prepared("quick", [f"diffusion.gradient_steps={kept}"]) for kept in (0, 1, 2))
    expected, found = attention_clean(whole), attention_clean(last)
    assert torch.equal(found.images, expected.images)
    assert all(torch.equal(values, expected.losses[name]) for name, values in found.losses.items())
    assert torch.equal(attention_clean(all_of_them).gradient, expected.gradient)
    assert (found.gradient - expected.gradient).norm() > 0.01 * expected.gradient.norm()


@pytest.mark.parametrize("balance", fast_first(["share", "none"]))
def test_a_term_that_reads_only_steps_without_a_gradient_counts_as_a_value(prepared: Prepare, balance: str) -> None:
    settings = ["terms.variance.select.steps=[0, 1]", "terms.self_attention.weight=0.0", f"optimiser.balance={balance}"]
    settings.append("diffusion.denoising_steps=4")
    last, silent = "diffusion.gradient_steps=2", "terms.variance.weight=0.0"
    found, without, pulled = (
        attention_clean(prepared("quick", [*settings, *changes], slice(1)))
        for changes in ([last], [silent], [silent, last])
    )
    assert found.losses["variance"].min() > 0
    assert found.gradient.norm() > 0
    torch.testing.assert_close(
        found.gradient, pulled.gradient, rtol=1e-4, atol=1e-5 * float(pulled.gradient.abs().max())
    )
    assert (found.gradient - without.gradient).norm() > 0.01 * without.gradient.norm()


@pytest.mark.heavy
def test_snapshots_stay_as_they_were_yielded(prepared: Prepare) -> None:
    kept: list[tuple[Snapshot, list[Tensor]]] = []
    for snapshot in optimise_latents(prepared("quick", ["optimiser.iterations=4"])):
        kept.append((snapshot, [each.clone() for each in tensors(snapshot)]))
    assert [snapshot.iteration for snapshot, _ in kept] == [0, 1, 2, 3, 4]
    for snapshot, copies in kept:
        for now, then in zip(tensors(snapshot), copies, strict=True):
            assert torch.equal(now, then)
            assert not now.requires_grad
    assert [bool(snapshot.losses) for snapshot, _ in kept] == [True] * 4 + [False]
    assert [snapshot.state.optimiser.steps for snapshot, _ in kept] == [0, 1, 2, 3, 4]
    assert not torch.equal(kept[0][0].latents, kept[1][0].latents)


def test_snapshot_holds_latents_and_the_image_that_they_show(prepared: Prepare) -> None:
    batch = prepared("quick", ["optimiser.iterations=2"])
    for snapshot in optimise_latents(batch):
        with torch.no_grad():
            shown = batch.render(snapshot.latents).images
        # Recorded layers take their softmax in fp32, the fused ones of ``render`` without sites do not.
        torch.testing.assert_close(snapshot.images, shown, rtol=0, atol=1e-5)
        _, margins = batch.surrogates.judge(snapshot.images)
        torch.testing.assert_close(snapshot.margins, margins, rtol=0, atol=1e-5)


def test_finished_images_leave_after_their_update_and_the_loop_ends_without_images(prepared: Prepare) -> None:
    loop = optimise_latents(prepared("quick", ["optimiser.iterations=5"]))
    assert next(loop).rows.tolist() == [0, 1, 2]
    assert loop.send(torch.tensor([False, True, False])).rows.tolist() == [0, 2]
    left = loop.send(torch.tensor([True, False]))
    assert left.rows.tolist() == [2]
    for each in (left.latents, left.images, left.margins[0], left.weights[0], left.state.optimiser.mean):
        assert len(each) == 1
    with pytest.raises(StopIteration):
        loop.send(torch.tensor([True]))


def tensors(snapshot: Snapshot) -> list[Tensor]:
    return [
        snapshot.rows,
        snapshot.latents,
        snapshot.images,
        *snapshot.losses.values(),
        snapshot.margins,
        snapshot.weights,
        snapshot.state.optimiser.mean,
        snapshot.state.optimiser.square,
    ]


RAW = ["classification.fusion_options.scale=raw"]
VIEWS = [
    "expectation.draws=3",
    "expectation.transforms.rotate.degrees=8.0",
    "expectation.transforms.jpeg.quality=[60.0, 90.0]",
]


@pytest.mark.heavy
@pytest.mark.parametrize("settings", fast_first([[TWO_STEPS, *RAW, *VIEWS], [TWO_STEPS, *RAW]]))
def test_gradients_at_the_latents_give_what_those_at_the_image_give(prepared: Prepare, settings: list[str]) -> None:
    """For a linear rule; also through views, and with the other terms beside it."""
    at_image, at_latents = (
        attention_clean(prepared("quick", [*settings, f"classification.space={space}"], slice(0, 2), slice(0, 3)))
        for space in ("image", "latent")
    )
    assert (at_latents.gradient - at_image.gradient).norm() < 1e-4 * at_image.gradient.norm()
    torch.testing.assert_close(at_latents.fused.weights, at_image.fused.weights)


def test_scaled_fusion_differs_between_the_two_spaces(prepared: Prepare) -> None:
    """Normalising before the pull-back or after it is not the same; the image is where models are compared."""
    found = [
        attention_clean(prepared("quick", [f"classification.space={space}"], slice(1), slice(0, 3))).gradient
        for space in ("image", "latent")
    ]
    assert (found[0] - found[1]).norm() > 1e-3 * found[0].norm()


@pytest.mark.heavy
@pytest.mark.parametrize("rule", ["progress", "logits"])
def test_a_rule_s_gradient_ignores_batch_mates_and_order(prepared: Prepare, rule: str) -> None:
    """Two rules, one of them with a state: the contract of rules holds each one to it at the image."""
    settings = [TWO_STEPS, f"classification.fusion={rule}", *VIEWS]
    batch = prepared("quick", settings, models=slice(0, 3))
    whole = attention_clean(batch)
    models = batch.surrogates
    turned = replace(batch, surrogates=replace(models, classifiers=[*models.classifiers[1:], models.classifiers[0]]))
    assert (attention_clean(turned).gradient - whole.gradient).norm() < 1e-5 * whole.gradient.norm()
    alone = attention_clean(prepared("quick", settings, slice(2, 3), slice(0, 3)), seed=2)
    assert (alone.gradient[0] - whole.gradient[2]).norm() < 1e-5 * alone.gradient.norm()


@pytest.mark.heavy
def test_views_are_drawn_anew_in_each_iteration_that_has_them(prepared: Prepare) -> None:
    batch = prepared("quick", [*VIEWS, "expectation.every=2"], slice(1), slice(0, 2))
    plain = prepared("quick", [], slice(1), slice(0, 2))
    latents, state = away(batch), AttackState.start(batch)
    found = [value_and_grad(batch, latents, iteration, state).gradient for iteration in (0, 1, 2, 2)]
    assert torch.equal(found[2], found[3])
    assert not torch.allclose(found[0], found[2])
    torch.testing.assert_close(found[1], value_and_grad(plain, latents, 1, state).gradient)
    assert not torch.allclose(found[0], value_and_grad(plain, latents, 0, state).gradient)


@pytest.mark.heavy
def test_momentum_and_memory_leave_with_their_images(prepared: Prepare) -> None:
    """Two images of a batch whose third one left go on as they would have without it."""
    settings = [TWO_STEPS, "optimiser.method=gradient", "optimiser.learning_rate=0.01", "classification.momentum=0.9"]
    settings += ["classification.clip=0.5", "classification.fusion=progress", "optimiser.iterations=4"]
    loop = optimise_latents(prepared("quick", settings, models=slice(0, 3)))
    first = next(loop)
    assert first.state.momentum.past is None
    assert first.state.fusion is None
    second = loop.send(torch.tensor([False, True, False]))
    assert second.state.momentum.past is not None
    assert second.state.momentum.past.shape == second.images.shape
    assert (second.state.momentum.past.flatten(1).norm(dim=1) <= 0.5 + 1e-9).all()
    pair = optimise_latents(select_rows(prepared("quick", settings, models=slice(0, 3)), torch.tensor([0, 2])))
    expected = [next(pair), next(pair), next(pair)]
    found = [first, second, next(loop)]
    for ours, theirs in zip(found[1:], expected[1:], strict=True):
        torch.testing.assert_close(ours.latents, theirs.latents, rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(ours.weights, theirs.weights, rtol=1e-4, atol=1e-6)


def test_classification_enters_the_update_once(prepared: Prepare) -> None:
    """With momentum the update is the weight times m, and nothing else of the classification."""
    settings = ["classification.momentum=0.5", "terms.variance.weight=0.0", "terms.self_attention.weight=0.0"]
    batch = prepared("quick", settings, slice(1), slice(0, 2))
    latents, state = away(batch), AttackState.start(batch)
    before = value_and_grad(batch, latents, 0, state)
    after = value_and_grad(batch, latents, 1, before.state)
    # The same point twice: m is 1.5 times the direction.
    assert (after.gradient - 1.5 * before.gradient).norm() < 1e-5 * before.gradient.norm()


def test_white_pixels_can_be_moved(prepared: Prepare) -> None:
    """With residual, iteration 0 shows the image itself, and a white pixel lies exactly at the bound."""
    batch = prepared("quick", [], slice(1))
    white = torch.ones_like(batch.images)
    leaf = batch.render.trajectory.start.clone().requires_grad_()
    with torch.no_grad():
        decoded = batch.render.backbone.decode(denoise(batch.render.backbone, batch.render.trajectory, leaf)[0])
    render = replace(batch.render, residual=white - decoded)
    shown = render(leaf).images
    torch.testing.assert_close(shown, white)
    (gradient,) = torch.autograd.grad(shown.sum(), leaf)
    free = replace(render, residual=white - decoded - 0.5)
    (expected,) = torch.autograd.grad(free(leaf).images.sum(), leaf)
    assert (gradient - expected).norm() < 1e-5 * expected.norm()
