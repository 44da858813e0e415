"""Self-attention that is read in some of its query rows, against whole sites of which the rows are picked."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor

from attnshift.attack.loop import AttackState, Gradient, optimise_latents, value_and_grad
from attnshift.batching import select_rows
from attnshift.losses.structure import SelfAttention
from attnshift.randomness import generator
from tiers import fast_first

if TYPE_CHECKING:
    from attack.conftest import Prepare
    from attnshift.attack.prepare import PreparedBatch
    from attnshift.types import Branch, Observation

ROWS = 5
SAMPLED = [f"terms.self_attention.rows={ROWS}"]
ITERATION = 3


def away(batch: PreparedBatch) -> Tensor:
    """Latents near the start, those of an image the same in every batch."""
    draws = [torch.Generator().manual_seed(int(id.removeprefix("image "))) for id in batch.key.ids]
    start = batch.render.trajectory.start
    return start + 0.1 * torch.stack(
        [torch.randn(start.shape[1:], dtype=start.dtype, generator=each) for each in draws]
    )


def looked(batch: PreparedBatch) -> Gradient:
    return value_and_grad(batch, away(batch), ITERATION, AttackState.start(batch))


def picked(whole: PreparedBatch, branch: Branch) -> Observation:
    """What ``whole`` sees of ``branch`` once rows are picked of its queries, image by image."""

    def cut(seen: Branch) -> Branch:
        maps = {}
        for site, steps in seen.attention.items():
            queries = site.positions
            if site.kind == "cross" or queries <= ROWS:
                maps[site] = steps
                continue
            rows = [
                generator(0, name, ITERATION, "query rows", site.layer).permutation(queries)[:ROWS]
                for name in whole.key.ids
            ]
            # All keys stand behind the queries.
            kept = [[*at, *range(queries, 2 * queries)] for at in rows]
            maps[replace(site, sample=ROWS)] = tuple(
                torch.stack([image[:, at] for image, at in zip(each, kept, strict=True)]) for each in steps
            )
        return replace(seen, attention=maps)

    observed = whole.observe(branch, ITERATION)
    return replace(observed, clean=cut(observed.clean), adversarial=cut(observed.adversarial))


@pytest.mark.parametrize(
    ("distance", "guidance"), fast_first([("js", "2.5"), ("mse", "1.0"), ("js", "1.0"), ("mse", "2.5")], 2)
)
def test_losses_and_gradient_are_those_of_rows_picked_from_whole_sites(
    prepared: Prepare, distance: str, guidance: str
) -> None:
    settings = [f"terms.self_attention.distance={distance}", f"diffusion.guidance={guidance}"]
    alone = [*settings, "classification.weight=0.0", "terms.variance.weight=0.0"]
    whole, batch = prepared("quick", alone, slice(2)), prepared("quick", [*alone, *SAMPLED], slice(2))
    leaf = away(whole).requires_grad_()
    term = SelfAttention(distance, "sum", rows=ROWS)  # type: ignore[arg-type]
    values = 30 * term(picked(whole, whole.render(leaf, whole.observe.sites)))
    (expected,) = torch.autograd.grad(values.sum(), leaf)
    found = looked(batch)
    torch.testing.assert_close(found.losses["self_attention"], values.detach(), rtol=1e-5, atol=0)
    assert expected.norm() > 0
    assert (found.gradient - expected).norm() < 1e-4 * expected.norm()


def test_large_grids_are_sampled_and_no_site_hands_out_a_map(prepared: Prepare) -> None:
    batch = prepared("quick", SAMPLED)
    selves = {site.grid.rows: site.sample for site in batch.observe.sites if site.kind == "self"}
    assert selves == {8: ROWS, 4: ROWS, 2: 0, 1: 0}
    branch = batch.render(away(batch), batch.observe.sites)
    seen = batch.observe(branch, ITERATION)
    for site in (each for each in batch.observe.sites if each.kind == "self"):
        positions, width = site.positions, branch.attention[site][0].shape[3]
        assert branch.attention[site][0].shape == (3, site.heads, 2 * positions, width)
        for each in (seen.clean, seen.adversarial):
            shapes = {held.shape for held in each.attention[site]}
            assert shapes == {(3, site.heads, (site.sample or positions) + positions, width)}


def test_at_the_start_the_branches_are_one(prepared: Prepare) -> None:
    batch = prepared("quick", SAMPLED)
    first = next(optimise_latents(batch))
    assert torch.equal(first.losses["self_attention"], torch.zeros(3))
    torch.testing.assert_close(first.images, batch.images, rtol=0, atol=1e-6)


@pytest.mark.heavy
def test_an_image_is_attacked_as_if_it_were_alone(prepared: Prepare) -> None:
    whole = looked(prepared("quick", SAMPLED))
    for row in range(3):
        own = looked(prepared("quick", SAMPLED, slice(row, row + 1)))
        assert (own.gradient[0] - whole.gradient[row]).norm() < 1e-5 * own.gradient.norm()
        torch.testing.assert_close(
            own.losses["self_attention"][0], whole.losses["self_attention"][row], rtol=1e-5, atol=0
        )


def test_images_that_stay_see_what_they_saw(prepared: Prepare) -> None:
    batch = prepared("quick", SAMPLED)
    whole, rest = looked(batch), looked(select_rows(batch, torch.tensor([2, 0])))
    for place, row in enumerate((2, 0)):
        assert (rest.gradient[place] - whole.gradient[row]).norm() < 1e-5 * whole.gradient[row].norm()
        torch.testing.assert_close(
            rest.losses["self_attention"][place], whole.losses["self_attention"][row], rtol=1e-5, atol=0
        )


def test_twice_is_the_same_to_the_bit(prepared: Prepare) -> None:
    batch = prepared("quick", SAMPLED, slice(1))
    first, second = looked(batch), looked(batch)
    assert torch.equal(first.gradient, second.gradient)
    assert torch.equal(first.losses["self_attention"], second.losses["self_attention"])
    later = value_and_grad(batch, away(batch), ITERATION + 1, AttackState.start(batch))
    assert (later.losses["self_attention"] != first.losses["self_attention"]).all()


def test_checkpointing_changes_nothing(prepared: Prepare) -> None:
    plain, saving = (
        looked(prepared("quick", [*SAMPLED, f"diffusion.checkpointing={on}"], slice(1))) for on in ("false", "true")
    )
    assert (saving.gradient - plain.gradient).norm() < 1e-6 * plain.gradient.norm()
    torch.testing.assert_close(saving.losses["self_attention"], plain.losses["self_attention"], rtol=1e-6, atol=0)


def test_the_output_of_a_sampled_site_is_that_of_one_that_nobody_reads(prepared: Prepare) -> None:
    batch = prepared("quick", [*SAMPLED, "terms.self_attention.select.grid=full", "terms.variance.weight=0.0"])
    latents = away(batch)
    assert batch.observe.sites
    assert all(site.sample for site in batch.observe.sites)
    read, unread = batch.render(latents, batch.observe.sites), batch.render(latents)
    assert torch.equal(read.latents, unread.latents)
