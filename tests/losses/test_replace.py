"""The replacement term against calculations by hand, for phrases of unequally many tokens above all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy
import pytest
import torch
from torch import Tensor

from attnshift.attack.loop import AttackState, value_and_grad
from attnshift.attack.method import Method
from attnshift.attack.optimiser import AdamW
from attnshift.attack.prepare import Task, prepare_batch
from attnshift.attention.selection import Selection
from attnshift.losses.attention import Replace
from attnshift.losses.objective import Objective, WeightedTerm
from attnshift.losses.schedules import Schedule
from attnshift.recipes.reading import load_recipe
from attnshift.sizes import Size
from attnshift.testing.observations import HEADS, LATENTS, RUNNING, SITES, STEPS, observation, with_maps
from attnshift.types import AttentionMaps, Observation, Site, TokenSpan

if TYPE_CHECKING:
    from attnshift.classifiers.classifier import Classifier
    from attnshift.diffusion.stable_diffusion import StableDiffusion

MINE: tuple[TokenSpan, ...] = ((2,), (1, 3, 4), (1, 3, 4))
WANTED: tuple[TokenSpan, ...] = ((1, 2, 4), (5, 2), (3,))
"""1 token against 3, 3 against 2, and 3 against 1."""
ALIGNMENT = (
    [[0.5, 0.3, 0.2]],
    [[1.0, 0.0], [0.25, 0.75], [0.0, 1.0]],
    [[1.0], [1.0], [1.0]],
)
UP = Site("up", "cross", "up", Size.of(2), 1)
with_both_norms = pytest.mark.parametrize("p", [1, 2])
with_every_form = pytest.mark.parametrize("form", ["shape", "mass", "aligned"])


def unequal() -> Observation:
    """Random maps of three images at every site, with a mask that differs by image."""
    observed = observation()
    assert observed.interference is not None
    return replace(
        observed,
        tokens=MINE,
        weights=torch.rand(3, 1, 64, 64, generator=torch.Generator().manual_seed(3)) ** 4 + 0.01,
        interference=replace(observed.interference, tokens=WANTED, alignment=tuple(map(torch.tensor, ALIGNMENT))),
    )


def sites_by_hand() -> list[Site]:
    return [site for site in SITES if site.kind == "cross" and site.grid.rows == 4]


def token_map(attention: AttentionMaps, sites: Sequence[Site], steps: Sequence[int], image: int, token: int) -> Any:
    """Mean over sites, steps and heads of one token's map, [16]."""
    total = numpy.zeros(16)
    for site in sites:
        for step in steps:
            for head in range(HEADS):
                total += attention[site][step][image, head, :, token].double().numpy()
    return total / (len(sites) * len(steps) * HEADS)


def grid(weights: Tensor) -> numpy.ndarray:
    """Mean of each of the 4 x 4 blocks of 64 x 64 pixels, [16]."""
    pixels = weights.double().numpy()
    blocks = [
        pixels[16 * row : 16 * row + 16, 16 * column : 16 * column + 16] for row in range(4) for column in range(4)
    ]
    return numpy.array([block.mean() for block in blocks])


def by_hand(observed: Observation, form: str, p: int, image: int, steps: Sequence[int]) -> float:
    assert observed.interference is not None
    running, reference = observed.adversarial.attention, observed.interference.attention
    weights = grid(observed.weights[image, 0])

    def phrases(sites: Sequence[Site]) -> tuple[list[numpy.ndarray], list[numpy.ndarray]]:
        seen = [site.seen("reference") for site in sites]
        return (
            [token_map(running, sites, steps, image, token) for token in MINE[image]],
            [token_map(reference, seen, steps, image, token) for token in WANTED[image]],
        )

    if form == "aligned":
        gaps = []
        for site in sites_by_hand():
            mine, wanted = phrases([site])
            for row, look in zip(ALIGNMENT[image], mine, strict=True):
                meant = sum(part * each for part, each in zip(row, wanted, strict=True))
                gap = abs(look / look.sum() - meant / meant.sum())
                gaps.append(sum(weight * each**p for weight, each in zip(weights, gap, strict=True)))
        return sum(gaps) / len(gaps)
    mine, wanted = (sum(each) for each in phrases(sites_by_hand()))
    if form == "shape":
        gap = abs(mine / mine.sum() - wanted / wanted.sum())
        return float(sum(weight * each**p for weight, each in zip(weights, gap, strict=True)))
    far, size = (sum(abs(weights * each) ** p) ** (1 / p) for each in (mine - wanted, wanted))
    return float(far / size)


@with_every_form
@with_both_norms
@pytest.mark.parametrize(("window", "steps"), [((0, -1), range(STEPS)), ((0, 0), [0])])
def test_unequal_phrases_by_hand(form: Any, p: Any, window: tuple[int, int], steps: Sequence[int]) -> None:
    observed = unequal()
    values = Replace(form, p, Selection(grid="half", steps=window))(observed)
    assert values.shape == (3,)
    for image in range(3):
        assert float(values[image]) == pytest.approx(by_hand(observed, form, p, image, steps), rel=1e-4)


