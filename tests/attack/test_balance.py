"""Coefficients as shares of the classification's pull, image by image, and what is measured of terms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor

from attnshift.attack.balance import BOUND, Balance, Pulling, Pulls, idle_terms, readable_branch
from attnshift.attack.loop import AttackState, Gradient, optimise_latents, value_and_grad
from attnshift.attack.method import Method
from attnshift.attack.optimiser import Descent
from attnshift.attack.prepare import Task, prepare_batch
from attnshift.batching import select_rows
from attnshift.classifiers import load_classifier
from attnshift.data.images import quantise
from attnshift.lab.scenes import scene
from attnshift.losses.objective import evaluate_term
from attnshift.metrics.budget import Budget
from attnshift.recipes.reading import load_latent_recipe
from attnshift.sizes import Size
from attnshift.types import Branch
from lab_scenes import rendered
from later import later

if TYPE_CHECKING:
    from attack.conftest import Prepare
    from attnshift.attack.prepare import PreparedBatch
    from attnshift.types import Site

shipped = later("attnshift.lab.shipped")


@cache
def edge() -> Budget:
    return Budget.of("ssim", 0.95)


def toy(latents: Tensor, pulls: Mapping[str, Tensor], weights: Mapping[str, float]) -> tuple[Pulling, Branch]:
    """Pulling whose gradient at the latents [batch,2] is given for each name; images are thrice the latents."""
    latents = latents.requires_grad_()
    branch = Branch(latents * 1, latents * 3, {})
    read = readable_branch(branch)
    values = {
        name: weights[name] * (read.images * each / 3).sum(1)
        for name, each in pulls.items()
        if name != "classification"
    }
    parts = Pulling(latents, branch, branch.images, pulls["classification"] / 3, None, values, weights)
    return parts, read


def stepped(
    state: Balance, pulls: Mapping[str, Tensor], weights: Mapping[str, float], spent: float = 0.0, iteration: int = 0
) -> tuple[Tensor, Pulls, Balance]:
    """The toy's gradient at its latents, and the rest."""
    count = len(pulls["classification"])
    parts, read = toy(torch.zeros(count, 2, dtype=torch.double), pulls, weights)
    (gradient,), pulls_, after = state.step(parts, read, torch.full((count,), spent, dtype=torch.double), iteration)
    return gradient, pulls_, after


@pytest.mark.parametrize("balanced", [True, False])
def test_the_force_of_a_budget_stands_against_terms_alone(balanced: bool) -> None:
    """Without a part of the classification: its weight is 0, its norm 5 is the unit of the force and of shares."""
    weights = {"classification": 0.0, "entropy": 0.5}
    parts, read = toy(
        torch.zeros(1, 2, dtype=torch.double), {"classification": flat((3, 4)), "entropy": flat((0.1, 0))}, weights
    )
    parts = replace(parts, force=flat((0, -2)))
    if balanced:
        (gradient,), _, _ = Balance.start(edge(), ()).step(parts, read, torch.zeros(1, dtype=torch.double), 0)
        torch.testing.assert_close(gradient, flat((0.5 * 5, -0.5 * 2 * 3)))
    else:
        # The toy's term is cut off from the latents.
        torch.testing.assert_close(parts.summed()[0], flat((0, -2 * 3)))


