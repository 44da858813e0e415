"""Pipelines whose autoencoder is a tiny one (TAESD), in diffusers' layout."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from attnshift.diffusion import load_pipeline
from attnshift.diffusion.measures import measure_pipeline
from attnshift.errors import ModelError
from attnshift.testing.backbones import BACKBONE_CHECKS
from later import later
from pipelines import taesd_pipeline, tiny_autoencoder
from planted import edit_json

if TYPE_CHECKING:
    from attnshift.diffusion.stable_diffusion import StableDiffusion

stable_diffusion = later("attnshift.diffusion.stable_diffusion")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("taesd")
    taesd_pipeline().to(torch.float16).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def loaded(saved: Path) -> StableDiffusion:
    return stable_diffusion.load_stable_diffusion(str(saved))


def pictures() -> torch.Tensor:
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("check", BACKBONE_CHECKS, ids=lambda check: check.__name__)
def test_contract(check: Any, loaded: StableDiffusion) -> None:
    check(loaded)


@torch.no_grad()
def test_latents_and_images_are_those_of_diffusers(loaded: StableDiffusion) -> None:
    own, images = tiny_autoencoder().half().float(), pictures()
    latents = own.encode(2 * images - 1).latents
    torch.testing.assert_close(loaded.encode(images), latents)
    torch.testing.assert_close(loaded.decode(latents), own.decode(latents).sample / 2 + 0.5)


@torch.no_grad()
def test_there_is_one_latent_for_each_image(loaded: StableDiffusion) -> None:
    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    assert torch.equal(loaded.encode(pictures(), noise), loaded.encode(pictures()))


def test_checkpointing_keeps_the_gradient(loaded: StableDiffusion) -> None:
    with torch.no_grad():
        latents = loaded.encode(pictures())
    gradients = []
    for checkpointing in (False, True):
        leaf = latents.clone().requires_grad_()
        gradients += torch.autograd.grad(loaded.decode(leaf, checkpointing).square().sum(), leaf)
    torch.testing.assert_close(*gradients)


def test_the_fingerprint_tells_how_it_enlarges(saved: Path, loaded: StableDiffusion, tmp_path: Path) -> None:
    other = shutil.copytree(saved, tmp_path / "other")
    edit_json(other / "vae" / "config.json", upsample_fn="bilinear")
    assert stable_diffusion.load_stable_diffusion(str(other)).fingerprint() != loaded.fingerprint()


@torch.no_grad()
def test_the_spread_of_latents_knows_the_scaling_factor(saved: Path, loaded: StableDiffusion, tmp_path: Path) -> None:
    other = shutil.copytree(saved, tmp_path / "other")
    edit_json(other / "vae" / "config.json", scaling_factor=0.25)
    scaled = stable_diffusion.load_stable_diffusion(str(other))
    right, wrong = (measure_pipeline(each, pictures()).spread for each in (loaded, scaled))
    assert wrong == pytest.approx(0.25 * right, rel=1e-4)
    latents = loaded.encode(pictures())
    torch.testing.assert_close(scaled.decode(0.25 * latents), loaded.decode(latents))


CASES: dict[str, tuple[dict[str, Any], str]] = {
    "another class": ({"_class_name": "AsymmetricAutoencoderKL"}, "_class_name is 'AsymmetricAutoencoderKL'; autoenc"),
    "the other class": ({"_class_name": "AutoencoderKL"}, "names AutoencoderTiny for vae, and vae/config.json is a Au"),
    "widths that differ": ({"decoder_block_out_channels": [8, 8, 16, 8]}, "such blocks have one width"),
    "no widths": ({"encoder_block_out_channels": []}, "such blocks have one width"),
    "levels that differ": ({"num_decoder_blocks": [1, 1, 1]}, "images would not come back at their size"),
    "no list of levels": ({"num_encoder_blocks": 4}, "images would not come back at their size"),
    "another enlargement": ({"upsampling_scaling_factor": 3}, "images would not come back at their size"),
    "depth of a giant": ({"num_encoder_blocks": [1, 10**7, 1, 1]}, "at most 100 are supported"),
    "unknown activation": ({"act_fn": "velvet"}, "describes no network"),
    "a shift": ({"shift_factor": 0.1}, "autoencoder has a shift_factor"),
    "other width": ({"encoder_block_out_channels": [16] * 4, "decoder_block_out_channels": [16] * 4}, "does not fit"),
    "other channels": ({"latent_channels": 16}, "does not fit"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_folder_that_cannot_be_used_is_refused_in_a_line(saved: Path, tmp_path: Path, case: str) -> None:
    changes, expected = CASES[case]
    folder = shutil.copytree(saved, tmp_path / "pipeline")
    edit_json(folder / "vae" / "config.json", **changes)
    with pytest.raises(ModelError, match=re.escape(expected)) as caught:
        stable_diffusion.load_stable_diffusion(str(folder))
    assert "\n" not in str(caught.value)


@pytest.mark.heavy
@torch.no_grad()
def test_the_pipeline_of_photographs_is_as_trained_pipelines_are(material: Path) -> None:
    from attnshift.data.images import read_image

    photographs = sorted((material / "photos" / "imagenette").glob("test-*.JPEG"))[::140]
    images = torch.stack([read_image(path, 128) for path in photographs])
    backbone = load_pipeline(str(material / "photo-pipeline"))
    assert backbone.suggested_size == 128
    assert measure_pipeline(backbone, images).verdict.kind == "fine"
    error = (backbone.decode(backbone.encode(images)).clamp(0, 1) - images).square().mean()
    assert -10 * error.log10() > 20
