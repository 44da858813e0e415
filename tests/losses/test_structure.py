"""The self-attention term against calculations by hand."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor

from attnshift.attention.projections import at_drawn_rows, projections, queries_and_keys, query_rows
from attnshift.attention.selection import Selection
from attnshift.losses.objective import Objective, WeightedTerm
from attnshift.losses.schedules import Schedule
from attnshift.losses.structure import SelfAttention
from attnshift.randomness import generator
from attnshift.sizes import Size
from attnshift.testing.observations import HEADS, LATENTS, RUNNING, STEPS, observation, only, scores, with_maps
from attnshift.types import Branch, Observation, Site

SITES = [site for site in RUNNING if site.kind == "self" and site.form == "projections" and not site.sample]
"""Every self-attention site, read as its queries and keys."""


def shown(branch: Branch, site: Site, step: int, image: int) -> numpy.ndarray:
    """The attention map that the queries and keys of a site give, [heads, queries, keys]."""
    queries, keys = queries_and_keys(site, branch.attention[site][step].double())
    return (queries @ keys.transpose(2, 3) / queries.shape[3] ** 0.5).softmax(-1)[image].numpy()


def of_maps(site: Site, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Queries and keys that give ``maps`` [batch, heads, keys, keys]: their logarithms, and one-hot keys."""
    one_hot = torch.eye(site.positions).expand(*maps[0].shape[:2], -1, -1)
    return tuple(projections(site.grid.rows * each.clamp(min=1e-30).log(), one_hot) for each in maps)


def by_hand(image: int, sides: tuple[int, ...], steps: range) -> list[float]:
    """Mean square of the entries of each site and step."""
    observed = observation()
    means = []
    for site in SITES:
        for step in steps:
            if site.grid.rows in sides:
                attacked, clean = (
                    shown(branch, site, step, image) for branch in (observed.adversarial, observed.clean)
                )
                means.append(float(((attacked - clean) ** 2).sum() / attacked.size))
    return means


@pytest.mark.parametrize("image", range(3))
def test_mean_squares_are_summed_over_all_sites_and_steps(image: int) -> None:
    means = by_hand(image, (8, 4, 2, 1), range(STEPS))
    assert len(means) == 7 * STEPS
    observed = observation()
    assert float(SelfAttention("mse", "sum")(observed)[image]) == pytest.approx(sum(means), rel=1e-5)
    assert float(SelfAttention("mse", "mean")(observed)[image]) == pytest.approx(numpy.mean(means), rel=1e-5)


def test_selected_sites_and_steps_only() -> None:
    term = SelfAttention("mse", "sum", select=Selection(grid="half", steps=(1, 1)))
    assert float(term(observation())[2]) == pytest.approx(sum(by_hand(2, (4,), range(1, 2))), rel=1e-5)


def test_nothing_changed_is_zero() -> None:
    observed = observation()
    same = replace(observed, adversarial=observed.clean)
    for distance in ("js", "kl", "symmetric", "mse"):
        assert torch.equal(SelfAttention(distance)(same), torch.zeros(3))


def observed_by(attacked: Mapping[Site, Sequence[Tensor]], clean: Mapping[Site, Sequence[Tensor]]) -> Observation:
    """What is seen of queries and keys that give these maps."""
    observed = observation()
    given = [{site.projected(): of_maps(site, steps) for site, steps in branch.items()} for branch in (attacked, clean)]
    observed = with_maps(observed, given[0])
    return replace(observed, clean=replace(observed.clean, attention=given[1]))


def kl(left: numpy.ndarray, right: numpy.ndarray) -> float:
    """In nats, of two rows."""
    return sum(one * math.log(one / other) for one, other in zip(left, right, strict=True) if one > 0)


def js(left: numpy.ndarray, right: numpy.ndarray) -> float:
    """In bits, of two rows."""
    middle = (left + right) / 2
    return (kl(left, middle) + kl(right, middle)) / 2 / math.log(2)


def symmetric(left: numpy.ndarray, right: numpy.ndarray) -> float:
    return kl(left, right) + kl(right, left)


def site_by_hand(distance: Any, observed: Observation, site: Site, image: int, shares: Sequence[float]) -> float:
    """Mean over steps and rows, heads weighted by ``shares``, which sum to 1."""
    total = 0.0
    for step in range(STEPS):
        left, right = (shown(branch, site, step, image) for branch in (observed.adversarial, observed.clean))
        for head, share in enumerate(shares):
            for row in range(site.positions):
                total += share * distance(left[head, row], right[head, row]) / (STEPS * site.positions)
    return total


HALF = [site for site in SITES if site.grid.rows == 4]


