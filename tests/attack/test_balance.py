"""Terms on one scale: running norms, image by image, and what they make of the objective's slope."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor

from attnshift.attack.balance import GradNorm
from attnshift.attack.loop import AttackState, Gradient, optimise_latents, value_and_grad
from attnshift.attack.optimiser import AdamW
from attnshift.batching import select_rows
from attnshift.losses.objective import evaluate_term

if TYPE_CHECKING:
    from attack.conftest import Prepare
    from attnshift.attack.prepare import PreparedBatch
    from attnshift.types import Site


def flat(*rows: Sequence[float]) -> Tensor:
    """A gradient [batch,1,1,2]."""
    return torch.tensor(rows, dtype=torch.double).view(len(rows), 1, 1, 2)


def combined(state: GradNorm, gradients: Mapping[str, Tensor], weights: Mapping[str, float]) -> tuple[Tensor, GradNorm]:
    """``gradients`` are the unweighted ones."""
    return state.combine({name: weights[name] * each for name, each in gradients.items()}, weights)


def test_two_iterations_by_hand() -> None:
    weights = {"classification": 2.0, "entropy": 0.5}
    first = {
        "classification": flat([3, 4], [0, 2]),  # norms 5 and 2
        "entropy": flat([0.1, 0], [0, -10]),  # norms 0.1 and 10
    }
    total, state = combined(GradNorm(), first, weights)
    # A unit direction each, times its weight.
    torch.testing.assert_close(total, flat([2 * 0.6 + 0.5, 2 * 0.8], [0, 2 - 0.5]))
    assert state.norms["classification"].tolist() == pytest.approx([5, 2])
    assert state.norms["entropy"].tolist() == pytest.approx([0.1, 10])

    second = {
        "classification": flat([0, 10], [8, 0]),  # 0.9 * 5 + 0.1 * 10 = 5.5, 0.9 * 2 + 0.1 * 8 = 2.6
        "entropy": flat([0.3, 0], [0, 10]),  # 0.9 * 0.1 + 0.1 * 0.3 = 0.12, 10
    }
    weights = {"classification": 1.0, "entropy": 4.0}
    total, state = combined(state, second, weights)
    torch.testing.assert_close(total, flat([4 * 0.3 / 0.12, 10 / 5.5], [8 / 2.6, 4]))
    assert state.norms["classification"].tolist() == pytest.approx([5.5, 2.6])
    assert state.norms["entropy"].tolist() == pytest.approx([0.12, 10])


def test_a_gradient_of_zero_is_no_information() -> None:
    """It neither divides by zero, nor enters the norm, nor starts it; image by image."""
    weights = {"a": 1.0, "b": 3.0}
    steady = flat([1, 0], [1, 0])
    total, state = combined(GradNorm(), {"a": steady, "b": flat([0, 0], [0, 2])}, weights)
    torch.testing.assert_close(total, flat([1, 0], [1, 3]))
    assert state.norms["b"].tolist() == [0, 2]

    total, state = combined(state, {"a": steady, "b": flat([0, 7], [0, 0])}, weights)
    torch.testing.assert_close(total, flat([1, 3], [1, 0]))
    assert state.norms["b"].tolist() == [7, 2], "the first gradient is the norm, and a zero leaves it"

    total, state = combined(state, {"a": steady, "b": flat([0, 0], [0, 4])}, weights)
    torch.testing.assert_close(total, flat([1, 0], [1, 3 * 4 / 2.2]))
    assert state.norms["b"].tolist() == pytest.approx([7, 2.2])
    assert total.isfinite().all()


def test_a_term_that_is_switched_off_for_a_while_keeps_its_norm() -> None:
    _, state = combined(GradNorm(), {"a": flat([4, 0]), "b": flat([0, 2])}, {"a": 1.0, "b": 1.0})
    _, state = combined(state, {"a": flat([4, 0])}, {"a": 1.0})
    total, state = combined(state, {"a": flat([4, 0]), "b": flat([0, 12])}, {"a": 1.0, "b": 1.0})
    assert state.norms["b"].tolist() == pytest.approx([3])
    torch.testing.assert_close(total, flat([1, 4]))


def test_the_state_before_stays_as_it_was() -> None:
    _, before = combined(GradNorm(), {"a": flat([4, 0])}, {"a": 1.0})
    _, after = combined(before, {"a": flat([8, 0])}, {"a": 1.0})
    assert before.norms["a"].tolist() == [4]
    assert after.norms["a"].tolist() == pytest.approx([4.4])
    assert GradNorm().norms == {}


@pytest.mark.parametrize("scale", [1e-12, 1e-3, 1e6])
def test_units_of_a_term_do_not_matter_and_weights_do(scale: float) -> None:
    draw = torch.Generator().manual_seed(0)
    weights, state, other = {"a": 0.7, "b": 2.0}, GradNorm(), GradNorm()
    for _ in range(3):
        gradients = {name: torch.randn(2, 4, 3, 3, generator=draw, dtype=torch.double) for name in "ab"}
        total, state = combined(state, gradients, weights)
        scaled, other = combined(other, gradients | {"b": scale * gradients["b"]}, weights)
        torch.testing.assert_close(scaled, total)
    heavier, _ = combined(state, gradients, weights | {"b": 4.0})
    lighter, _ = combined(state, gradients, weights)
    only_b, _ = combined(state, {"b": gradients["b"]}, weights)
    torch.testing.assert_close(heavier - lighter, only_b)


def test_batch_mates_and_rows() -> None:
    draw = torch.Generator().manual_seed(0)
    weights, whole = {"a": 0.7, "b": 2.0}, GradNorm()
    alone = [GradNorm() for _ in range(3)]
    sizes = torch.tensor([1e-3, 1.0, 1e4], dtype=torch.double).view(3, 1, 1, 1)
    for iteration in range(4):
        gradients = {name: sizes * torch.randn(3, 2, 3, 3, generator=draw, dtype=torch.double) for name in "ab"}
        gradients["b"][iteration % 3] = 0
        total, whole = combined(whole, gradients, weights)
        for image in range(3):
            row = slice(image, image + 1)
            own, alone[image] = combined(alone[image], {name: each[row] for name, each in gradients.items()}, weights)
            torch.testing.assert_close(own, total[row])
    part = select_rows(whole, torch.tensor([2, 0]))
    for name in "ab":
        assert part.norms[name].tolist() == pytest.approx([float(alone[at].norms[name]) for at in (2, 0)])
    kept = {name: each[[2, 0]] for name, each in gradients.items()}
    torch.testing.assert_close(combined(part, kept, weights)[0], combined(whole, gradients, weights)[0][[2, 0]])


ENTROPY = ["terms.entropy.weight=0.3", "classification.weight=2.0", "diffusion.denoising_steps=2"]
BALANCED = ["optimiser.balance=gradnorm", *ENTROPY]


def away(batch: PreparedBatch, seed: int = 0) -> Tensor:
    start = batch.render.trajectory.start
    draw = torch.Generator().manual_seed(seed)
    return start + 0.02 * torch.randn(start.shape, dtype=start.dtype, generator=draw)


def carried(batch: PreparedBatch, before: Gradient | None = None) -> AttackState:
    optimiser = AdamW.start(batch.render.trajectory.start, 0.01, 0.0)
    return AttackState(optimiser) if before is None else replace(before.state, optimiser=optimiser)


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
def test_the_slope_is_the_hand_combination_of_separate_gradients(prepared: Prepare) -> None:
    batch = prepared(
        "quick", [*BALANCED, "optimiser.iterations=4", "terms.entropy.schedule.window=[0.5, 1.0]"], slice(2)
    )
    weights = {"classification": 2.0, "variance": 30.0, "self_attention": 30.0, "entropy": 0.3}
    norms: dict[str, Tensor] = {}
    last = None
    for iteration in range(3):
        latents = batch.render.trajectory.start if iteration == 0 else away(batch, iteration)
        apart = gradients_apart(batch, latents, iteration)
        expected = torch.zeros_like(latents)
        for name, gradient in apart.items():
            if name == "entropy" and iteration == 0:
                continue
            size = gradient.flatten(1).norm(dim=1)
            fresh = name not in norms or bool((norms[name] == 0).all())
            norms[name] = size if fresh else 0.9 * norms[name] + 0.1 * size
            if bool((size > 0).all()):
                expected += weights[name] * gradient / norms[name].view(-1, 1, 1, 1)
        assert (norms["self_attention"] > 0).all() == (iteration > 0), "the clean path differs in nothing from itself"
        last = value_and_grad(batch, latents, iteration, carried(batch, last))
        assert (last.gradient - expected).norm() < 1e-5 * expected.norm()
        assert set(last.state.balance.norms) == set(norms)
        for name, values in norms.items():
            torch.testing.assert_close(last.state.balance.norms[name], values, rtol=1e-4, atol=0)


def test_without_balance_the_slope_is_the_plain_sum(prepared: Prepare) -> None:
    batch = prepared("quick", ENTROPY, slice(2))
    found = value_and_grad(batch, away(batch), 3, carried(batch))
    weights = {"classification": 2.0, "variance": 30.0, "self_attention": 30.0, "entropy": 0.3}
    apart = gradients_apart(batch, away(batch), 3)
    expected = torch.stack([weights[name] * gradient for name, gradient in apart.items()]).sum(0)
    assert (found.gradient - expected).norm() < 1e-5 * expected.norm()
    assert found.state.balance.norms == {}


@dataclass(frozen=True)
class InOtherUnits:
    """A term, or a criterion, whose value is so many times another's."""

    inner: Any
    factor: float

    @property
    def reads_interference(self) -> bool:
        return self.inner.reads_interference

    def sites(self, available: Iterable[Site], latent_side: int) -> tuple[Site, ...]:
        return self.inner.sites(available, latent_side)

    @property
    def stateful(self) -> bool:
        return getattr(self.inner, "stateful", False)

    def __call__(self, *seen: Any) -> Any:
        if self.stateful:
            values, state = self.inner(*seen)
            return self.factor * values, state
        return self.factor * self.inner(*seen)


