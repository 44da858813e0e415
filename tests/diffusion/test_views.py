"""The views of a cross-attention site: a probe only measures, a separate branch is only looked at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor

from attnshift.attention.projections import phrase_shares
from attnshift.batching import select_rows
from attnshift.diffusion.backbone import Probe, Read
from attnshift.diffusion.conditioning import Conditioning
from attnshift.diffusion.denoising import InterferenceText, Trajectory, denoise, guided_prediction
from tiers import fast_first

if TYPE_CHECKING:
    from attnshift.diffusion.noise_schedule import Pairing
    from attnshift.diffusion.stable_diffusion import StableDiffusion
    from attnshift.types import AttentionView, Site
    from diffusion.conftest import Inverted

PHRASES = ("crane", "snowman", "mug")
"""Of four tokens, two, and one."""
LENGTHS = (4, 2, 1)
INDEX = 1
"""The denoising step that single passes take."""
with_and_without_guidance = pytest.mark.parametrize("guidance", [1.0, 2.5])


@pytest.fixture(scope="module")
def path(paths: dict[Pairing, Inverted]) -> Inverted:
    return paths["aligned"]


@pytest.fixture(scope="module")
def spoken(backbone: StableDiffusion) -> InterferenceText:
    prompts = [f"a photo of a {phrase}" for phrase in PHRASES]
    with torch.no_grad():
        text = backbone.embed(prompts)
    # Padding that would count for a lot if it were read.
    states = torch.full((3, 4, text.states.shape[2]), 9.0)
    for row, length in enumerate(LENGTHS):
        assert backbone.locate(prompts[row], PHRASES[row]) == tuple(range(5, 5 + length))
        states[row, :length] = text.states[row, 5 : 5 + length]
    return InterferenceText(text, Probe(states))


def walk(path: Inverted, spoken: InterferenceText | None, guidance: float) -> Trajectory:
    """From the inverted latents, each step under an unconditional text of its own."""
    unconditional = tuple(Conditioning(path.empty.states + 0.3 * step) for step in range(len(path.noise_schedule)))
    return Trajectory(path.noise_schedule, path.stored[0], path.text, unconditional, None, guidance, spoken)


def cross(backbone: StableDiffusion, *views: AttentionView) -> tuple[Site, ...]:
    return tuple(site.seen(view) for site in backbone.sites(64) for view in views if site.kind == "cross")


@torch.no_grad()
def passed(
    backbone: StableDiffusion, trajectory: Trajectory, sites: Sequence[Site]
) -> tuple[Tensor, dict[Site, Tensor]]:
    """One guided prediction at the start latents and the maps that it read."""
    noise, maps = guided_prediction(backbone, trajectory, trajectory.start, INDEX, tuple(sites))
    return noise, dict(zip(sites, maps, strict=True))


@contextmanager
def watched(backbone: StableDiffusion) -> Iterator[list[int]]:
    """Batch sizes of the denoiser's forward passes inside."""
    sizes: list[int] = []
    hook = backbone.unet.register_forward_hook(lambda _module, inputs, _output: sizes.append(len(inputs[0])))
    try:
        yield sizes
    finally:
        hook.remove()


@contextmanager
def projections(backbone: StableDiffusion, sites: Sequence[Site]) -> Iterator[dict[tuple[str, str], Tensor]]:
    """Queries and keys of the layers of ``sites``, [batch, tokens, heads * width], of a pass without any reads."""
    kept: dict[tuple[str, str], Tensor] = {}
    hooks = [
        getattr(backbone.unet.get_submodule(site.layer), f"to_{which}").register_forward_hook(
            lambda _module, _inputs, output, key=(site.layer, which): kept.update({key: output})
        )
        for site in sites
        for which in "qk"
    ]
    try:
        yield kept
    finally:
        for hook in hooks:
            hook.remove()


@pytest.mark.parametrize(
    ("recorded", "guidance"),
    fast_first(
        [
            ("nowhere", 2.5),
            ("in the same layers", 1.0),
            ("in every layer", 2.5),
            ("nowhere", 1.0),
            ("in the same layers", 2.5),
            ("in every layer", 1.0),
        ],
        3,
    ),
)
def test_a_probe_leaves_the_output_as_it_is_to_the_bit(
    backbone: StableDiffusion, path: Inverted, spoken: InterferenceText, guidance: float, recorded: str
) -> None:
    trajectory, probes = walk(path, spoken, guidance), cross(backbone, "probe")
    others = {"nowhere": (), "in the same layers": cross(backbone, "prompt"), "in every layer": backbone.sites(64)}[
        recorded
    ]
    with torch.no_grad():
        expected, expected_maps = denoise(backbone, trajectory, trajectory.start, others)
        for order in ((*others, *probes), (*probes, *others)):
            found, maps = denoise(backbone, trajectory, trajectory.start, order)
            assert torch.equal(found, expected)
            for site in others:
                assert all(torch.equal(a, b) for a, b in zip(maps[site], expected_maps[site], strict=True))
            assert all(len(maps[site]) == len(path.noise_schedule) for site in probes)
    assert not torch.equal(expected, under_the_interference_prompt(backbone, trajectory)), "the text matters at all"


