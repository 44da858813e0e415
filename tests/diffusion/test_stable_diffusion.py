"""The backbone: sizes, ladders, codes, and where a phrase stands in a prompt."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from attnshift.diffusion.backbone import Read
from attnshift.errors import ModelError
from later import later
from pipelines import tiny_pipeline

if TYPE_CHECKING:
    from attnshift.diffusion.stable_diffusion import StableDiffusion

diffusers = later("diffusers")
stable_diffusion = later("attnshift.diffusion.stable_diffusion")


def words(backbone: StableDiffusion, prompt: str, phrase: str) -> list[str]:
    """The tokens at which ``locate`` finds ``phrase``."""
    codes = backbone.tokenizer(prompt).input_ids
    return backbone.tokenizer.convert_ids_to_tokens([codes[at] for at in backbone.locate(prompt, phrase)])


def test_ladder_walks_the_last_steps_of_the_schedule(backbone: StableDiffusion) -> None:
    noise_schedule, alphas = backbone.noise_schedule(20, 5), backbone.scheduler.alphas_cumprod
    assert noise_schedule.timesteps == (201, 151, 101, 51, 1)
    assert noise_schedule.levels == pytest.approx(
        [*(float(alphas[at]) for at in noise_schedule.timesteps), float(alphas[0])]
    )
    assert noise_schedule.above == pytest.approx(float(alphas[251]))
    assert len(noise_schedule) == 5


@pytest.mark.parametrize("steps", [0, 21, 25])
def test_ladder_has_no_more_steps_than_its_schedule(backbone: StableDiffusion, steps: int) -> None:
    with pytest.raises(ModelError, match=f"of a schedule of 20 steps 1 to 20 can be walked, and not {steps}"):
        backbone.noise_schedule(20, steps)


def test_ladder_may_be_the_whole_schedule(backbone: StableDiffusion) -> None:
    noise_schedule, alphas = backbone.noise_schedule(20, 20), backbone.scheduler.alphas_cumprod
    assert noise_schedule.timesteps == tuple(range(951, 0, -50))
    assert noise_schedule.above == pytest.approx(float(alphas[999])), "the last level that there is"
    with pytest.raises(ModelError, match="1 to 999 can be walked, and not 1000"):
        backbone.noise_schedule(1000, 1000)


def test_ladder_of_all_training_steps_ends_at_the_highest_level(backbone: StableDiffusion) -> None:
    noise_schedule, alphas = backbone.noise_schedule(1000, 999), backbone.scheduler.alphas_cumprod
    assert noise_schedule.timesteps[0] == 999
    assert noise_schedule.levels[0] == noise_schedule.above == pytest.approx(float(alphas[-1]))


@pytest.mark.parametrize(("side", "near"), [(100, "96 or 104"), (7, "8"), (0, "8"), (191, "184 or 192")])
def test_a_size_that_does_not_fit_names_the_nearest_ones(backbone: StableDiffusion, side: int, near: str) -> None:
    with pytest.raises(ModelError, match=f"{side} px do not fit the model; use `size` {near}$"):
        backbone.check_size(side)


@pytest.mark.parametrize("side", [16, 56, 64, 72, 224])
@torch.no_grad()
def test_a_size_that_fits_goes_through_the_model(backbone: StableDiffusion, side: int) -> None:
    backbone.check_size(side)
    images = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    latents = backbone.encode(images)
    assert latents.shape == (1, 4, *backbone.latent_size(side))
    attention = backbone.denoise(
        latents, 201, backbone.embed(["mug"]), [Read(site.mapped()) for site in backbone.sites(side)]
    ).attention
    assert all(maps.shape[2] == site.positions for site, maps in attention.items())
    assert backbone.decode(latents).shape == images.shape


@torch.no_grad()
def test_encoding_is_the_posterior_mean_plus_what_the_noise_selects(backbone: StableDiffusion) -> None:
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    posterior = backbone.vae.encode(2 * images - 1).latent_dist
    factor = backbone.vae.config["scaling_factor"]
    torch.testing.assert_close(backbone.encode(images), factor * posterior.mean)
    torch.testing.assert_close(backbone.encode(images, noise), factor * (posterior.mean + posterior.std * noise))


@pytest.mark.parametrize(
    ("prompt", "phrase", "expected"),
    [
        ("a photo of a mug", "mug", ["mug</w>"]),
        ("a photo of a snowman", "snowman", ["snow", "man</w>"]),
        ("a photo of a snowman on the grass", "snowman", ["snow", "man</w>"]),
        ("mug", "mug", ["mug</w>"]),
        ("a photo of a MUG", "mug", ["mug</w>"]),
        ("a red mug", "red mug", ["red</w>", "mug</w>"]),
        ("a mug, seen from above", "mug", ["mug</w>"]),
    ],
)
def test_phrase_is_found(backbone: StableDiffusion, prompt: str, phrase: str, expected: list[str]) -> None:
    assert words(backbone, prompt, phrase) == expected


@pytest.mark.parametrize("phrase", ["mug", "snowman", "a photo of a"])
def test_special_tokens_are_never_part_of_a_phrase(backbone: StableDiffusion, phrase: str) -> None:
    codes = backbone.tokenizer(phrase).input_ids
    span = backbone.locate(phrase, phrase)
    assert span == tuple(range(1, len(codes) - 1))
    assert {codes[0], codes[-1]} == {backbone.tokenizer.bos_token_id, backbone.tokenizer.eos_token_id}


def test_last_occurrence_is_chosen(backbone: StableDiffusion) -> None:
    assert backbone.locate("mug on a mug", "mug") == (4,)


@pytest.mark.parametrize("prompt", ["a photo of a İ mug", "ẞ ﬁ İİİ mug on the grass", "日本 😀 mug"])
def test_phrase_is_found_behind_letters_whose_lower_case_is_longer(backbone: StableDiffusion, prompt: str) -> None:
    assert words(backbone, prompt, "mug") == ["mug</w>"]


@pytest.mark.parametrize(("prompt", "phrase"), [("a photo of a mug", "ball"), ("a mug", ""), ("a mug", " ")])
def test_absent_phrase_is_an_error(backbone: StableDiffusion, prompt: str, phrase: str) -> None:
    with pytest.raises(ModelError, match="does not stand in the prompt"):
        backbone.locate(prompt, phrase)


def test_phrase_that_the_token_limit_cuts_is_an_error(backbone: StableDiffusion) -> None:
    """Of 24 tokens the first and the last are special, so a phrase may end at place 22 and no later."""
    assert backbone.length == 24
    assert backbone.locate("a " * 20 + "snowman", "snowman") == (21, 22)
    with pytest.raises(ModelError, match=r"takes 25 tokens and tiny reads 24: 'snowman' would be cut"):
        backbone.locate("a " * 21 + "snowman", "snowman")
    assert backbone.locate("a mug" + " a" * 40, "mug") == (2,)


def test_embedding_has_one_row_per_token_at_any_length(backbone: StableDiffusion) -> None:
    assert backbone.embed(["", "mug", "a " * 100]).states.shape == (3, 24, 16)


def test_folder_gives_the_backbone_that_was_saved(backbone: StableDiffusion, pipeline_folder: Path) -> None:
    loaded = stable_diffusion.load_stable_diffusion(str(pipeline_folder))
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = backbone.denoise(latents, 201, backbone.embed(["snowman"])).output
        # Not to the bit: mapped weights are aligned differently in memory, and kernels round differently there.
        torch.testing.assert_close(loaded.denoise(latents, 201, loaded.embed(["snowman"])).output, expected)
    assert loaded.noise_schedule(20, 5) == backbone.noise_schedule(20, 5)
    assert loaded.suggested_size == 64


def test_folder_that_is_no_pipeline_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no model_index\.json"):
        stable_diffusion.load_stable_diffusion(str(tmp_path))


def test_models_that_do_not_fit_are_errors() -> None:
    with pytest.raises(ModelError, match="prediction type 'sample' is not supported"):
        stable_diffusion.StableDiffusion(tiny_pipeline("sample", size=64), "tiny")
    inpainting = tiny_pipeline(size=64)
    inpainting.unet.register_to_config(in_channels=9)
    with pytest.raises(ModelError, match="takes 9 channels but the autoencoder makes 4"):
        stable_diffusion.StableDiffusion(inpainting, "tiny")


def test_weights_are_constants(backbone: StableDiffusion) -> None:
    modules = (backbone.vae, backbone.unet, backbone.text_encoder)
    assert not any(parameter.requires_grad for module in modules for parameter in module.parameters())
    assert not any(module.training for module in modules)


def test_a_scheduler_in_memory_without_betas_is_an_error() -> None:
    flow = tiny_pipeline(size=64)
    flow.scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    with pytest.raises(ModelError, match=r"^tiny: its scheduler states no beta_schedule"):
        stable_diffusion.StableDiffusion(flow, "tiny")