@pytest.mark.parametrize(("name", "distance"), [("js", js), ("kl", kl), ("symmetric", symmetric)])
@pytest.mark.parametrize(("weights", "shares"), [((), (0.5, 0.5)), ((3.0, 1.0), (0.75, 0.25))])
def test_divergences_by_hand(name: Any, distance: Any, weights: Any, shares: tuple[float, ...]) -> None:
    observed = observation()
    values = SelfAttention(name, "mean", select=Selection(grid="half", heads=weights))(observed)
    for image in range(3):
        sites = [site_by_hand(distance, observed, site, image, shares) for site in HALF]
        assert float(values[image]) == pytest.approx(sum(sites) / len(sites), rel=1e-4)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # Rows (1/2, 1/2, 0, 0) and (1/4, 3/4, 0, 0), from the first to the second.
        ("kl", 0.5 * math.log(4 / 3)),
        ("symmetric", 0.5 * math.log(4 / 3) + 0.75 * math.log(1.5) - 0.25 * math.log(2)),
        ("js", 0.9544340 - (1 + 0.8112781) / 2),
        ("mse", 2 / 16 / 4),
    ],
)
def test_literal_rows(name: Any, expected: float) -> None:
    """Here js is the entropy of the middle, in bits, less the mean of the two entropies."""
    site = Site("up", "self", "up", Size.of(2), 1)
    left, right = (torch.tensor(row).expand(3, 1, 4, 4) for row in ([0.5, 0.5, 0.0, 0.0], [0.25, 0.75, 0.0, 0.0]))
    found = SelfAttention(name)(observed_by({site: [left]}, {site: [right]}))
    torch.testing.assert_close(found, torch.full((3,), expected), rtol=0, atol=1e-6)


def test_js_and_symmetric_are_symmetric_and_kl_is_not() -> None:
    observed = observation()
    swapped = replace(observed, adversarial=observed.clean, clean=observed.adversarial)
    for name in ("js", "symmetric"):
        torch.testing.assert_close(SelfAttention(name)(swapped), SelfAttention(name)(observed))
    assert ((SelfAttention("kl")(swapped) - SelfAttention("kl")(observed)).abs() > 1e-3).all()


MAPS = [site.mapped() for site in HALF]


@pytest.mark.parametrize("sharpness", [0.01, 1.0, 30.0, 1000.0])
def test_js_is_between_0_and_1(sharpness: float) -> None:
    attacked, clean = (
        {site: [(sharpness * each).softmax(-1) for each in steps] for site, steps in scores(seed, MAPS).items()}
        for seed in (1, 0)
    )
    values = SelfAttention("js")(observed_by(attacked, clean))
    assert (values >= 0).all()
    assert (values <= 1 + 1e-6).all()
    if sharpness == 1000:
        assert (values > 0.9).all()


def test_js_of_disjoint_rows_is_1() -> None:
    """Whatever the rows themselves, the number of steps or the reduction over sites."""
    draw = torch.Generator().manual_seed(0)
    rows = {site: torch.rand(3, HEADS, 16, 8, generator=draw) + 0.01 for site in HALF}
    left, right = (
        {site: [torch.cat(each, -1)] * STEPS for site, each in halves.items()}
        for halves in (
            {site: (row / row.sum(-1, keepdim=True), torch.zeros_like(row)) for site, row in rows.items()},
            {site: (torch.zeros_like(row), row / row.sum(-1, keepdim=True)) for site, row in rows.items()},
        )
    )
    for reduction in ("layered", "mean"):
        term = SelfAttention("js", reduction, select=Selection(grid="half"))  # type: ignore[arg-type]
        torch.testing.assert_close(term(observed_by(left, right)), torch.ones(3))


LAYERS: dict[str, Site] = {
    name: Site(name, "self", place, Size.of(side), 2)
    for name, place, side in (
        ("up 8", "up", 8), ("up 4", "up", 4), ("mid 2", "mid", 2), ("down 8", "down", 8),
    )
}  # type: ignore[arg-type]  # fmt: skip


def disjoint(site: Site, which: slice) -> Tensor:
    """All query rows look at position 0; the heads ``which`` at position 1."""
    looks = torch.zeros(3, site.heads, site.positions, site.positions)
    looks[..., 0] = 1
    looks[:, which] = looks[:, which].roll(1, -1)
    return looks


def moved(*names: str, which: slice = slice(None)) -> Observation:
    """Every layer looks where it did, but the heads ``which`` of those called ``names`` elsewhere: a js of 1."""
    nowhere = slice(0, 0)
    return observed_by(
        {site: [disjoint(site, which if name in names else nowhere)] for name, site in LAYERS.items()},
        {site: [disjoint(site, nowhere)] for site in LAYERS.values()},
    )