@torch.no_grad()
def under_the_interference_prompt(backbone: StableDiffusion, trajectory: Trajectory) -> Tensor:
    """The end of a walk under the interference prompt, which no probe may lead to."""
    assert trajectory.interference is not None
    other = Trajectory(
        trajectory.noise_schedule, trajectory.start, trajectory.interference.text, trajectory.unconditional, None,
        trajectory.guidance,
    )  # fmt: skip
    return denoise(backbone, other, other.start)[0]


@with_and_without_guidance
def test_probe_maps_are_one_softmax_over_the_prompts_keys_and_the_phrases(
    backbone: StableDiffusion, path: Inverted, spoken: InterferenceText, guidance: float
) -> None:
    """By hand, image by image and head by head; the tokens that fill a short phrase up are not even computed."""
    trajectory, sites = walk(path, spoken, guidance), cross(backbone, "probe")
    with projections(backbone, sites) as projected:
        passed(backbone, trajectory, ())
    _, found = passed(backbone, trajectory, sites)
    first = 3 if guidance != 1 else 0
    for site in sites:
        layer = backbone.unet.get_submodule(site.layer)
        queries, keys = (projected[site.layer, which] for which in "qk")
        assert len(queries) == first + 3
        width = queries.shape[-1] // site.heads
        assert found[site].shape == (3, site.heads, site.positions + 24 + 4, width)
        for image, length in enumerate(LENGTHS):
            phrase = layer.to_k(spoken.text.states[image, 5 : 5 + length])  # type: ignore[operator, union-attr]
            both = torch.cat([keys[first + image], phrase])
            for head in range(site.heads):
                own = slice(head * width, (head + 1) * width)
                expected = (queries[first + image][:, own] @ both[:, own].T / width**0.5).softmax(-1)
                shares = phrase_shares(
                    site, found[site][image : image + 1], range(24 + length), "part", keys=24 + length
                )  # fmt: skip
                torch.testing.assert_close(shares[0, head], expected, rtol=1e-5, atol=1e-6)


def test_an_images_probe_maps_do_not_depend_on_a_longer_phrase_beside_it(
    backbone: StableDiffusion, path: Inverted, spoken: InterferenceText
) -> None:
    sites, trajectory = cross(backbone, "probe"), walk(path, spoken, 2.5)
    _, together = passed(backbone, trajectory, sites)
    for image, length in enumerate(LENGTHS):
        alone = select_rows(trajectory, torch.tensor([image]))
        assert alone.interference is not None
        phrase = alone.interference.phrase
        short = Probe(phrase.states[:, :length])
        alone = walk_with(alone, InterferenceText(alone.interference.text, short))
        _, own = passed(backbone, alone, sites)
        for site in sites:
            difference = own[site][0] - together[site][image][:, : site.positions + 24 + length]
            assert difference.abs().max() < 5e-6


def walk_with(trajectory: Trajectory, spoken: InterferenceText) -> Trajectory:
    return Trajectory(
        trajectory.noise_schedule, trajectory.start, trajectory.text, trajectory.unconditional, None,
        trajectory.guidance, spoken,
    )  # fmt: skip


@with_and_without_guidance
def test_no_view_costs_a_further_pass_and_only_separate_a_larger_one(
    backbone: StableDiffusion, path: Inverted, spoken: InterferenceText, guidance: float
) -> None:
    trajectory, steps, parts = walk(path, spoken, guidance), len(path.noise_schedule), 2 if guidance != 1 else 1
    sizes = {}
    for view in ("prompt", "probe", "separate"):
        with watched(backbone) as seen, torch.no_grad():
            denoise(backbone, trajectory, trajectory.start, cross(backbone, view))
        sizes[view] = seen
    assert sizes["prompt"] == sizes["probe"] == [3 * parts] * steps
    assert sizes["separate"] == [3 * (parts + 1)] * steps


@with_and_without_guidance
def test_separate_maps_are_those_of_a_pass_under_the_interference_prompt(
    backbone: StableDiffusion, path: Inverted, spoken: InterferenceText, guidance: float
) -> None:
    trajectory, sites = walk(path, spoken, guidance), cross(backbone, "separate")
    _, maps = passed(backbone, trajectory, sites)
    with torch.no_grad():
        plain = backbone.denoise(
            trajectory.start,
            path.noise_schedule.timesteps[INDEX],
            spoken.text,
            [Read(site.seen("prompt")) for site in sites],
        ).attention
    _, own = passed(backbone, trajectory, cross(backbone, "prompt"))
    for site in sites:
        assert maps[site].shape[:3] == (3, site.heads, site.positions + 24)
        torch.testing.assert_close(maps[site], plain[site.seen("prompt")], rtol=1e-5, atol=1e-5)
        assert (maps[site] - own[site.seen("prompt")]).abs().max() > 1e-3


