"""The attention recorder: what it reads, what it leaves alone, and that it goes away again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor

from attnshift.attention.projections import queries_and_keys
from attnshift.diffusion.backbone import Read
from attnshift.diffusion.denoising import Trajectory, denoise
from attnshift.diffusion.noise_schedule import Pairing
from attnshift.diffusion.reconstruction import Offset
from attnshift.sizes import Size
from attnshift.types import Site
from later import later

if TYPE_CHECKING:
    from attnshift.diffusion.stable_diffusion import StableDiffusion
    from diffusion.conftest import Inverted

recorder = later("attnshift.diffusion.attention")

Paths = dict[Pairing, "Inverted"]


def as_maps(backbone: StableDiffusion) -> tuple[Site, ...]:
    return tuple(site.mapped() for site in backbone.sites(64))


def passed(backbone: StableDiffusion, path: Inverted, sites: tuple[Site, ...], rows: slice = slice(None)) -> Any:
    with torch.no_grad():
        return backbone.denoise(path.stored[0], 201, path.text, [Read(site, rows) for site in sites])


def test_sites_are_all_attention_layers_with_their_grids(backbone: StableDiffusion) -> None:
    sites = backbone.sites(64)
    attention = {name for name, _ in backbone.unet.named_modules() if name.endswith((".attn1", ".attn2"))}
    assert {site.layer for site in sites} == attention
    assert {(site.place, site.grid.rows) for site in sites} == {
        *(("down", side) for side in (8, 4, 2)),
        *(("up", side) for side in (8, 4, 2)),
        ("mid", 1),
    }
    kinds = [(site.kind, site.form) for site in sites]
    assert kinds == [("self", "map"), ("cross", "projections")] * (len(sites) // 2)


def test_maps_are_the_softmax_of_the_layers_own_queries_and_keys(backbone: StableDiffusion, paths: Paths) -> None:
    sites = as_maps(backbone)
    projected: dict[str, dict[str, Tensor]] = {site.layer: {} for site in sites}
    hooks = [
        getattr(backbone.unet.get_submodule(layer), f"to_{which}").register_forward_hook(
            lambda _module, _inputs, output, kept=kept, which=which: kept.update({which: output})
        )
        for layer, kept in projected.items()
        for which in "qk"
    ]
    try:
        recorded = passed(backbone, paths["aligned"], sites).attention
    finally:
        for hook in hooks:
            hook.remove()
    assert set(recorded) == set(sites)
    for site in sites:
        heads = backbone.unet.get_submodule(site.layer).heads
        queries, keys = (projected[site.layer][which] for which in "qk")
        width = queries.shape[-1] // heads
        for head in range(heads):
            own = slice(head * width, (head + 1) * width)
            scores = torch.einsum("bqd,bkd->bqk", queries[..., own], keys[..., own]) / width**0.5
            torch.testing.assert_close(recorded[site][:, head], scores.softmax(-1), rtol=1e-5, atol=1e-6)
        assert recorded[site].shape[1:] == (heads, site.positions, keys.shape[1])
        torch.testing.assert_close(recorded[site].sum(-1), torch.ones(recorded[site].shape[:-1]))


@pytest.mark.parametrize("rows", [slice(None), slice(1, 3), slice(0, 1), slice(1, 2)])
def test_recording_rows_leaves_the_output_and_reads_only_them(
    backbone: StableDiffusion, paths: Paths, rows: slice
) -> None:
    path, sites = paths["aligned"], as_maps(backbone)
    everything, some = passed(backbone, path, sites), passed(backbone, path, sites, rows)
    fused = passed(backbone, path, ()).output
    torch.testing.assert_close(some.output, fused, rtol=1e-5, atol=1e-5)
    for site in sites:
        torch.testing.assert_close(some.attention[site], everything.attention[site][rows], rtol=1e-5, atol=1e-6)


def test_only_the_sites_asked_for_are_recorded(backbone: StableDiffusion, paths: Paths) -> None:
    wanted = as_maps(backbone)[3:5]
    assert set(passed(backbone, paths["aligned"], wanted).attention) == set(wanted)


def test_a_second_pass_overwrites_the_first(backbone: StableDiffusion, paths: Paths) -> None:
    path, site = paths["aligned"], as_maps(backbone)[1]
    with torch.no_grad(), recorder.record_attention(backbone.unet, [Read(site)]) as recorded:
        backbone.unet(path.stored[0], 201, encoder_hidden_states=path.text.states)
        first = recorded[site]
        backbone.unet(path.stored[0], 201, encoder_hidden_states=path.empty.states)
    assert list(recorded) == [site]
    assert recorded[site].shape == first.shape
    assert not torch.equal(recorded[site], first)


@pytest.mark.parametrize("fails", [False, True])
def test_processors_are_restored(backbone: StableDiffusion, fails: bool) -> None:
    before = dict(backbone.unet.attn_processors)
    failure = RuntimeError("in the middle of a pass")

    def use() -> None:
        with recorder.record_attention(backbone.unet, [Read(site) for site in as_maps(backbone)]):
            assert not any(now is before[name] for name, now in backbone.unet.attn_processors.items())
            if fails:
                raise failure

    if fails:
        with pytest.raises(RuntimeError, match="in the middle"):
            use()
    else:
        use()
    assert all(now is before[name] for name, now in backbone.unet.attn_processors.items())


def test_processors_are_restored_when_a_later_site_does_not_exist(backbone: StableDiffusion) -> None:
    before = dict(backbone.unet.attn_processors)
    wrong = Site("conv_in", "cross", "down", Size.of(8), 1)
    with (
        pytest.raises(TypeError, match="conv_in is a Conv2d"),
        recorder.record_attention(backbone.unet, [Read(as_maps(backbone)[0]), Read(wrong)]),
    ):
        pass
    assert all(now is before[name] for name, now in backbone.unet.attn_processors.items())


@pytest.mark.heavy
@pytest.mark.parametrize("guidance", [2.5, 1.0])
def test_checkpointing_keeps_the_gradient_of_latents_and_maps(
    backbone: StableDiffusion, paths: Paths, guidance: float
) -> None:
    path, sites = paths["aligned"], tuple(site for site in as_maps(backbone) if site.grid.rows == 4)
    trajectory = Offset()(backbone, path.noise_schedule, path.stored, path.text, path.empty, guidance)
    plain, plain_maps = differentiated(backbone, trajectory, sites, checkpointing=False)
    checked, checked_maps = differentiated(backbone, trajectory, sites, checkpointing=True)
    for gradient, expected in ((checked, plain), (checked_maps, plain_maps)):
        assert expected.flatten(1).norm(dim=1).min() > 0
        torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-6 * float(expected.abs().max()))


def differentiated(
    backbone: StableDiffusion, trajectory: Trajectory, sites: tuple[Site, ...], checkpointing: bool
) -> tuple[Tensor, Tensor]:
    """Gradients at the start latents of a sum over the final latents, and of one over all maps."""
    start = trajectory.start.clone().requires_grad_()
    final, maps = denoise(backbone, trajectory, start, sites, checkpointing)
    assert all(len(steps) == len(trajectory.noise_schedule) for steps in maps.values())
    assert all(each.requires_grad for steps in maps.values() for each in steps)
    looks = torch.stack([each.square().sum() for steps in maps.values() for each in steps]).sum()
    (through_latents,) = torch.autograd.grad(final.square().sum(), start, retain_graph=True)
    (through_maps,) = torch.autograd.grad(looks, start)
    return through_latents, through_maps


def test_guided_maps_are_those_of_the_conditional_half(backbone: StableDiffusion, paths: Paths) -> None:
    path, sites = paths["aligned"], as_maps(backbone)
    trajectory = Trajectory(path.noise_schedule, path.stored[0], path.text, (path.empty,) * 5, None, 2.5)
    with torch.no_grad():
        _, maps = denoise(backbone, trajectory, trajectory.start, sites)
    conditional = passed(backbone, path, sites).attention
    for site in sites:
        torch.testing.assert_close(maps[site][0], conditional[site], rtol=1e-4, atol=1e-5)


def map_of(site: Site, held: Tensor) -> Tensor:
    """Attention probabilities that the queries and keys of ``site`` give."""
    queries, keys = queries_and_keys(site, held)
    return torch.softmax(queries @ keys.transpose(2, 3) / queries.shape[3] ** 0.5, -1)


@pytest.mark.parametrize("rows", [slice(None), slice(1, 3)])
def test_queries_and_keys_give_the_map_and_leave_the_output_alone(
    backbone: StableDiffusion, paths: Paths, rows: slice
) -> None:
    """Also of a sampled site, of which rows are drawn later."""
    path, sites = paths["aligned"], as_maps(backbone)
    whole, fused = passed(backbone, path, sites, rows).attention, passed(backbone, path, ()).output
    found = passed(backbone, path, tuple(site.projected(3) for site in sites), rows)
    assert torch.equal(found.output, fused)
    for site in sites:
        held = found.attention[site.projected(3)]
        assert held.shape[:3] == (len(whole[site]), site.heads, site.positions + whole[site].shape[3])
        torch.testing.assert_close(map_of(site, held), whole[site], rtol=1e-5, atol=1e-6)


def test_a_site_is_read_as_map_and_as_queries_and_keys_at_once(backbone: StableDiffusion, paths: Paths) -> None:
    path, site = paths["aligned"], as_maps(backbone)[0]
    both, whole = passed(backbone, path, (site, site.projected())), passed(backbone, path, (site,))
    assert torch.equal(both.output, whole.output)
    assert torch.equal(both.attention[site], whole.attention[site])
    torch.testing.assert_close(map_of(site, both.attention[site.projected()]), whole.attention[site])