@pytest.mark.parametrize(
    ("gamma", "weights"),
    [
        (0.0, {"up 8": 1.0, "up 4": 1.0, "mid 2": 0.5, "down 8": 0.25}),
        (1.0, {"up 8": 1.0, "up 4": 0.5, "mid 2": 0.125, "down 8": 0.25}),
        (2.0, {"up 8": 1.0, "up 4": 0.25, "mid 2": 0.03125, "down 8": 0.25}),
    ],
)
def test_layers_are_weighted_by_place_and_grid(gamma: float, weights: dict[str, float]) -> None:
    term = SelfAttention(gamma=gamma)
    found = {name: term(moved(name)) for name in LAYERS}
    for name, values in found.items():
        torch.testing.assert_close(values, torch.full((3,), weights[name] / sum(weights.values())))
    torch.testing.assert_close(sum(found.values()), torch.ones(3))
    torch.testing.assert_close(term(moved(*LAYERS)), torch.ones(3))


SMALL = ("up 4", "mid 2")


def test_layers_are_weighted_among_the_selected_ones() -> None:
    """Relative to the largest selected grid; shares of 1 and 0.5 * 0.5 of 1.25."""
    term = SelfAttention(select=Selection(("up", "mid"), "all"))
    observed = moved("mid 2")
    kept = {LAYERS[name].projected(): observed.adversarial.attention[LAYERS[name].projected()] for name in SMALL}
    torch.testing.assert_close(term(with_maps(observed, kept)), torch.full((3,), 0.2))


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0])
def test_layered_js_of_random_maps_by_hand(gamma: float) -> None:
    observed = observation()
    places = {"up": 1.0, "mid": 0.5, "down": 0.25}
    sites = [site for site in SITES if site.grid.rows < 8]
    kept = with_maps(observed, {site: observed.adversarial.attention[site] for site in sites})
    weights = [places[site.place] * (site.grid.rows / 4) ** gamma for site in sites]
    for image, found in enumerate(SelfAttention(gamma=gamma)(kept).tolist()):
        expected = sum(
            weight * site_by_hand(js, observed, site, image, (0.5, 0.5))
            for site, weight in zip(sites, weights, strict=True)
        )
        assert found == pytest.approx(expected / sum(weights), rel=1e-4)


@pytest.mark.parametrize(("weights", "expected"), [((), 0.5), ((1.0, 3.0), 0.25), ((0.0, 1.0), 0.0), ((2.0, 0.0), 1.0)])
def test_heads_are_weighted(weights: Any, expected: float) -> None:
    select = Selection(("down", "mid", "up"), "all", heads=weights)
    found = SelfAttention(select=select)(moved(*LAYERS, which=slice(0, 1)))
    torch.testing.assert_close(found, torch.full((3,), expected))


def one_row_moved(row: int, layers: Sequence[str] = ("up",)) -> Observation:
    """Of 16 query rows only ``row`` looks elsewhere: a js of 1/16, or of 1/rows or 0 in a sample of rows."""
    sites = [Site(layer, "self", "up", Size.of(4), 1) for layer in layers]
    before = torch.zeros(3, 1, 16, 16)
    before[..., 0] = 1
    after = before.clone()
    after[:, :, row] = after[:, :, row].roll(1, -1)
    return observed_by({site: [after] for site in sites}, {site: [before] for site in sites})


def drawn(observed: Observation, rows: int, **names: Any) -> Observation:
    """What is seen of self-attention that is sampled: the rows that draws of these ``names`` choose."""
    key = replace(observed.key, **names)

    def cut(branch: Branch) -> Branch:
        held = {
            site.projected(rows): steps
            for site, steps in branch.attention.items()
            if site.form == "projections" and not site.sample
        }
        return at_drawn_rows(replace(branch, attention=held), key)

    return replace(observed, key=key, clean=cut(observed.clean), adversarial=cut(observed.adversarial))


def test_query_rows_are_the_first_of_a_permutation_that_belongs_to_image_iteration_and_layer() -> None:
    key, site = observation().key, HALF[0]
    expected = [generator(0, name, 7, "query rows", site.layer).permutation(16)[:3] for name in key.ids]
    assert numpy.array_equal(query_rows(site.projected(3), key).numpy(), expected)


@pytest.mark.parametrize("name", ["js", "kl", "symmetric", "mse"])
def test_sampled_rows_are_the_same_on_both_sides(name: Any) -> None:
    observed = observation()
    same = replace(observed, adversarial=observed.clean)
    for iteration in range(5):
        assert torch.equal(SelfAttention(name, rows=3)(drawn(same, 3, iteration=iteration)), torch.zeros(3))