@pytest.mark.parametrize(
    ("balance", "name"),
    [
        *(("gradnorm", name) for name in ("variance", "self_attention", "entropy", "classification")),
        ("none", "entropy"),
    ],
)
def test_a_terms_units_do_not_matter_where_terms_are_balanced(prepared: Prepare, balance: str, name: str) -> None:
    batch = prepared("quick", [*ENTROPY, f"optimiser.balance={balance}"], slice(1))
    if name == "classification":
        surrogates = replace(batch.surrogates, criterion=InOtherUnits(batch.surrogates.criterion, 1000.0))
        scaled = replace(batch, surrogates=surrogates)
    else:
        terms = dict(batch.method.objective.terms)
        terms[name] = replace(terms[name], term=InOtherUnits(terms[name].term, 1000.0))
        objective = replace(batch.method.objective, terms=terms)
        scaled = replace(batch, method=replace(batch.method, objective=objective))
    latents = away(batch)
    plain, other = (value_and_grad(each, latents, 3, carried(each)).gradient for each in (batch, scaled))
    gap = (other - plain).norm() / plain.norm()
    if balance == "gradnorm":
        assert gap < 1e-4
    else:
        assert gap > 1e-2, "what balance is for"


def test_losses_say_the_same_with_and_without_balance(prepared: Prepare) -> None:
    plain, balanced = prepared("quick", ENTROPY, slice(1)), prepared("quick", BALANCED, slice(1))
    losses = [value_and_grad(each, away(each), 3, carried(each)).losses for each in (plain, balanced)]
    assert set(losses[0]) == set(losses[1]) == {"classification", "variance", "self_attention", "entropy"}
    for name, values in losses[0].items():
        torch.testing.assert_close(losses[1][name], values)