@with_and_without_guidance
@pytest.mark.parametrize("views", [("separate",), ("prompt", "separate"), ("prompt", "probe", "separate")])
def test_a_separate_branch_does_not_touch_the_prediction(
    backbone: StableDiffusion,
    path: Inverted,
    spoken: InterferenceText,
    guidance: float,
    views: tuple[AttentionView, ...],
) -> None:
    trajectory = walk(path, spoken, guidance)
    noise, _ = passed(backbone, trajectory, cross(backbone, *views))
    without, _ = passed(backbone, walk(path, None, guidance), ())
    assert noise.shape == without.shape
    torch.testing.assert_close(noise, without, rtol=1e-5, atol=1e-5)


def test_all_views_of_a_layer_at_once_are_what_they_are_alone(
    backbone: StableDiffusion, path: Inverted, spoken: InterferenceText
) -> None:
    trajectory, views = walk(path, spoken, 2.5), ("prompt", "probe", "separate")
    _, together = passed(backbone, trajectory, cross(backbone, *views))
    for view in views:
        sites = cross(backbone, view)
        _, alone = passed(backbone, trajectory, sites)
        for site in sites:
            torch.testing.assert_close(together[site], alone[site], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("view", ["prompt", "probe"])
def test_guided_maps_are_those_of_the_conditional_rows(
    backbone: StableDiffusion, path: Inverted, spoken: InterferenceText, view: AttentionView
) -> None:
    """Neither the unconditional rows' maps nor a mixture: those of a pass without guidance at the same latents."""
    sites = cross(backbone, view)
    _, guided = passed(backbone, walk(path, spoken, 2.5), sites)
    _, plain = passed(backbone, walk(path, spoken, 1.0), sites)
    with torch.no_grad():
        timestep, empty = path.noise_schedule.timesteps[INDEX], walk(path, spoken, 2.5).unconditional[INDEX]
        reads = [Read(site, probe=spoken.phrase if view == "probe" else None) for site in sites]
        unconditional = backbone.denoise(path.stored[0], timestep, empty, reads).attention
    for site in sites:
        torch.testing.assert_close(guided[site], plain[site], rtol=1e-5, atol=1e-5)
        assert (guided[site] - unconditional[site]).abs().max() > 1e-3


@pytest.mark.parametrize("rows", [slice(1, 3), slice(0, 1), slice(2, 3)])
def test_a_probe_reads_the_rows_that_it_is_asked_for(
    backbone: StableDiffusion, path: Inverted, spoken: InterferenceText, rows: slice
) -> None:
    sites, timestep = cross(backbone, "probe"), path.noise_schedule.timesteps[INDEX]
    at = torch.arange(3)[rows]
    with torch.no_grad():
        whole, part = (
            backbone.denoise(path.stored[0], timestep, path.text, [Read(site, *read) for site in sites])
            for read in ((slice(None), spoken.phrase), (rows, select_rows(spoken.phrase, at)))
        )
    assert torch.equal(whole.output, part.output)
    for site in sites:
        torch.testing.assert_close(part.attention[site], whole.attention[site][rows], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("view", "guidance"), fast_first([("probe", 2.5), ("separate", 1.0), ("probe", 1.0), ("separate", 2.5)])
)
def test_checkpointing_keeps_maps_and_gradient_of_a_view(
    backbone: StableDiffusion, path: Inverted, spoken: InterferenceText, guidance: float, view: AttentionView
) -> None:
    trajectory, sites = walk(path, spoken, guidance), cross(backbone, view)[:3]
    plain, checked = (differentiated(backbone, trajectory, sites, checkpointing) for checkpointing in (False, True))
    assert plain.flatten(1).norm(dim=1).min() > 0
    torch.testing.assert_close(checked, plain, rtol=1e-5, atol=1e-6 * float(plain.abs().max()))


def differentiated(
    backbone: StableDiffusion, trajectory: Trajectory, sites: tuple[Site, ...], checkpointing: bool
) -> Tensor:
    """Gradient at the start latents of a sum over all queries and the last four keys, a probe's phrase."""
    start = trajectory.start.clone().requires_grad_()
    _, maps = denoise(backbone, trajectory, start, sites, checkpointing)
    assert all(len(steps) == len(trajectory.noise_schedule) for steps in maps.values())
    read = [torch.cat([each[:, :, :-24], each[:, :, -4:]], 2) for steps in maps.values() for each in steps]
    looks = torch.stack([each.square().sum() for each in read]).sum()
    return torch.autograd.grad(looks, start)[0]


def test_rows_of_a_trajectory_take_their_interference_along(path: Inverted, spoken: InterferenceText) -> None:
    part = select_rows(walk(path, spoken, 2.5), torch.tensor([2, 0])).interference
    assert part is not None
    assert torch.equal(part.text.states, spoken.text.states[[2, 0]])
    assert torch.equal(part.phrase.states, spoken.phrase.states[[2, 0]])
