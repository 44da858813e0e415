"""The entropy term against calculations by hand, its dropout of heads, and its two kinds of smoothing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor

from attnshift.attention.selection import Selection
from attnshift.losses.attention import Entropy
from attnshift.losses.objective import Objective, TermState, TermStates, WeightedTerm
from attnshift.losses.schedules import Schedule
from attnshift.sizes import Size
from attnshift.testing.observations import HEADS, SITES, STEPS, TOKENS, maps, observation, softmax, with_maps
from attnshift.types import AttentionMaps, Observation, RandomKey, Site

ONE_PLACE = [1.0, 0.0, 0.0, 0.0]
"""Maps of 2 x 2 positions whose values are 1, 1/2, 1/8 and 0: an entropy of 0, 1, 7/4 and 2 of 2 bits."""
TWO_PLACES = [0.5, 0.5, 0.0, 0.0]
HALVING = [0.5, 0.25, 0.125, 0.125]
FLAT = [0.25, 0.25, 0.25, 0.25]


def up(heads: int, layer: str = "up") -> Site:
    return Site(layer, "cross", "up", Size.of(2), heads)


def seen(looks: Mapping[Site, Sequence[Tensor]], tokens: int = 1, iteration: int = 0) -> Observation:
    """What a term sees of maps [images, heads, 4, keys] per site and step, with the name at the first tokens."""
    images = len(next(iter(looks.values()))[0])
    ids = tuple(f"image {at}" for at in range(images))
    return replace(
        with_maps(observation(), looks),
        tokens=(tuple(range(tokens)),) * images,
        key=RandomKey(0, ids, iteration),
    )


def heads(*looks: Sequence[float]) -> Tensor:
    """Maps [1, heads, 4, 1] of one image's only token, one list of positions per head."""
    return torch.tensor(looks)[None, :, :, None]


def value(term: Entropy, *steps: Tensor) -> float:
    (only,) = values_of(term, seen({up(steps[0].shape[1]): steps}, steps[0].shape[3])).tolist()
    return only


def values_of(term: Entropy, observed: Observation, state: TermState | None = None) -> Tensor:
    """One value per image, [batch]."""
    return term(observed, state)[0]


def relative_entropy(look: numpy.ndarray) -> float:
    share = look.reshape(-1) / look.sum()
    return -sum(each * math.log(each) for each in share if each > 0) / math.log(share.size)


def cross_sites(side: int) -> list[Site]:
    return [site for site in SITES if site.kind == "cross" and site.grid.rows == side and site.place in ("down", "up")]


def token_map(attention: AttentionMaps, site: Site, step: int, image: int, head: int, token: int) -> numpy.ndarray:
    return attention[site][step][image, head, :, token].detach().double().numpy()


def by_hand(attention: AttentionMaps, side: int, image: int, order: str, shares: Sequence[float]) -> float:
    """1 - H of one image, its heads weighted by ``shares``, which sum to 1."""
    entropies = []
    for token in TOKENS[image]:
        mean, after = numpy.zeros(side * side), 0.0
        for site in cross_sites(side):
            for step in range(STEPS):
                for head, share in enumerate(shares):
                    look = token_map(attention, site, step, image, head, token)
                    mean += share * look / (len(cross_sites(side)) * STEPS)
                    after += share * relative_entropy(look) / (len(cross_sites(side)) * STEPS)
        entropies.append(relative_entropy(mean) if order == "mean_then_entropy" else after)
    return 1 - sum(entropies) / len(entropies)


with_both_orders = pytest.mark.parametrize("order", ["mean_then_entropy", "per_head"])