def seen(
    running: Sequence[Sequence[float]], wanted: Sequence[Sequence[float]], align: Sequence[Sequence[float]]
) -> Any:
    """One image, site, step and head: one list of four positions per token, and weights of 1."""
    observed = observation()
    assert observed.interference is not None
    reference = {UP.seen("reference"): (torch.tensor(wanted).T[None, None].contiguous(),)}
    return replace(
        with_maps(observed, {UP: [torch.tensor(running).T[None, None].contiguous()]}),
        images=torch.zeros(1, 3, 8, 8),
        tokens=(tuple(range(len(running))),),
        weights=torch.ones(1, 1, 8, 8),
        interference=replace(
            observed.interference,
            tokens=(tuple(range(len(wanted))),),
            alignment=(torch.tensor(align),),
            attention=reference,
        ),
    )


LOOK = [0.4, 0.2, 0.1, 0.1]
"""Shares of 1/2, 1/4, 1/8 and 1/8 of a mass of 0.8."""


@pytest.mark.parametrize(
    ("form", "p", "expected"),
    [
        ("shape", 1, 0.5), ("shape", 2, 0.09375),
        ("mass", 1, 1.0), ("mass", 2, math.sqrt(2.5)),
        ("aligned", 1, 0.75), ("aligned", 2, 0.21875),
    ],
)  # fmt: skip
def test_literal_maps(form: Any, p: Any, expected: float) -> None:
    """The two reference tokens are flat together; the only true token is aligned with the first of them.

    Gaps of shape: 1/4, 0, 1/8, 1/8; of mass: 0.3, 0.1, 0, 0 of 0.1 each; aligned: 0, 1/4, 1/8, 3/8.
    """
    observed = seen([LOOK], [[0.1, 0.0, 0.0, 0.1], [0.0, 0.1, 0.1, 0.0]], [[1.0, 0.0]])
    assert float(Replace(form, p)(observed)) == pytest.approx(expected, abs=1e-5)


def test_mask_weights_every_form() -> None:
    observed = seen([LOOK], [[0.1, 0.0, 0.0, 0.1], [0.0, 0.1, 0.1, 0.0]], [[1.0, 0.0]])
    pixels = torch.tensor([[1.0, 0.5], [0.1, 0.2]]).repeat_interleave(4, 0).repeat_interleave(4, 1)[None, None]
    masked = replace(observed, weights=pixels)
    assert float(Replace("shape")(masked)) == pytest.approx(0.25 + 0.3 * 0.125, abs=1e-6)
    assert float(Replace("shape", 2)(masked)) == pytest.approx(0.0625 + 0.3 * 0.015625, abs=1e-6)
    assert float(Replace("aligned")(masked)) == pytest.approx(0.5 * 0.25 + 0.1 * 0.125 + 0.2 * 0.375, abs=1e-6)
    assert float(Replace("mass")(masked)) == pytest.approx((0.3 + 0.5 * 0.1) / (1.8 * 0.1), abs=1e-5)
    assert float(Replace("mass", 2)(masked)) == pytest.approx(
        math.sqrt(0.3**2 + (0.5 * 0.1) ** 2) / (0.1 * math.sqrt(1 + 0.25 + 0.01 + 0.04)), abs=1e-5
    )


def test_one_reference_token_is_not_compared_with_each_of_three() -> None:
    """Three tokens that are flat together are no distance from a flat one, unless token by token."""
    running = [[0.1, 0.0, 0.0, 0.0], [0.0, 0.1, 0.0, 0.0], [0.0, 0.0, 0.1, 0.1]]
    observed = seen(running, [[0.1, 0.1, 0.1, 0.1]], [[1.0]] * 3)
    for p in (1, 2):
        assert float(Replace("shape", p)(observed)) == pytest.approx(0, abs=1e-6)
        assert float(Replace("mass", p)(observed)) == pytest.approx(0, abs=1e-6)
    assert float(Replace("aligned")(observed)) == pytest.approx((1.5 + 1.5 + 1) / 3, abs=1e-5)


def test_aligned_is_the_mean_over_sites_and_shape_the_distance_of_the_mean() -> None:
    """Two sites that look at opposite ends of a flat reference."""
    down, up = replace(UP, layer="down", place="down"), UP
    observed = seen([[1.0, 0.0, 0.0, 0.0]], [[0.25, 0.25, 0.25, 0.25]], [[1.0]])
    assert observed.interference is not None
    reference = observed.interference.attention[up.seen("reference")]
    looks = {
        down: [torch.tensor([1.0, 1.0, 0.0, 0.0]).view(1, 1, 4, 1)],
        up: [torch.tensor([0.0, 0.0, 1.0, 1.0]).view(1, 1, 4, 1)],
    }
    both = replace(
        with_maps(observed, looks),
        interference=replace(
            observed.interference, attention={site.seen("reference"): reference for site in (down, up)}
        ),
    )
    assert float(Replace("shape")(both)) == pytest.approx(0, abs=1e-6)
    assert float(Replace("aligned")(both)) == pytest.approx(1, abs=1e-6)


