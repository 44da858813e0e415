"""What every term of ``losses.TERMS`` must do, whatever it measures."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from attnshift.attack.loop import objective_gradient
from attnshift.attack.method import Method
from attnshift.attack.problem import Task, pose
from attnshift.attack.recipe import load_recipe
from attnshift.classifiers.classifier import Classifier
from attnshift.diffusion.stable_diffusion import StableDiffusion
from attnshift.losses import TERMS
from attnshift.losses.objective import LossTerm
from attnshift.tables import build
from contracts.observations import Fill, observation, one_hot, only, scores, softmax, uniform, with_maps

EVERYWHERE = {"select": {"places": ["down", "mid", "up"], "grid": "all"}}
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "variance": [{}, EVERYWHERE, {"select": {"steps": [1, 1]}}],
    "self_attention": [{}, {"reduction": "mean"}, {"select": {"grid": "quarter", "steps": [0, 0]}}],
}
"""Options beyond the defaults to hold a term to; a term that is not named here is held to its defaults."""

CASES = [pytest.param(name, options, id=f"{name}{options}") for name in TERMS for options in OPTIONS.get(name, [{}])]
with_every_term = pytest.mark.parametrize(("name", "options"), CASES)


def term(name: str, options: dict[str, Any]) -> LossTerm:
    built = build(TERMS, "term", name, options)
    assert isinstance(built, LossTerm)
    return built


@with_every_term
def test_one_fp32_value_per_image(name: str, options: dict[str, Any]) -> None:
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        values = term(name, options)(observation(dtype=dtype))
        assert values.shape == (3,)
        assert values.dtype == torch.float32
        assert values.isfinite().all()


@with_every_term
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("clean", [softmax, uniform, one_hot])
@pytest.mark.parametrize("fill", [uniform, one_hot])
def test_value_and_gradient_are_finite_on_degenerate_maps(
    name: str, options: dict[str, Any], fill: Fill, clean: Fill, dtype: torch.dtype
) -> None:
    observed = observation(fill, clean, dtype)
    leaves = {
        site: [each.clone().requires_grad_() for each in steps]
        for site, steps in observed.adversarial.attention.items()
    }
    values = term(name, options)(with_maps(observed, leaves))
    assert values.isfinite().all()
    gradients = torch.autograd.grad(
        values.sum(), [each for steps in leaves.values() for each in steps], allow_unused=True
    )
    assert any(each is not None for each in gradients)
    assert all(each.isfinite().all() for each in gradients if each is not None)


@with_every_term
def test_batch_mates_change_nothing(name: str, options: dict[str, Any]) -> None:
    built, observed = term(name, options), observation()
    together = built(observed)
    for image in range(3):
        torch.testing.assert_close(built(only(observed, image)), together[image : image + 1], rtol=1e-5, atol=0)


@with_every_term
def test_only_the_sites_it_names_are_read(name: str, options: dict[str, Any]) -> None:
    built, observed = term(name, options), observation()
    named = built.sites(tuple(observed.adversarial.attention), observed.adversarial.latents.shape[-1])
    assert set(named) <= set(observed.adversarial.attention)
    cut = with_maps(observed, {site: observed.adversarial.attention[site] for site in named})
    torch.testing.assert_close(built(cut), built(observed), rtol=0, atol=0)


@with_every_term
def test_gradcheck(name: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    built, observed = term(name, options), observation(dtype=torch.float64)
    named = built.sites(tuple(observed.adversarial.attention), observed.adversarial.latents.shape[-1])
    flat = [each.requires_grad_() for site in named for each in scores(1, dtype=torch.float64)[site]]
    # Terms compute in fp32, which is too coarse for finite differences: here their casts go to float64.
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)

    def value(*each: Tensor) -> Tensor:
        maps = iter([one.softmax(-1) for one in each])
        steps = len(each) // len(named)
        return built(with_maps(observed, {site: [next(maps) for _ in range(steps)] for site in named}))

    assert value(*flat).dtype == torch.float64
    assert torch.autograd.gradcheck(value, flat, fast_mode=True)


@pytest.fixture(scope="module")
def tasks() -> list[Task]:
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    return [Task("first", images[0], 1, "snowman"), Task("second", images[1], 2, "mug")]


@with_every_term
def test_gradient_reaches_the_latents_of_every_image(
    backbone: StableDiffusion, classifiers: list[Classifier], tasks: list[Task], name: str, options: dict[str, Any]
) -> None:
    recipe = load_recipe("fast", ["classification.weight=0.0", "diffusion.guidance=2.5"])
    method = Method.of(recipe)
    weighted = next(iter(method.objective.terms.values()))
    lone = type(weighted)(term(name, options), 1.0, type(weighted.schedule)())
    method = Method(
        recipe, method.reconstruction, type(method.objective)({name: lone}), method.criterion, method.rule,
        method.classification,
    )  # fmt: skip
    problem = pose(method, backbone, classifiers[:1], tasks)
    away = 0.1 * torch.randn(problem.trajectory.start.shape, generator=torch.Generator().manual_seed(1))
    gradient, _, losses, _ = objective_gradient(problem, problem.trajectory.start + away, 0.5)
    assert losses[name].shape == (2,)
    assert gradient.isfinite().all()
    assert (gradient.flatten(1).norm(dim=1) > 0).all()