def test_sampled_rows_are_distinct_and_all_equally_likely() -> None:
    observed, term = one_row_moved(11), SelfAttention(rows=4)
    draws = torch.stack([term(drawn(observed, 4, iteration=iteration)) for iteration in range(400)])
    assert set(draws.unique().tolist()) == {0.0, 0.25}
    assert float(draws.mean()) == pytest.approx(1 / 16, abs=0.008)


@pytest.mark.heavy
def test_mean_over_all_draws_approximates_the_mean_over_all_rows() -> None:
    observed, select = observation(), Selection(grid="half")
    whole = SelfAttention(select=select)(observed)
    term = SelfAttention(rows=3, select=select)
    draws = torch.stack([term(drawn(observed, 3, iteration=iteration)) for iteration in range(200)])
    assert (draws.std(0) > 0.02 * whole).all()
    torch.testing.assert_close(draws.mean(0), whole, rtol=0.02, atol=0)


def test_sampled_rows_belong_to_seed_id_iteration_and_layer() -> None:
    observed, term = observation(), SelfAttention(rows=3, select=Selection(("up",), "half"))
    first = term(drawn(observed, 3))
    assert torch.equal(term(drawn(observed, 3)), first)
    assert (term(drawn(observed, 3, iteration=8)) != first).all()
    assert (term(drawn(observed, 3, seed=1)) != first).all()
    renamed = term(drawn(observed, 3, ids=("first", "another", "third")))
    assert torch.equal(renamed != first, torch.tensor([False, True, False]))
    (site,) = (each for each in HALF if each.place == "up")
    elsewhere = replace(site, layer="another layer")
    attacked, clean = (
        replace(branch, attention={elsewhere: branch.attention[site]})
        for branch in (observed.adversarial, observed.clean)
    )
    assert (term(drawn(replace(observed, adversarial=attacked, clean=clean), 3)) != first).all()


def test_layers_draw_rows_of_their_own() -> None:
    """With two layers, values of 1/8 show that one drew the row that moved, and the other did not."""
    observed, term = one_row_moved(2, ("one", "other")), SelfAttention(rows=4)
    draws = [term(drawn(observed, 4, iteration=iteration)) for iteration in range(50)]
    assert set(torch.stack(draws).unique().tolist()) >= {0.0, 0.125}


def test_sampled_rows_of_an_image_are_not_its_batch_mates_business() -> None:
    observed, term = observation(), SelfAttention(rows=3)
    together = term(drawn(observed, 3))
    for image in range(3):
        torch.testing.assert_close(term(drawn(only(observed, image), 3)), together[image : image + 1])


@pytest.mark.parametrize("rows", [16, 17, 1000])
def test_as_many_rows_as_there_are_change_nothing(rows: int) -> None:
    observed, select = observation(), Selection(grid="half")
    assert torch.equal(SelfAttention(rows=rows, select=select)(observed), SelfAttention(select=select)(observed))
    fewer = SelfAttention(rows=15, select=select)(drawn(observed, 15))
    assert not torch.equal(fewer, SelfAttention(select=select)(observed))


def test_only_large_grids_are_sampled() -> None:
    observed = observation()
    for grid, changed in (("quarter", False), ("half", True)):
        whole, sampled = (
            SelfAttention(rows=rows, select=Selection(grid=grid))(drawn(observed, rows))  # type: ignore[arg-type]
            for rows in (0, 4)
        )
        assert torch.equal(whole, sampled) is not changed


def test_a_sampled_site_is_asked_for_as_such_and_found_beside_the_whole_one() -> None:
    select = Selection(grid="half")
    term, whole = SelfAttention(rows=3, select=select), SelfAttention(select=select)
    assert term.sites(SITES, LATENTS) == tuple(site.projected(3) for site in HALF)
    assert whole.sites([*term.sites(SITES, LATENTS), *SITES], LATENTS) == tuple(HALF)
    terms = {name: WeightedTerm(each, 1.0, Schedule()) for name, each in (("sampled", term), ("whole", whole))}
    asked = Objective(terms).sites(SITES, LATENTS)
    assert asked == tuple(each for site in HALF for each in (site, site.projected(3)))
    observed, rows = observation(), drawn(observation(), 3)
    both = replace(
        observed,
        clean=replace(observed.clean, attention={**observed.clean.attention, **rows.clean.attention}),
        adversarial=replace(
            observed.adversarial, attention={**observed.adversarial.attention, **rows.adversarial.attention}
        ),
    )
    found, _ = Objective(terms)(both)
    assert torch.equal(found["sampled"], term(rows))
    assert torch.equal(found["whole"], whole(observed))
