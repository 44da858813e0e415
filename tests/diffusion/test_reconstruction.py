"""Three ways to bring the clean path back to the image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from attnshift.batching import select_rows
from attnshift.diffusion.ddim import ddim_step
from attnshift.diffusion.denoising import Trajectory, denoise, guided_prediction
from attnshift.diffusion.noise_schedule import Pairing
from attnshift.diffusion.reconstruction import NegativePrompt, NullText, Offset
from tiers import fast_first

if TYPE_CHECKING:
    from attnshift.diffusion.stable_diffusion import StableDiffusion
    from diffusion.conftest import Inverted

PAIRINGS: tuple[Pairing, ...] = ("aligned", "compat")


def untuned(path: Inverted, guidance: float) -> Trajectory:
    return Trajectory(
        path.noise_schedule, path.stored[0], path.text, (path.empty,) * len(path.noise_schedule), None, guidance
    )


@pytest.mark.parametrize(
    ("pairing", "guidance"), fast_first([("aligned", 2.5), ("compat", 1.0), ("aligned", 1.0), ("compat", 2.5)], 2)
)
@torch.no_grad()
def test_offset_follows_the_stored_latents(
    backbone: StableDiffusion, paths: dict[Pairing, Inverted], pairing: Pairing, guidance: float
) -> None:
    path = paths[pairing]
    trajectory = Offset()(backbone, path.noise_schedule, path.stored, path.text, path.empty, guidance)
    assert trajectory.offsets is not None
    latents = trajectory.start
    for index in range(len(path.noise_schedule)):
        noise, _ = guided_prediction(backbone, trajectory, latents, index)
        latents = ddim_step(latents, noise, *path.noise_schedule.levels[index : index + 2]) + trajectory.offsets[index]
        expected = path.stored[index + 1]
        assert ((latents - expected).flatten(1).norm(dim=1) / expected.flatten(1).norm(dim=1)).max() < 1e-5
    final, _ = denoise(backbone, trajectory, trajectory.start)
    assert path.errors(final).max() < 1e-5
    drifted, _ = denoise(backbone, untuned(path, guidance), trajectory.start)
    assert path.errors(drifted).min() > 1e-2, "without offsets the path must miss, or this test shows nothing"


@pytest.mark.heavy
@pytest.mark.parametrize("pairing", fast_first(PAIRINGS))
def test_null_text_brings_every_image_nearer(
    backbone: StableDiffusion, paths: dict[Pairing, Inverted], pairing: Pairing
) -> None:
    path = paths[pairing]
    tuned = NullText()(backbone, path.noise_schedule, path.stored, path.text, path.empty, 2.5)
    with torch.no_grad():
        before, _ = denoise(backbone, untuned(path, 2.5), path.stored[0])
        after, _ = denoise(backbone, tuned, tuned.start)
    assert (path.errors(after) < path.errors(before)).all()
    assert len(tuned.unconditional) == len(path.noise_schedule)
    assert not any(each.states.requires_grad for each in tuned.unconditional)


def test_null_text_takes_more_updates_at_later_steps_and_starts_from_the_step_before(
    backbone: StableDiffusion, paths: dict[Pairing, Inverted]
) -> None:
    """AdamW's first update moves every entry by the learning rate, so the number of updates bounds the way."""
    path = paths["compat"]
    tuned = NullText(updates=0, updates_per_step=1)(
        backbone, path.noise_schedule, path.stored, path.text, path.empty, 2.5
    )
    assert torch.equal(tuned.unconditional[0].states, path.empty.states)
    moves = [
        (after.states - before.states).abs().max()
        for before, after in zip(tuned.unconditional[:-1], tuned.unconditional[1:], strict=True)
    ]
    for updates, move in enumerate(moves, start=1):
        assert 0.05 < move < 0.15 * updates


@pytest.mark.heavy
def test_tolerance_stops_an_image_without_changing_its_batch_mate(
    backbone: StableDiffusion, paths: dict[Pairing, Inverted]
) -> None:
    """Image 0 gets the targets that its untuned path reaches by itself; image 1 misses its own."""
    path = paths["aligned"]
    near, far = 0, 1
    stored = [latents.clone() for latents in path.stored]
    noise_schedule, rows = path.noise_schedule, torch.tensor([near, far])
    with torch.no_grad():
        latents = stored[0]
        for index in range(len(noise_schedule)):
            noise, _ = guided_prediction(backbone, untuned(path, 2.5), latents, index)
            latents = ddim_step(latents, noise, *noise_schedule.levels[index : index + 2])
            stored[index + 1][near] = latents[near]
    targets = [latents[rows] for latents in stored]
    text, empty = select_rows(path.text, rows), select_rows(path.empty, rows)
    tune = NullText(updates=3, updates_per_step=0, tolerance=1e-9)
    both = tune(backbone, noise_schedule, targets, text, empty, 2.5)
    alone = tune(
        backbone,
        noise_schedule,
        [each[far:] for each in targets],
        select_rows(text, slice(1, 2)),
        select_rows(empty, slice(1, 2)),
        2.5,
    )
    for mixed, single in zip(both.unconditional, alone.unconditional, strict=True):
        assert torch.equal(mixed.states[near], path.empty.states[near]), (
            "an image within the tolerance must not be tuned"
        )
        torch.testing.assert_close(mixed.states[far:], single.states, rtol=1e-3, atol=1e-3)
        assert (mixed.states[far] - path.empty.states[far]).abs().max() > 0.1


def test_negative_prompt_makes_guidance_vanish(backbone: StableDiffusion, paths: dict[Pairing, Inverted]) -> None:
    path = paths["aligned"]
    trajectory = NegativePrompt()(backbone, path.noise_schedule, path.stored, path.text, path.empty, 2.5)
    assert trajectory.offsets is None
    assert torch.equal(trajectory.start, path.stored[0])
    with torch.no_grad():
        for index, timestep in enumerate(path.noise_schedule.timesteps):
            guided, _ = guided_prediction(backbone, trajectory, path.stored[index], index)
            plain = backbone.denoise(path.stored[index], timestep, path.text).output
            torch.testing.assert_close(guided, plain, rtol=1e-4, atol=1e-5)
            ordinary, _ = guided_prediction(backbone, untuned(path, 2.5), path.stored[index], index)
            assert (ordinary - plain).norm() / plain.norm() > 1e-2
