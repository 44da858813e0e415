"""APA held to its formulas, on a model whose steps are known in closed form."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from attnshift.baselines.aca import ACA
from attnshift.baselines.apa import APA, OfficialAPA
from attnshift.baselines.memorised import Memorised
from attnshift.diffusion.ddim import ddim_step
from attnshift.errors import RecipeError
from mirror import Mirror, input_on

LEVELS = (0.3, 0.6, 0.9, 0.99)
STEPS = len(LEVELS) - 1
BARE: dict[str, Any] = {"memory_steps": 0, "guided_steps": 0, "schedule_steps": STEPS}
TWO: dict[str, Any] = BARE | {"guided_steps": 2}


def curved(latents: Tensor, timestep: int, text: Tensor) -> Tensor:
    return torch.tanh(latents * timestep / 2 + text.mean((1, 2)).view(-1, 1, 1, 1) / 100)


def prepared(attack: APA, noise: Any = curved) -> tuple[Mirror, Memorised]:
    backbone = Mirror(levels=LEVELS, noise=noise)
    made = attack.prepare(input_on(backbone))
    assert isinstance(made, Memorised)
    backbone.starts.clear()
    backbone.forwards = backbone.backwards = 0
    return backbone, made


def test_without_its_own_parts_it_is_aca_without_guidance_and_nearness() -> None:
    """Values stay between 0 and 1, where neither clamp nor map acts."""
    own = APA(**BARE, epsilon=0.02, steps=4)
    backbone, made = prepared(own)
    found = made(torch.ones(2))
    other = Mirror(levels=LEVELS, noise=curved)
    aca = ACA(template="{}", epsilon=0.02, step_size=own.pace, steps=4, guidance=1.0, nearness=0.0)
    inside = replace(input_on(other), images=made.given.images)
    assert torch.equal(aca.prepare(inside)(torch.ones(2)), found)
    assert all(torch.equal(*pair) for pair in zip(backbone.starts, other.starts[-5:], strict=True))


def test_the_released_attack_returns_what_was_seen_last() -> None:
    backbone, made = prepared(OfficialAPA(**BARE, steps=3))
    found = made(torch.ones(2))
    assert len(backbone.starts) == 3
    assert torch.equal(found, made.shown(made.end(backbone.starts[-1], torch.ones(2))))


def penalty(made: Memorised, images: Tensor) -> Tensor:
    (classifier,) = made.given.surrogates.classifiers
    return -torch.nn.functional.cross_entropy(classifier(images), made.given.surrogates.goals.labels, reduction="sum")


@pytest.mark.parametrize("reconstruction", ["offset", "none"])
def test_the_last_steps_are_pushed_by_the_sign_of_what_they_have_gathered(reconstruction: Any) -> None:
    _, made = prepared(APA(**TWO, push=0.5, reconstruction=reconstruction))
    strengths, latents = torch.tensor([1.0, 0.2]), made.trajectory.start
    gathered, clean = torch.zeros_like(latents), latents
    for index, (source, target) in enumerate(pairwise(LEVELS)):
        noise = made.given.backbone.denoise(latents, STEPS - index, made.trajectory.text).output
        share = (1 - source) ** 0.5
        if index >= STEPS - 2:
            clean = (latents - share * noise) / source**0.5
            points = latents.clone().requires_grad_()
            seen = share * made.encoded + (1 - share) * (points - share * noise) / source**0.5
            (gradient,) = torch.autograd.grad(penalty(made, made.shown(seen)), points)
            gathered = gathered + gradient / gradient.abs().sum((1, 2, 3), keepdim=True)
            noise = noise + 0.5 * strengths.view(-1, 1, 1, 1) * share * gathered.sign()
        latents = ddim_step(latents, noise, source, target)
        if made.trajectory.offsets is not None:
            latents = latents + made.trajectory.offsets[index]
    end, previews = made.walk(made.trajectory.start, strengths, 0)
    assert torch.allclose(end, latents, atol=1e-5)
    assert len(previews) == 2
    assert torch.allclose(previews[-1], clean, atol=1e-5)
    back, _ = made.walk(made.trajectory.start, torch.zeros(2), 0)
    assert torch.allclose(back, made.encoded, atol=1e-5) == (reconstruction == "offset")


@pytest.mark.parametrize("guided_steps", [0, 2])
def test_the_exact_gradient_goes_back_through_the_denoiser_and_the_skipped_one_does_not(guided_steps: int) -> None:
    changes: dict[str, Any] = BARE | {
        "guided_steps": guided_steps,
        "steps": 2,
        "augmented": False,
        "latent_nearness": 10.0,
    }
    gradients = {}
    for kind in ("skip", "exact"):
        backbone, made = prepared(APA(**changes, gradient=kind, inverted_steps=STEPS))
        look = made.look(made.trajectory.start + 0.1, torch.ones(2), 0, None)
        assert backbone.backwards == (2 * STEPS if kind == "exact" else 0)
        gradients[kind] = look.gradient
    points = (made.trajectory.start + 0.1).requires_grad_()
    with torch.enable_grad():
        end, _ = made.walk(points, torch.ones(2), 0)
        loss = penalty(made, made.shown(end)) + 10 * (end - made.encoded).square().mean((1, 2, 3)).sum()
    (expected,) = torch.autograd.grad(loss, points)
    assert torch.allclose(gradients["exact"], expected, atol=1e-5)
    assert not torch.allclose(gradients["skip"], expected, atol=1e-3)


def test_the_loss_is_the_mean_over_images_half_way_to_the_previews(monkeypatch: pytest.MonkeyPatch) -> None:
    _, made = prepared(APA(**TWO))
    monkeypatch.setattr("attnshift.baselines.memorised._SHRUNK", lambda images, generators: images)
    start = made.trajectory.start
    end, previews = made.walk(start, torch.ones(2), 0)
    points = end.clone().requires_grad_()
    shown = made.shown(points)
    loss = torch.stack([penalty(made, (shown + made.shown(each)) / 2) for each in previews]).mean(0)
    (expected,) = torch.autograd.grad(loss, points)
    assert torch.allclose(made.look(start, torch.ones(2), 0, None).gradient, expected, atol=1e-5)


def test_views_shrink_and_pad_by_draws_of_the_image_the_iteration_and_the_preview() -> None:
    _, made = prepared(APA(**TWO))
    white = torch.ones(2, 3, 100, 100)
    wide = replace(made, residual=None, given=replace(made.given, images=white))
    seen = torch.cat([view(white) for iteration in (0, 1) for view in wide.views([white, white], iteration)])
    shares = seen.mean((1, 2, 3))
    assert ((shares > 0.8) & (shares <= 1)).all()
    assert len(seen.flatten(1).unique(dim=0)) > 5, "two of eight may well be alike"


def test_the_way_is_whole_or_the_lowest_eleven_steps() -> None:
    assert [APA(gradient=each).way for each in ("skip", "exact")] == [50, 11]
    assert APA().pace == pytest.approx(0.04)


def test_a_model_that_shows_no_attention_is_refused_unless_it_need_not_learn() -> None:
    given = input_on(Mirror(levels=LEVELS, noise=curved))
    given.backbone.name = "mirror"
    with pytest.raises(RecipeError, match=r"mirror does not show it; set `memory_steps` to 0"):
        APA().check(given)
    APA(memory_steps=0).check(given)
