"""The tiny decoder that carries the gradient in the place of a pipeline's own."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor

from attnshift.attack.loop import AttackState, value_and_grad
from attnshift.attack.method import Method
from attnshift.attack.prepare import Task, prepare_batch
from attnshift.attack.remarks import idle_with
from attnshift.errors import ModelError, RecipeError
from attnshift.execution.prepare import prepare_run
from attnshift.execution.shipping import loaded_as, local_models
from attnshift.execution.worker import Worker
from attnshift.recipes.reading import load_recipe
from attnshift.sizes import Size
from hubs import empty_hubs
from later import later
from pipelines import taesd_pipeline, tiny_autoencoder, tiny_pipeline
from planted import edit_json
from small_runs import small_settings

if TYPE_CHECKING:
    from attnshift.classifiers.classifier import Classifier
    from attnshift.diffusion.stable_diffusion import StableDiffusion
    from attnshift.diffusion.stand_in import StandIn

autoencoder = later("attnshift.diffusion.autoencoder")
hub = later("attnshift.diffusion.hub")
stand_ins = later("attnshift.diffusion.stand_in")
stable_diffusion = later("attnshift.diffusion.stable_diffusion")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("decoder")
    tiny_autoencoder().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def stand_in(folder: Path) -> StandIn:
    return stand_ins.load_stand_in(str(folder))


def tiny(folder: Path) -> tuple[str, str]:
    return "diffusion.decoder=tiny", f"diffusion.decoder_source={folder}"


def latents_of(backbone: StableDiffusion) -> Tensor:
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return backbone.encode(images)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_images_are_the_pipeline_s_and_the_gradient_is_the_tiny_decoder_s(
    stand_in: StandIn, backbone: StableDiffusion, checkpointing: bool
) -> None:
    latents = latents_of(backbone)
    leaf, other = latents.clone().requires_grad_(), latents.clone().requires_grad_()
    decoded = stand_in.behind(backbone)(leaf, checkpointing)
    assert torch.equal(decoded, backbone.decode(latents))
    direction = torch.randn(decoded.shape, generator=torch.Generator().manual_seed(1))
    (gradient,) = torch.autograd.grad((decoded * direction).sum(), leaf)
    (expected,) = torch.autograd.grad((autoencoder.decode(stand_in.network, other) * direction).sum(), other)
    torch.testing.assert_close(gradient, expected)
    assert gradient.abs().max() > 0


def test_without_a_gradient_the_tiny_decoder_does_not_run(
    folder: Path, backbone: StableDiffusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = stand_ins.StandIn(str(folder), tiny_autoencoder())
    monkeypatch.setattr(alone.network, "decode", lambda latents: pytest.fail("it ran"))
    latents = latents_of(backbone)
    assert torch.equal(alone.behind(backbone)(latents, False), backbone.decode(latents))


def test_a_tiny_decoder_of_the_pipeline_s_own_is_kept_and_said(folder: Path, stand_in: StandIn) -> None:
    own = stable_diffusion.StableDiffusion(taesd_pipeline(), "taesd")
    assert stand_in.behind(own) == own.decode
    method = Method.of(load_recipe("quick", [*tiny(folder), "diffusion.encoding=sample"]))
    first, second = idle_with(method, own)
    assert first.startswith("diffusion.decoder is 'tiny' and cannot act, since taesd's own decoder is a tiny one; ")
    assert second.startswith("diffusion.encoding is 'sample' and cannot act, since taesd's tiny autoencoder gives one")


def test_an_iterate_shows_what_the_pipeline_s_own_decoder_shows(
    folder: Path, backbone: StableDiffusion, classifiers: list[Classifier]
) -> None:
    method = Method.of(load_recipe("quick", [*tiny(folder), "diffusion.denoising_steps=1"]))
    image = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
    batch = prepare_batch(method, backbone, classifiers[:1], [Task("a", image, 3, "mug")])
    moved = batch.render.trajectory.start + 0.1
    own = replace(batch, render=replace(batch.render, decode=backbone.decode))
    first, second = (value_and_grad(each, moved, 0, AttackState.start(each)) for each in (batch, own))
    assert torch.equal(first.images, second.images)
    assert torch.equal(first.fused.margins, second.fused.margins)
    assert not torch.allclose(first.gradient, second.gradient)


def test_a_run_records_the_decoder_and_doubts_one_of_other_latents(
    photos: Path, pipeline_folder: Path, folder: Path, stand_in: StandIn, tmp_path: Path
) -> None:
    settings = small_settings(photos, pipeline_folder, tmp_path / "run", *tiny(folder))
    prepared = prepare_run(settings)
    spec = prepared.worker.spec
    assert spec.weights["decoder"] == stand_in.fingerprint()
    assert any("shows other images than" in line and "usual are 20 and more" in line for line in prepared.notes)
    assert prepared.with_recipe(load_recipe("quick")).worker.spec.weights.keys() == spec.weights.keys() - {"decoder"}
    models = local_models(spec)
    assert models[str(folder)] == (folder,)
    moved = loaded_as(models, {folder: tmp_path / "elsewhere"})
    assert moved == {str(folder): str(tmp_path / "elsewhere")}
    tiny_autoencoder().half().save_pretrained(tmp_path / "elsewhere")
    with pytest.raises(ModelError, match=r"differs from its run in weights\.decoder"):
        Worker.load(spec, places=moved)


def other_channels(folder: Path) -> None:
    tiny_autoencoder(latent_channels=16).save_pretrained(folder)


def other_levels(folder: Path) -> None:
    tiny_autoencoder(levels=3).save_pretrained(folder)


@pytest.mark.parametrize(
    ("save", "expected"),
    [
        (other_channels, "decodes latents of 16 channels, and those of tiny have 4"),
        (other_levels, "makes 32 px of latents of 64 px; take the decoder that was distilled"),
    ],
)
def test_a_decoder_of_another_pipeline_is_refused(
    backbone: StableDiffusion, tmp_path: Path, save: Callable[[Path], None], expected: str
) -> None:
    save(tmp_path)
    with pytest.raises(ModelError, match=expected), torch.no_grad():
        stand_ins.load_stand_in(str(tmp_path)).check(backbone, Size(64, 64))


def a_large_one(folder: Path) -> None:
    tiny_pipeline(size=64).vae.save_pretrained(folder)


def a_pickle(folder: Path) -> None:
    tiny_autoencoder().save_pretrained(folder, safe_serialization=False)


def one_that_is_not_finite(folder: Path) -> None:
    broken = tiny_autoencoder()
    with torch.no_grad():
        broken.decoder.layers[0].bias[0] = torch.nan
    broken.save_pretrained(folder)


def another_width(folder: Path) -> None:
    tiny_autoencoder().save_pretrained(folder)
    edit_json(folder / "config.json", latent_channels=5)


@pytest.mark.parametrize(
    ("save", "expected"),
    [
        (None, "there is no such folder; give a folder of an AutoencoderTiny in diffusers' layout, or a name of the"),
        (lambda folder: None, "there is no file .*config.json"),
        (a_large_one, "holds no AutoencoderTiny"),
        (a_pickle, r"has no diffusion_pytorch_model\.safetensors; pickles such as diffusion_pytorch_model\.bin are"),
        (one_that_is_not_finite, r"decoder\.layers\.0\.bias has values that are not finite"),
        (another_width, "does not fit"),
    ],
)
def test_what_is_no_tiny_decoder_is_refused_in_a_line(
    tmp_path: Path, save: Callable[[Path], None] | None, expected: str
) -> None:
    folder = tmp_path / "decoder" / "of" / "mine"
    if save:
        folder.mkdir(parents=True)
        save(folder)
    with pytest.raises(ModelError, match=f"^cannot load diffusion.decoder_source {re.escape(str(folder))}: ") as caught:
        Method.of(load_recipe("quick", tiny(folder)))
    assert re.search(expected, str(caught.value))
    assert "\n" not in str(caught.value)


def test_a_hub_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty_hubs(tmp_path, monkeypatch)
    monkeypatch.setattr(hub, "_refusal", lambda name: "the hub is away")
    with pytest.raises(ModelError, match=r"^cannot load diffusion.decoder_source nobody/decoder: the hub is away$"):
        stand_ins.load_stand_in("nobody/decoder")


@pytest.mark.parametrize("changes", [["diffusion.decoder=tiny"], ["diffusion.decoder_source=somewhere"]])
def test_the_decoder_and_its_source_go_together(changes: list[str]) -> None:
    with pytest.raises(RecipeError, match="decoder_source goes with decoder = 'tiny', and only with it"):
        load_recipe("quick", changes)


def test_the_agreement_of_a_decoder_with_itself_is_infinite() -> None:
    own = stable_diffusion.StableDiffusion(taesd_pipeline(), "taesd")
    same = stand_ins.StandIn("same", tiny_autoencoder())
    other = stand_ins.StandIn("other", tiny_autoencoder())
    with torch.no_grad():
        other.network.decoder.layers[-1].bias += 0.05
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert same.agreement(own, images) == torch.inf
    assert 26 < other.agreement(own, images) < 29, "0.05 is 26 dB, less what is clamped"