def test_shape_without_a_mask_is_between_0_and_2() -> None:
    observed = replace(unequal(), weights=torch.ones(3, 1, 64, 64))
    for sharpness in (1.0, 10.0, 300.0):
        looks = {
            site: [(sharpness * each.log()).softmax(2) for each in steps]
            for site, steps in observed.adversarial.attention.items()
        }
        values = Replace()(with_maps(observed, looks))
        assert (values > 0.1).all()
        assert (values <= 2 + 1e-5).all()
    apart = seen([[0.0, 0.01, 0.0, 0.0]], [[0.2, 0.0, 0.0, 0.3]], [[1.0]])
    assert float(Replace()(apart)) == pytest.approx(2, abs=1e-5)


@with_both_norms
@pytest.mark.parametrize("tokens", [1, 2, 3])
def test_shape_is_0_where_the_running_phrase_looks_where_the_reference_looks(p: Any, tokens: int) -> None:
    """Whatever its mass, and however many tokens share it."""
    parts = [[0.3 * each / tokens for each in LOOK]] * tokens
    observed = seen(parts, [LOOK], [[1.0]] * tokens)
    assert float(Replace("shape", p)(observed)) == pytest.approx(0, abs=1e-6)
    assert float(Replace("aligned", p)(observed)) == pytest.approx(0, abs=1e-6)


@with_both_norms
def test_mass_is_the_part_of_the_references_mass_that_is_missing(p: Any) -> None:
    for scale in (1.0, 0.01):
        wanted = [[scale * each for each in LOOK]]
        assert float(Replace("mass", p)(seen([[0.3 * each for each in wanted[0]]], wanted, [[1.0]]))) == pytest.approx(
            0.7, abs=1e-4
        )
        assert float(Replace("mass", p)(seen(wanted, wanted, [[1.0]]))) == 0


def test_shape_ignores_the_references_mass_and_mass_does_not() -> None:
    wanted = [0.1, 0.1, 0.1, 0.1]
    more, less = (seen([LOOK], [[scale * each for each in wanted]], [[1.0]]) for scale in (1.0, 0.5))
    for form in ("shape", "aligned"):
        torch.testing.assert_close(Replace(form)(more), Replace(form)(less))  # type: ignore[arg-type]
    assert float(Replace("mass")(more)) == pytest.approx(1.0, abs=1e-5)
    assert float(Replace("mass")(less)) == pytest.approx((0.35 + 0.15 + 0.05 + 0.05) / 0.2, abs=1e-5)


def test_the_running_maps_and_their_reference_are_asked_for() -> None:
    quarter = [site for site in SITES if site.kind == "cross" and site.grid.rows == 2 and site.place in ("down", "up")]
    for available in (SITES, RUNNING):
        asked = Replace().sites(available, LATENTS)
        assert sorted(asked) == sorted([*quarter, *(site.seen("reference") for site in quarter)])


def test_gradient_of_a_literal_mass() -> None:
    """d/dT of |T - R| / |R| with R constant: the sign of T - R over the mass of R."""
    observed = seen([LOOK], [[0.2, 0.3, 0.2, 0.1001]], [[1.0]])
    leaf = observed.adversarial.attention[UP][0].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(Replace("mass")(with_maps(observed, {UP: [leaf]})).sum(), leaf)
    torch.testing.assert_close(gradient.flatten(), torch.tensor([1.0, -1.0, -1.0, -1.0]) / 0.8001)


@with_every_form
def test_reference_of_an_attack_is_a_constant(
    backbone: StableDiffusion, classifiers: list[Classifier], form: Any
) -> None:
    objective = Objective({"replace": WeightedTerm(Replace(form), 1.0, Schedule())})
    method = replace(Method.of(load_recipe("quick", ["classification.weight=0.0"])), objective=objective)
    image = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
    batch = prepare_batch(method, backbone, classifiers[:1], [Task("only", image, 1, "snowman")])
    assert batch.observe.interference is not None
    reference = batch.observe.interference.attention
    assert {site.view for site in reference} == {"reference"}
    before = {site: [each.clone() for each in steps] for site, steps in reference.items()}
    start = batch.render.trajectory.start
    assert value_and_grad(batch, start, 0, AttackState(AdamW.start(start, 0.1, 0.0))).gradient.any()
    for site, steps in reference.items():
        for now, then in zip(steps, before[site], strict=True):
            assert now.grad_fn is None
            assert not now.requires_grad
            assert torch.equal(now, then)
