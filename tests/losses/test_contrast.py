"""The contrast term against calculations by hand: three forms, three places to read the interference phrase."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor

from attnshift.attention.selection import Selection
from attnshift.losses.attention import Contrast
from attnshift.sizes import Size
from attnshift.testing.observations import (
    HEADS,
    LATENTS,
    OTHERS,
    RUNNING,
    SITES,
    STEPS,
    TOKENS,
    observation,
    with_maps,
)
from attnshift.types import AttentionMaps, AttentionView, Observation, Site, TokenSpan

if TYPE_CHECKING:
    import numpy

UP = Site("up", "cross", "up", Size.of(2), 1)
TRUE, OTHER = (0,), (1,)
FORMS = ["share", "raw", "log"]
with_every_form = pytest.mark.parametrize("form", FORMS)


def seen(looks: Mapping[Site, Tensor], weights: Tensor | None = None) -> Observation:
    """One image and one step with maps [1, heads, 4, keys] per site; both phrases have one token in the prompt."""
    observed = observation()
    interference = observed.interference
    assert interference is not None
    return replace(
        with_maps(observed, {site: [each] for site, each in looks.items()}),
        images=torch.zeros(1, 3, 4, 4),
        tokens=(TRUE,),
        weights=torch.ones(1, 1, 4, 4) if weights is None else weights,
        interference=replace(interference, tokens=(OTHER,), probed=(OTHER,), joint=(OTHER,)),
    )


def masses(true: float, other: float) -> Tensor:
    """Maps whose true and other token have these masses at every position."""
    return torch.tensor([true, other]).expand(1, 1, 4, 2).clone()


def value(term: Contrast, true: float, other: float) -> float:
    return float(term(seen({UP: masses(true, other)}))[0])


def joint(form: Any = "share", delta: float = 0.2, **options: Any) -> Contrast:
    return Contrast(form, delta, "joint", **options)


@pytest.mark.parametrize(
    ("form", "delta", "expected"),
    [
        ("share", 0.2, 0.7), ("share", 0.0, 0.5), ("share", -0.6, 0.0), ("share", 1.0, 1.5),
        ("raw", 0.2, 0.4), ("raw", 0.0, 0.2), ("raw", -0.3, 0.0),
        ("log", 0.0, math.log(4)), ("log", math.log(2), math.log(7)), ("log", -math.log(3), math.log(2)),
    ],
)  # fmt: skip
def test_literal_masses(form: str, delta: float, expected: float) -> None:
    """Masses of 0.3 and 0.1: their share is 1/2 apart, their logarithms log 3."""
    assert value(joint(form, delta), 0.3, 0.1) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("form", "expected"), [("share", 0.2), ("raw", 0.2), ("log", math.log(1 + math.exp(0.2)))])
def test_equal_masses_leave_the_margin(form: str, expected: float) -> None:
    assert value(joint(form), 0.05, 0.05) == pytest.approx(expected, abs=1e-5)


def test_mass_of_a_phrase_is_the_sum_over_its_tokens() -> None:
    looks = torch.tensor([0.1, 0.2, 0.05, 0.05]).expand(1, 1, 4, 4)
    observed = seen({UP: looks})
    assert observed.interference is not None
    observed = replace(observed, tokens=((0, 1),), interference=replace(observed.interference, joint=((2, 3),)))
    assert float(joint()(observed)[0]) == pytest.approx(0.7, abs=1e-6)


def test_weights_of_heads() -> None:
    """Masses of 0.3 and 0.1 from heads of 0.6 and 0.2 that count half as much as heads without any."""
    looks = torch.cat([masses(0.9, 0.3), masses(0.0, 0.0)], 1)
    observed = seen({replace(UP, heads=2): looks})
    assert float(joint("raw", select=Selection(heads=(1.0, 2.0)))(observed)[0]) == pytest.approx(0.4, abs=1e-6)


@pytest.mark.parametrize(
    ("weights", "true", "other"),
    [
        ([[1.0, 1.0], [1.0, 1.0]], 0.3, 0.1),
        ([[1.0, 0.5], [0.25, 0.25]], 0.6, 0.05),
        ([[0.5, 0.5], [0.5, 1.0]], 0.24, 0.16),
    ],
)
def test_mass_is_the_mean_weighted_by_the_mask(weights: list[list[float]], true: float, other: float) -> None:
    """The true phrase has 1.2 at the first of four positions, the other 0.4 at the last."""
    looks = torch.zeros(1, 1, 4, 2)
    looks[..., 0, 0], looks[..., 3, 1] = 1.2, 0.4
    pixels = torch.tensor(weights).repeat_interleave(2, 0).repeat_interleave(2, 1)[None, None]
    observed = seen({UP: looks}, pixels)
    for scale in (1.0, 0.1):
        found = joint("raw")(replace(observed, weights=scale * pixels))
        assert float(found[0]) == pytest.approx(0.2 + true - other, abs=1e-6)


def mass_by_hand(
    attention: AttentionMaps,
    view: AttentionView,
    span: TokenSpan,
    image: int,
    weights: numpy.ndarray,
    steps: Sequence[int],
) -> float:
    """Weighted mean over positions of what a phrase gets at the two sites of 4 x 4 positions."""
    total = whole = 0.0
    sites = [site.seen(view) for site in SITES if site.kind == "cross" and site.grid.rows == 4]
    for row in range(4):
        for column in range(4):
            block = weights[16 * row : 16 * (row + 1), 16 * column : 16 * (column + 1)].mean()
            whole += block
            for site in sites:
                for step in steps:
                    look = attention[site][step][image].double().numpy()[:, 4 * row + column]
                    for head in range(HEADS):
                        for token in span:
                            total += block * look[head, token] / (len(sites) * len(steps) * HEADS)
    return total / whole


def by_hand(form: str, delta: float, true: float, other: float) -> float:
    if form == "log":
        return math.log(1 + math.exp(delta) * true / other)
    return max(0.0, delta + (true - other) / (true + other if form == "share" else 1))


VIEWS: dict[str, tuple[AttentionView, AttentionView]] = {
    "probe": ("probe", "probe"),
    "joint": ("prompt", "prompt"),
    "separate": ("prompt", "separate"),
}


@with_every_form
@pytest.mark.parametrize("tokens", list(VIEWS))
@pytest.mark.parametrize(("window", "steps"), [((0, -1), range(STEPS)), ((1, 1), [1])])
def test_random_maps_by_hand(form: Any, tokens: Any, window: tuple[int, int], steps: Sequence[int]) -> None:
    weights = torch.rand(3, 1, 64, 64, generator=torch.Generator().manual_seed(3)) ** 4
    weights[:, :, :16] *= 0.05
    observed = replace(observation(), weights=weights)
    assert observed.interference is not None
    spans = {"probe": observed.interference.probed, "joint": observed.interference.joint, "separate": OTHERS}[tokens]
    assert spans is not None
    values = Contrast(form, 0.9, tokens, Selection(grid="half", steps=window))(observed)
    assert (values > 0).all()
    for image in range(3):
        true, other = (
            mass_by_hand(observed.adversarial.attention, view, span, image, weights[image, 0].double().numpy(), steps)
            for view, span in zip(VIEWS[tokens], (TOKENS[image], spans[image]), strict=True)
        )
        assert float(values[image]) == pytest.approx(by_hand(form, 0.9, true, other), rel=1e-4)


@pytest.mark.parametrize(
    ("tokens", "views"), [("probe", ["probe"]), ("joint", ["prompt"]), ("separate", ["prompt", "separate"])]
)
def test_only_the_views_of_its_phrases_are_asked_for(tokens: Any, views: list[AttentionView]) -> None:
    quarter = [site for site in SITES if site.kind == "cross" and site.grid.rows == 2 and site.place in ("down", "up")]
    expected = {site.seen(view) for site in quarter for view in views}
    for available in (SITES, RUNNING):
        asked = Contrast(tokens=tokens).sites(available, LATENTS)
        assert set(asked) == expected
        assert len(asked) == len(expected)


@pytest.mark.parametrize("tokens", list(VIEWS))
def test_other_views_change_nothing(tokens: Any) -> None:
    observed, term = observation(), Contrast(tokens=tokens, delta=3.0)
    other = {
        site: [each if site.view in VIEWS[tokens] else each.flip(3) for each in steps]
        for site, steps in observed.adversarial.attention.items()
    }
    assert torch.equal(term(with_maps(observed, other)), term(observed))


def slope(form: str, true: float, other: float, delta: float = 0.2) -> tuple[float, Tensor]:
    looks = masses(true, other).requires_grad_()
    found = joint(form, delta)(seen({UP: looks}))
    return float(found.detach()), torch.autograd.grad(found.sum(), looks)[0]


def test_share_saturates() -> None:
    """It is 0, without a gradient, where the other phrase has 3/2 of the true one's mass: a share 0.2 ahead."""
    for scale in (1.0, 0.1, 0.01):
        before, towards = slope("share", 0.1 * scale, 0.149 * scale)
        assert before > 0
        assert (towards[..., 0] > 0).all()
        assert (towards[..., 1] < 0).all()
        after, nothing = slope("share", 0.1 * scale, 0.151 * scale)
        assert after == 0
        assert not nothing.any()


def test_raw_never_saturates_on_masses_as_small_as_a_models_and_log_never_at_all() -> None:
    for form in ("raw", "log"):
        found, towards = slope(form, 0.001, 0.02)
        assert found > 0
        assert (towards[..., 1] < 0).all()
    assert slope("raw", 0.1, 0.301)[0] == 0


def test_common_scale_of_the_masses_matters_in_the_raw_form_only() -> None:
    for form in ("share", "log"):
        assert value(joint(form), 0.003, 0.001) == pytest.approx(value(joint(form), 0.3, 0.1), rel=1e-4)
    assert value(joint("raw"), 0.003, 0.001) == pytest.approx(0.202, abs=1e-6)
    assert value(joint("raw"), 0.3, 0.1) == pytest.approx(0.4, abs=1e-6)


@with_every_form
def test_lowering_it_moves_mass_from_the_true_phrase_to_the_other(form: str) -> None:
    _, towards = slope(form, 0.03, 0.02)
    assert (towards[..., 0] > 0).all()
    assert (towards[..., 1] < 0).all()