@with_both_orders
@pytest.mark.parametrize(("look", "expected"), [(FLAT, 0), (HALVING, 0.125), (TWO_PLACES, 0.5), (ONE_PLACE, 1)])
def test_literal_maps(order: Any, look: list[float], expected: float) -> None:
    assert value(Entropy(order), heads(look)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("scale", [1e-3, 0.01, 30.0])
def test_scale_of_a_map_does_not_matter(scale: float) -> None:
    assert value(Entropy(), scale * heads(HALVING)) == pytest.approx(0.125, abs=1e-4)


def test_each_token_counts_by_itself() -> None:
    """The mean of the tokens' entropies, whatever their masses; not the entropy of what they see together."""
    looks = torch.stack([heads(HALVING)[..., 0], 0.01 * heads(TWO_PLACES)[..., 0], 3 * heads(ONE_PLACE)[..., 0]], -1)
    assert value(Entropy(), looks) == pytest.approx((0.125 + 0.5 + 1) / 3, abs=1e-5)


def test_order_of_mean_and_entropy() -> None:
    apart = heads(ONE_PLACE, ONE_PLACE[::-1])
    assert value(Entropy("mean_then_entropy"), apart) == pytest.approx(0.5, abs=1e-6)
    assert value(Entropy("per_head"), apart) == pytest.approx(1, abs=1e-6)
    steps = heads(ONE_PLACE), heads(ONE_PLACE[::-1])
    assert value(Entropy("mean_then_entropy"), *steps) == pytest.approx(0.5, abs=1e-6)
    assert value(Entropy("per_head"), *steps) == pytest.approx(1, abs=1e-6)


def test_weights_of_heads_in_the_mean_map() -> None:
    """A mean map of a quarter here and three quarters there: H = 0.811278 of 2 bits."""
    term = Entropy("mean_then_entropy", select=Selection(heads=(1.0, 3.0)))
    assert value(term, heads(ONE_PLACE, ONE_PLACE[::-1])) == pytest.approx(1 - 0.8112781 / 2, abs=1e-6)


def test_weights_of_heads_in_the_mean_of_entropies() -> None:
    term = Entropy("per_head", select=Selection(heads=(1.0, 3.0)))
    assert value(term, heads(ONE_PLACE, FLAT)) == pytest.approx(0.25, abs=1e-6)
    assert value(term, heads(FLAT, ONE_PLACE)) == pytest.approx(0.75, abs=1e-6)


@with_both_orders
def test_head_of_weight_0_is_not_read(order: Any) -> None:
    term = Entropy(order, select=Selection(heads=(0.0, 1.0)))
    assert value(term, heads(FLAT, TWO_PLACES)) == pytest.approx(0.5, abs=1e-6)


@with_both_orders
@pytest.mark.parametrize(("grid", "side"), [("quarter", 2), ("half", 4)])
@pytest.mark.parametrize(("weights", "shares"), [((), (0.5, 0.5)), ((1.0, 3.0), (0.25, 0.75))])
def test_random_maps_by_hand(order: Any, grid: Any, side: int, weights: Any, shares: tuple[float, ...]) -> None:
    observed = observation()
    values = values_of(Entropy(order, select=Selection(grid=grid, heads=weights)), observed)
    for image in range(3):
        expected = by_hand(observed.adversarial.attention, side, image, order, shares)
        assert float(values[image]) == pytest.approx(expected, rel=1e-4)


def test_lowering_the_term_raises_the_entropy() -> None:
    scores = torch.tensor([2.0, 0.5, -1.0, 0.0], requires_grad=True)
    entropies = []
    for _ in range(5):
        look = scores.softmax(0)
        entropies.append(relative_entropy(look.detach().double().numpy()))
        (gradient,) = torch.autograd.grad(values_of(Entropy(), seen({up(1): [look.view(1, 1, 4, 1)]})).sum(), scores)
        scores = (scores - gradient).detach().requires_grad_()
    assert entropies == sorted(entropies)
    assert entropies[-1] > entropies[0] + 0.1


def test_gradient_of_a_name_of_one_token() -> None:
    """(log q + H) / (mass * log 4), H in nats; with a second softmax, or one over tokens, it would be nearly or all 0.

    The mass of the map is 0.01, as it is in a real model.
    """
    look = (0.01 * heads(HALVING)).requires_grad_()
    (gradient,) = torch.autograd.grad(values_of(Entropy(), seen({up(1): [look]})).sum(), look)
    expected = [(math.log(share) + 1.75 * math.log(2)) / (0.01 * math.log(4)) for share in HALVING]
    torch.testing.assert_close(gradient.flatten(), torch.tensor(expected), rtol=1e-3, atol=1e-3)
    assert float(gradient.norm()) > 50


def drawn(images: int, count: int, steps: int = 3, layers: Sequence[str] = ("up",)) -> dict[Site, list[Tensor]]:
    """Random maps of many images, the same for all of them."""
    draw = torch.Generator().manual_seed(0)
    return {
        up(count, layer): [
            torch.rand(1, count, 4, 1, generator=draw).expand(images, -1, -1, -1).clone() for _ in range(steps)
        ]
        for layer in layers
    }


def staying(term: Entropy, observed: Observation) -> dict[str, Tensor]:
    """Which heads each image's value depends on, bool [images, steps, heads], by layer.

    The gradient of a head that was left out is exactly 0.
    """
    looks = {
        site: [each.clone().requires_grad_() for each in steps]
        for site, steps in observed.adversarial.attention.items()
    }
    total = values_of(term, with_maps(observed, looks)).sum()
    return {
        site.layer: torch.stack(
            [each.abs().sum((2, 3)) > 0 for each in torch.autograd.grad(total, steps, retain_graph=True)], 1
        )
        for site, steps in looks.items()
    }


@with_both_orders
def test_dropout_keeps_the_same_heads_in_all_steps(order: Any) -> None:
    stay = staying(Entropy(order, 0.5), seen(drawn(20, 8)))["up"]
    assert torch.equal(stay, stay[:, :1].expand_as(stay))
    assert not stay.all()


def test_dropout_differs_by_image_site_iteration_and_seed_and_repeats() -> None:
    observed, term = seen(drawn(20, 8, 1, ("one", "other"))), Entropy(dropout=0.5)
    first = staying(term, observed)
    assert len({tuple(each) for each in first["one"][:, 0].tolist()}) > 10
    assert not torch.equal(first["one"], first["other"])
    for key in (replace(observed.key, iteration=1), replace(observed.key, seed=1)):
        again = staying(term, replace(observed, key=key))
        assert (again["one"] != first["one"]).any(2).float().mean() > 0.8
    again = staying(term, observed)
    assert all(torch.equal(again[layer], first[layer]) for layer in first)


def test_dropout_of_an_image_is_not_its_batch_mates_business() -> None:
    looks, term = drawn(5, 8), Entropy(dropout=0.5)
    observed = seen(looks)
    together, stay = values_of(term, observed), staying(term, observed)["up"]
    assert len(set(together.tolist())) > 1
    backwards = replace(observed, key=replace(observed.key, ids=observed.key.ids[::-1]))
    torch.testing.assert_close(values_of(term, backwards), together.flip(0))
    assert torch.equal(staying(term, backwards)["up"], stay.flip(0))
    for image, id in enumerate(observed.key.ids):
        alone = seen({site: [each[:1] for each in steps] for site, steps in looks.items()})
        alone = replace(alone, key=replace(alone.key, ids=(id,)))
        torch.testing.assert_close(values_of(term, alone), together[image : image + 1])


def test_dropout_leaves_out_as_many_heads_as_it_says() -> None:
    stay = staying(Entropy(dropout=0.3), seen(drawn(500, 8, 1)))["up"][:, 0].float()
    assert float(stay.mean()) == pytest.approx(0.7, abs=0.03)
    assert (stay.mean(0) - 0.7).abs().max() < 0.08


@with_both_orders
def test_one_head_always_stays_and_it_can_be_any(order: Any) -> None:
    observed = seen(drawn(200, 4, 1))
    stay = staying(Entropy(order, 0.99), observed)["up"][:, 0]
    assert (stay.sum(1) >= 1).all()
    assert float(stay.sum(1).float().mean()) < 1.1
    assert (stay.sum(0) > 20).all()
    assert values_of(Entropy(order, 0.99), observed).isfinite().all()


@with_both_orders
def test_head_of_weight_0_is_never_the_one_that_stays(order: Any) -> None:
    term = Entropy(order, 0.99, select=Selection(heads=(0.0, 1.0, 2.0)))
    stay = staying(term, seen(drawn(200, 3, 1)))["up"][:, 0]
    assert not stay[:, 0].any()
    assert (stay.sum(1) >= 1).all()
    assert (stay.sum(0)[1:] > 20).all()
    looks = heads(ONE_PLACE, FLAT, FLAT).expand(200, -1, -1, -1)
    torch.testing.assert_close(values_of(term, seen({up(3): [looks]})), torch.zeros(200), rtol=0, atol=1e-6)


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0, 1.0), (1.0, 2.0, 3.0, 4.0)])
def test_heads_that_stay_are_scaled_up_to_a_mean_of_their_site(weights: tuple[float, ...]) -> None:
    observed = seen(drawn(12, 4, 2, ("one", "other")))
    term = Entropy(dropout=0.5, select=Selection(heads=weights))
    stay = staying(term, observed)
    counts = [stay[layer][:, 0].sum(1) for layer in ("one", "other")]
    assert not torch.equal(*counts)
    values = values_of(term, observed)
    for image in range(12):
        mean = numpy.zeros(4)
        for site, steps in observed.adversarial.attention.items():
            there = [head for head in range(4) if stay[site.layer][image, 0, head]]
            whole = sum(weights[head] for head in there)
            for step in range(len(steps)):
                for head in there:
                    mean += weights[head] / whole * token_map({site: tuple(steps)}, site, step, image, head, 0) / 4
        assert float(values[image]) == pytest.approx(1 - relative_entropy(mean), rel=1e-4)