@pytest.mark.heavy
def test_a_balanced_attack_carries_its_norms_and_cuts_them_with_its_images(prepared: Prepare) -> None:
    settings = [*BALANCED, "optimiser.iterations=4"]
    loop, undisturbed = optimise_latents(prepared("quick", settings)), optimise_latents(prepared("quick", settings))
    assert next(loop).state.balance.norms == {}
    next(undisturbed)
    whole = next(undisturbed).state.balance.norms
    left = loop.send(torch.tensor([False, True, False])).state.balance.norms
    assert set(left) == {"classification", "variance", "self_attention", "entropy"}
    for name, values in left.items():
        assert torch.equal(values, whole[name][[0, 2]])
    later = next(loop).state.balance.norms
    assert (later["entropy"] != left["entropy"]).all()


def test_an_iteration_in_which_nothing_is_switched_on(prepared: Prepare) -> None:
    """All windows begin later: the latents stay where they are, as they do without balance."""
    late = ["classification.schedule.window=[0.6, 1.0]", "terms.variance.weight=0.0", "terms.self_attention.weight=0.0"]
    for balance in ("none", "gradnorm"):
        settings = [*late, "optimiser.iterations=2", "diffusion.denoising_steps=1", f"optimiser.balance={balance}"]
        first, second, _ = optimise_latents(prepared("quick", settings, slice(1)))
        assert torch.equal(first.latents, second.latents)