def flat(*rows: tuple[float, float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.double)


def test_a_coefficient_is_a_share() -> None:
    """By hand: classification of norm 5 and 2, entropy of norm 0.1 and 10."""
    weights = {"classification": 2.0, "entropy": 0.5}
    pulls = {"classification": flat((3, 4), (0, 2)), "entropy": flat((0.1, 0), (0, -10))}
    gradient, found, state = stepped(Balance.start(edge(), ()), pulls, weights)
    torch.testing.assert_close(gradient, flat((6 + 0.5 * 5, 8), (0, 4 - 0.5 * 2)))
    assert found.norms["entropy"].tolist() == pytest.approx([0.1, 10])
    assert found.pulls["entropy"].tolist() == pytest.approx([2.5, 1])
    assert found.pulls["classification"].tolist() == pytest.approx([10, 4])

    pulls = {"classification": flat((0, 10), (8, 0)), "entropy": flat((0.3, 0), (0, 10))}
    gradient, _, state = stepped(state, pulls, weights, iteration=1)
    units = (0.8 * 5 + 0.2 * 10, 0.8 * 2 + 0.2 * 8)
    torch.testing.assert_close(
        gradient, flat((0.5 * units[0] * 0.3 / (0.8 * 0.1 + 0.2 * 0.3), 20), (16, 0.5 * units[1])), msg="running means"
    )


def test_a_term_that_holds_has_its_share_at_the_edge_and_none_at_the_clean_image() -> None:
    weights, state = {"classification": 1.0, "l2": 0.3}, Balance.start(edge(), ["l2"])
    clean, _, state = stepped(state, {"classification": flat((2, 0)), "l2": flat((0, 1e-9))}, weights)
    torch.testing.assert_close(clean, flat((2, 0)), msg="nothing is made of rounding at the clean image")
    found = []
    for iteration, spent in enumerate((0.1, 0.5, *[1.0] * 20), 1):
        pulls = {"classification": flat((2, 0)), "l2": flat((0, 0.01 * spent))}
        gradient, _, state = stepped(state, pulls, weights, spent, iteration)
        found.append(float(gradient[0, 1]))
    assert found[0] == pytest.approx(0.3 * 2 * 0.1)
    assert found[-1] == pytest.approx(0.3 * 2, rel=0.02)


@pytest.mark.parametrize("holding", [(), ("term",)])
def test_a_gradient_of_zero_stays_zero_and_amplification_has_a_bound(holding: tuple[str, ...]) -> None:
    weights, state = {"classification": 1.0, "term": 1.0}, Balance.start(edge(), holding)
    for iteration in range(3):
        pulls = {"classification": flat((1, 0), (1, 0)), "term": flat((0, 0), (0, 1e-7))}
        gradient, _, state = stepped(state, pulls, weights, 1.0, iteration + 1)
        torch.testing.assert_close(gradient, flat((1, 0), (1, 1e-7 * BOUND)))


def test_a_classification_without_a_gradient_leaves_terms_as_they_are_and_keeps_its_unit() -> None:
    weights, nothing = {"classification": 1.0, "term": 0.5}, flat((0, 0))
    gradient, _, state = stepped(Balance.start(edge(), ()), {"classification": nothing, "term": flat((0, 4))}, weights)
    torch.testing.assert_close(gradient, flat((0, 2)))
    _, _, state = stepped(state, {"classification": flat((8, 0)), "term": flat((0, 4))}, weights, iteration=1)
    gradient, _, _ = stepped(state, {"classification": nothing, "term": flat((0, 4))}, weights, iteration=2)
    torch.testing.assert_close(gradient, flat((0, 4)))


def test_batch_mates_and_rows() -> None:
    """Images whose terms act at different times measure at different times, and none notices another."""
    draw = torch.Generator().manual_seed(0)
    weights, whole = {"classification": 0.7, "a": 2.0, "b": 0.1}, Balance.start(edge(), ["b"])
    alone = [Balance.start(edge(), ["b"]) for _ in range(3)]
    sizes = torch.tensor([1e-3, 1.0, 1e4], dtype=torch.double).view(3, 1)
    for iteration in range(17):
        pulls = {name: sizes * torch.randn(3, 2, generator=draw, dtype=torch.double) for name in weights}
        pulls["a"][torch.arange(3) > iteration] = 0
        total, _, whole = stepped(whole, pulls, weights, 0.5, iteration)
        for image in range(3):
            own = {name: each[image : image + 1] for name, each in pulls.items()}
            gradient, _, alone[image] = stepped(alone[image], own, weights, 0.5, iteration)
            torch.testing.assert_close(gradient, total[image : image + 1])
    part = select_rows(whole, torch.tensor([2, 0]))
    for name in weights:
        assert part.means[name].tolist() == pytest.approx([float(alone[at].means[name]) for at in (2, 0)])


ENTROPY = ["terms.entropy.weight=0.3", "classification.weight=2.0", "diffusion.denoising_steps=2"]
BALANCED = ["optimiser.balance=share", *ENTROPY]


def away(batch: PreparedBatch, seed: int = 0) -> Tensor:
    start = batch.render.trajectory.start
    draw = torch.Generator().manual_seed(seed)
    return start + 0.02 * torch.randn(start.shape, dtype=start.dtype, generator=draw)


def begun(batch: PreparedBatch, before: Gradient | None = None) -> AttackState:
    return AttackState.start(batch) if before is None else replace(before.state, optimiser=Descent(0.1, 0.0, False))


def gradients_apart(batch: PreparedBatch, latents: Tensor, iteration: int) -> dict[str, Tensor]:
    """The unweighted gradient of each term, each in a pass of its own."""
    found = {}
    objective = batch.method.objective
    for name in ("classification", *objective.terms):
        leaf = latents.clone().requires_grad_()
        branch = batch.render(leaf, batch.observe.sites)
        if name == "classification":
            direction = batch.method.rule(batch.surrogates, branch.images).direction
            value = (branch.images * direction).sum()
        else:
            value = evaluate_term(objective.terms[name].term, batch.observe(branch, iteration))[0].sum()
        (found[name],) = torch.autograd.grad(value, leaf)
    return found


@pytest.mark.heavy
def test_estimated_norms_agree_with_exact_ones_along_an_attack() -> None:
    """On lab images, and with gains of the first two iterations alone, most are right to a third."""
    shown = rendered((23, 25)).images
    tasks = [
        Task(f"scene {at}", image, scene(0, "test", at).label, scene(0, "test", at).class_name)
        for at, image in zip((23, 25), quantise(shown), strict=True)
    ]
    settings = ["optimiser.balance=share", "optimiser.iterations=6", "finish.early=false", "expectation.draws=1"]
    method = Method.of(load_latent_recipe("nearest", [*settings, "terms.perceptual.weight=1.0"]))
    batch = prepare_batch(method, shipped.load_lab_pipeline(), [load_classifier("lab:resnet")], tasks)
    gaps = []
    for snapshot in optimise_latents(batch):
        if snapshot.iteration not in (2, 5):
            continue
        exact = gradients_apart(batch, snapshot.latents, snapshot.iteration)
        assert snapshot.pulls is not None
        for name, estimate in snapshot.pulls.norms.items():
            norm = exact[name].flatten(1).norm(dim=1)
            seen = (norm > 1e-6) & (estimate > 0)
            assert bool(seen.any()) or name == "contrast"
            gaps.append((estimate / norm).log().abs()[seen])
    off = torch.cat(gaps).exp()
    assert off.median() < 1.33
    assert off.quantile(0.9) < 2


def test_the_first_gradient_is_the_combination_of_separate_ones(prepared: Prepare) -> None:
    batch = prepared("quick", BALANCED, slice(2))
    apart = gradients_apart(batch, away(batch), 3)
    norms = {name: each.flatten(1).norm(dim=1).view(-1, 1, 1, 1) for name, each in apart.items()}
    spent = edge().spent(batch.images, batch.render(away(batch)).images).view(-1, 1, 1, 1)
    shares = {"variance": 30.0, "self_attention": 30.0 * spent, "entropy": 0.3}
    expected = 2.0 * apart["classification"]
    for name, share in shares.items():
        expected = expected + share * (norms["classification"] / norms[name]).clamp(max=BOUND) * apart[name]
    found = value_and_grad(batch, away(batch), 3, begun(batch))
    assert (found.gradient - expected).norm() < 1e-5 * expected.norm()


def test_without_balance_the_slope_is_the_plain_sum_and_pulls_are_measured_once(prepared: Prepare) -> None:
    batch = prepared("quick", ENTROPY, slice(1))
    weights = {"classification": 2.0, "variance": 30.0, "self_attention": 30.0, "entropy": 0.3}
    apart = gradients_apart(batch, away(batch), 1)
    expected = torch.stack([weights[name] * gradient for name, gradient in apart.items()]).sum(0)
    found = value_and_grad(batch, away(batch), 1, begun(batch))
    assert (found.gradient - expected).norm() < 1e-5 * expected.norm()
    assert found.pulls is not None
    assert list(found.pulls.norms) == ["classification", "variance", "entropy"], "terms that steer"
    for name in found.pulls.norms:
        torch.testing.assert_close(found.pulls.norms[name], apart[name].flatten(1).norm(dim=1))
        torch.testing.assert_close(found.pulls.pulls[name], weights[name] * found.pulls.norms[name])
    assert value_and_grad(batch, away(batch), 2, begun(batch)).pulls is None


@dataclass(frozen=True)
class InOtherUnits:
    """A term, or a criterion, whose value is so many times another's."""

    inner: Any
    factor: float

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def sites(self, available: Iterable[Site], latents: Size) -> tuple[Site, ...]:
        return self.inner.sites(available, latents)

    def __call__(self, *seen: Any) -> Any:
        if getattr(self.inner, "stateful", False):
            values, state = self.inner(*seen)
            return self.factor * values, state
        return self.factor * self.inner(*seen)


@pytest.mark.parametrize(
    ("balance", "name"), [*(("share", name) for name in ("self_attention", "entropy")), ("none", "entropy")]
)
def test_a_terms_units_do_not_matter_where_terms_are_balanced(prepared: Prepare, balance: str, name: str) -> None:
    batch = prepared("quick", [*ENTROPY, f"optimiser.balance={balance}"], slice(1))
    terms = dict(batch.method.objective.terms)
    terms[name] = replace(terms[name], term=InOtherUnits(terms[name].term, 1000.0))
    objective = replace(batch.method.objective, terms=terms)
    scaled = replace(batch, method=replace(batch.method, objective=objective))
    latents = away(batch)
    plain, other = (value_and_grad(each, latents, 3, begun(each)).gradient for each in (batch, scaled))
    gap = (other - plain).norm() / plain.norm()
    if balance == "share":
        assert gap < 1e-4
    else:
        assert gap > 1e-2, "what balance is for"


def test_losses_say_the_same_with_and_without_balance(prepared: Prepare) -> None:
    plain, balanced = prepared("quick", ENTROPY, slice(1)), prepared("quick", BALANCED, slice(1))
    losses = [value_and_grad(each, away(each), 3, begun(each)).losses for each in (plain, balanced)]
    assert list(losses[0]) == list(losses[1]) == ["classification", "variance", "self_attention", "entropy"]
    for name, values in losses[0].items():
        torch.testing.assert_close(losses[1][name], values)


@pytest.mark.parametrize("space", ["image", "latent"])
def test_the_force_of_a_budget_is_added_as_it_is(prepared: Prepare, space: str) -> None:
    """With no term, balance changes nothing; also where the gradient is taken at the latents."""
    usual = ["terms.variance.weight=0.0", "terms.self_attention.weight=0.0", "finish.early=false"]
    usual += ["budget.metric=l2", "budget.limit=0.001", f"classification.space={space}", "diffusion.denoising_steps=1"]
    found = []
    for balance in ("none", "share"):
        batch = prepared("quick", [*usual, f"optimiser.balance={balance}"], slice(1))
        found.append(value_and_grad(batch, away(batch), 3, begun(batch)))
    assert (found[0].gradient - found[1].gradient).norm() < 1e-9 * found[0].gradient.norm()
    assert found[1].state.holding is not None
    assert (found[1].state.holding.spent > 1).all()


@pytest.mark.heavy
def test_a_balanced_attack_carries_its_means_and_cuts_them_with_its_images(prepared: Prepare) -> None:
    settings = [*BALANCED, "optimiser.iterations=4"]
    loop, undisturbed = optimise_latents(prepared("quick", settings)), optimise_latents(prepared("quick", settings))
    next(loop)
    next(undisturbed)
    whole = next(undisturbed).state.balance
    left = loop.send(torch.tensor([False, True, False])).state.balance
    assert whole is not None
    assert left is not None
    assert set(left.means) == {"classification", "variance", "self_attention", "entropy"}
    for name, values in left.means.items():
        assert torch.equal(values, whole.means[name][[0, 2]])


def test_an_iteration_in_which_nothing_is_switched_on(prepared: Prepare) -> None:
    """All windows begin later: the latents stay where they are, as they do without balance."""
    late = ["classification.schedule.window=[0.6, 1.0]", "terms.variance.weight=0.0", "terms.self_attention.weight=0.0"]
    for balance in ("none", "share"):
        settings = [*late, "optimiser.iterations=2", "diffusion.denoising_steps=1", f"optimiser.balance={balance}"]
        first, second, _ = optimise_latents(prepared("quick", settings, slice(1)))
        assert torch.equal(first.latents, second.latents)


def test_terms_that_never_acted_are_said_with_the_reason() -> None:
    norms = {
        0: {"classification": 1.0, "contrast": 0.0, "entropy": 0.0, "replace": 9e-5, "l2": 0.0, "variance": 2e-4},
        1: {"classification": 2.0, "contrast": 0.0, "entropy": 0.0, "replace": 9e-5, "l2": 0.1, "variance": 0.0},
    }
    losses = [{"contrast": 0.0, "entropy": 0.9, "replace": 0.5, "l2": 0.0, "variance": 0.1}] * 2
    assert idle_terms(norms, losses, ("l2",)) == (
        "contrast never acted: already satisfied",
        "entropy never acted: no gradient at its sites",
        "replace never acted: its gradient is below 1/10000 of the classification's",
    )
    first = {0: norms[0]}
    assert idle_terms(first, losses, ("l2",))[-1].startswith("replace"), "the clean image says nothing of l2"
    assert idle_terms({}, losses, ()) == ()