@with_both_orders
def test_value_of_a_site_with_dropout_is_that_of_the_heads_that_stay(order: Any) -> None:
    observed = seen(drawn(12, 4, 2))
    term = Entropy(order, 0.5)
    stay = staying(term, observed)["up"][:, 0]
    values = values_of(term, observed)
    for image in range(12):
        shares = tuple(stay[image].float().tolist())
        alone = Entropy(order, select=Selection(heads=shares))
        torch.testing.assert_close(values_of(alone, observed)[image], values[image])


def iterations(sites: Sequence[Site]) -> list[Observation]:
    """Three iterations of the same three images."""
    return [with_maps(observation(), maps(seed, sites, softmax, torch.float32)) for seed in (11, 12, 13)]


def smoothed_by_hand(seen_so_far: Sequence[Observation], strength: float) -> AttentionMaps:
    """The first maps as they are; later ones weigh 1 - strength, and what was before them weighs strength."""
    smooth = {site: [each.double() for each in steps] for site, steps in seen_so_far[0].adversarial.attention.items()}
    for observed in seen_so_far[1:]:
        for site, steps in observed.adversarial.attention.items():
            for step, each in enumerate(steps):
                smooth[site][step] = (1 - strength) * each.double() + strength * smooth[site][step]
    return {site: tuple(steps) for site, steps in smooth.items()}


@with_both_orders
@pytest.mark.parametrize("strength", [0.25, 0.8])
def test_ema_over_three_iterations_by_hand(order: Any, strength: float) -> None:
    term = Entropy(order, smoothing="ema", strength=strength)
    state = None
    passed: list[Observation] = []
    for observed in iterations(cross_sites(2)):
        passed.append(observed)
        smooth = smoothed_by_hand(passed, strength)
        values, state = term(observed, state)
        for image, found in enumerate(values.tolist()):
            assert found == pytest.approx(by_hand(smooth, 2, image, order, (0.5, 0.5)), abs=1e-6)
        assert state is not None
        assert len(state) == 3


@with_both_orders
def test_ema_through_an_objective(order: Any) -> None:
    whole = Objective({"entropy": WeightedTerm(Entropy(order, smoothing="ema", strength=0.25), 2.0, Schedule())})
    states: TermStates = {}
    passed: list[Observation] = []
    for observed in iterations(cross_sites(2)):
        passed.append(observed)
        smooth = smoothed_by_hand(passed, 0.25)
        values, states = whole(observed, states)
        for image, found in enumerate(values["entropy"].tolist()):
            assert found == pytest.approx(2 * by_hand(smooth, 2, image, order, (0.5, 0.5)), abs=2e-6)


def test_ema_of_grids_of_several_sides() -> None:
    """Each site finds its own maps again in the state."""
    sites = [site for site in SITES if site.kind == "cross" and site.grid.rows > 1]
    select = Selection(grid="all")
    first, second, _ = iterations(sites)
    term = Entropy("per_head", smoothing="ema", strength=0.5, select=select)
    _, state = term(first, None)
    smooth = {site: [each.float() for each in steps] for site, steps in smoothed_by_hand((first, second), 0.5).items()}
    plain = values_of(Entropy("per_head", select=select), with_maps(observation(), smooth))
    torch.testing.assert_close(values_of(term, second, state), plain)


def test_ema_passes_the_gradient_to_the_newest_maps_only() -> None:
    """With the weight that they have in the mean: 1 - strength."""
    strength, sites = 0.25, cross_sites(2)
    term = Entropy(smoothing="ema", strength=strength)
    old, new = (
        {site: [each.clone().requires_grad_() for each in steps] for site, steps in each.adversarial.attention.items()}
        for each in iterations(sites)[:2]
    )
    _, state = term(with_maps(observation(), old), None)
    assert state is not None
    assert not any(each.requires_grad for each in state)
    leaves = [each for site in sites for each in (*new[site], *old[site])]
    found = values_of(term, with_maps(observation(), new), state).sum()
    gradients = iter(torch.autograd.grad(found, leaves, allow_unused=True))

    smooth = {
        site: [
            torch.lerp(one, other, strength).detach().requires_grad_()
            for one, other in zip(new[site], old[site], strict=True)
        ]
        for site in sites
    }
    plain = values_of(Entropy(), with_maps(observation(), smooth)).sum()
    expected = iter(torch.autograd.grad(plain, [each for site in sites for each in smooth[site]]))
    for _ in sites:
        for _ in range(STEPS):
            newest = next(gradients)
            assert newest is not None
            assert newest.abs().max() > 0
            torch.testing.assert_close(newest, (1 - strength) * next(expected))
        assert [next(gradients) for _ in range(STEPS)] == [None] * STEPS


@pytest.mark.parametrize("smoothing", ["none", "tv"])
def test_there_is_no_state_without_ema(smoothing: Any) -> None:
    assert Entropy(smoothing=smoothing)(observation(), None)[1] is None


def variation(strength: float, *steps: Tensor, select: Selection | None = None) -> float:
    """What tv adds to the term."""
    select = select or Selection()
    plain = value(Entropy(select=select), *steps)
    return value(Entropy(smoothing="tv", strength=strength, select=select), *steps) - plain


def test_tv_of_literal_maps() -> None:
    """From one place to another the distance is 1, from one place to two with it among them 1/2."""
    there, back = heads(ONE_PLACE), heads(ONE_PLACE[::-1])
    assert variation(1.0, there, back) == pytest.approx(1, abs=1e-6)
    assert variation(1.0, there, heads(TWO_PLACES)) == pytest.approx(0.5, abs=1e-6)
    assert variation(1.0, there, there, back) == pytest.approx(0.5, abs=1e-6)
    assert variation(0.2, there, back, there, there) == pytest.approx(0.2 * 2 / 3, abs=1e-6)


def test_tv_is_the_mean_over_heads_and_tokens() -> None:
    moves, stays = heads(ONE_PLACE, ONE_PLACE), heads(ONE_PLACE[::-1], ONE_PLACE)
    assert variation(1.0, moves, stays) == pytest.approx(0.5, abs=1e-6)
    pair = torch.cat([heads(ONE_PLACE), heads(FLAT)], 3), torch.cat([heads(TWO_PLACES), heads(FLAT)], 3)
    assert variation(1.0, *pair) == pytest.approx(0.25, abs=1e-6)


def test_tv_weighs_heads() -> None:
    moves, stays = heads(ONE_PLACE, ONE_PLACE), heads(ONE_PLACE[::-1], ONE_PLACE)
    assert variation(1.0, moves, stays, select=Selection(heads=(1.0, 3.0))) == pytest.approx(0.25, abs=1e-6)
    assert variation(1.0, moves, stays, select=Selection(heads=(0.0, 1.0))) == pytest.approx(0, abs=1e-6)


def test_tv_of_maps_that_do_not_change_is_0() -> None:
    look = heads(HALVING, TWO_PLACES)
    assert variation(1.0, look, look, look) == pytest.approx(0, abs=1e-6)
    assert variation(1.0, look, 0.01 * look) == pytest.approx(0, abs=1e-5)


def test_tv_of_a_single_step_is_0() -> None:
    assert variation(1.0, heads(HALVING)) == 0
    window = Selection(steps=(1, 1))
    assert variation(1.0, heads(ONE_PLACE), heads(ONE_PLACE[::-1]), select=window) == 0


@with_both_orders
def test_tv_of_random_maps_by_hand(order: Any) -> None:
    observed = observation()
    attention = observed.adversarial.attention
    values = values_of(Entropy(order, smoothing="tv", strength=0.7), observed)
    for image, span in enumerate(TOKENS):
        distances = []
        for site in cross_sites(2):
            for head in range(HEADS):
                for token in span:
                    one, other = (token_map(attention, site, step, image, head, token) for step in range(STEPS))
                    distances.append(abs(one / one.sum() - other / other.sum()).sum() / 2)
        expected = by_hand(attention, 2, image, order, (0.5, 0.5)) + 0.7 * sum(distances) / len(distances)
        assert float(values[image]) == pytest.approx(expected, rel=1e-4)


def test_a_saturated_map_has_a_gradient_at_a_temperature() -> None:
    """All attention to the phrase stands on one position; its scores are 20 lower everywhere else."""
    token = TOKENS[0][0]
    scores = torch.zeros(3, 1, 4, 6)
    scores[:, :, 0, token], scores[:, :, 1:, token] = 8.0, -12.0
    slopes = []
    for temperature in (1.0, 8.0):
        leaf = scores.clone().requires_grad_()
        observed = with_maps(observation(), {up(1): [leaf.softmax(-1)]})
        value, _ = Entropy(temperature=temperature, select=Selection(places=("up",)))(observed, None)
        (slope,) = torch.autograd.grad(value[0], leaf)
        slopes.append(float(slope.norm()))
    assert slopes[0] < 1e-4
    assert slopes[1] > 1e-2
