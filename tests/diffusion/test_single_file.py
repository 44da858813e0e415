"""Pipelines in single files beside their configuration: the same networks, to the bit, as the folder has."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from attnshift.diffusion import check_pipeline_name, load_pipeline
from attnshift.errors import ModelError
from families import FAMILIES
from later import later
from pipelines import tiny_pipeline
from single_files import open_clip, plain_clip, sd3_transformer, unet, vae, write
from tiers import fast_first

diffusers = later("diffusers")
flux = later("attnshift.diffusion.flux")
single_file = later("attnshift.diffusion.single_file")

SDXL = ("conditioner.embedders.0.transformer.", "conditioner.embedders.1.model.")
SD3 = ("text_encoders.clip_l.transformer.", "text_encoders.clip_g.transformer.", "text_encoders.t5xxl.transformer.")


def stable_diffusion() -> tuple[Any, list[dict[str, Tensor]]]:
    made = tiny_pipeline(size=64)
    return made, [unet(made.unet), vae(made.vae), plain_clip(made.text_encoder, "cond_stage_model.transformer.")]


def stable_diffusion_2() -> tuple[Any, list[dict[str, Tensor]]]:
    made = tiny_pipeline(size=64)
    return made, [unet(made.unet), vae(made.vae), open_clip(made.text_encoder, "cond_stage_model.model.")]


def sdxl() -> tuple[Any, list[dict[str, Tensor]]]:
    made = FAMILIES["sdxl"]()
    texts = plain_clip(made.text_encoder, SDXL[0]), open_clip(made.text_encoder_2, SDXL[1])
    return made, [unet(made.unet), vae(made.vae), *texts]


def sd3(family: str) -> tuple[Any, list[dict[str, Tensor]]]:
    made = FAMILIES[family]()
    # Such files have no projection of the first encoder, which stands for none.
    torch.nn.init.eye_(made.text_encoder.text_projection.weight)
    texts = [plain_clip(made.text_encoder, SD3[0]), plain_clip(made.text_encoder_2, SD3[1])]
    texts[0] = {key: value for key, value in texts[0].items() if "text_projection" not in key}
    if made.text_encoder_3 is not None:
        texts.append({f"{SD3[2]}{key}": value for key, value in made.text_encoder_3.state_dict().items()})
    return made, [sd3_transformer(made.transformer), vae(made.vae), *texts]


PIPELINES: dict[str, Callable[[], tuple[Any, list[dict[str, Tensor]]]]] = {
    "stable diffusion": stable_diffusion,
    "stable diffusion 2": stable_diffusion_2,
    "sdxl": sdxl,
    "sd3": lambda: sd3("sd3"),
    "sd3 medium without t5": lambda: sd3("sd3 medium without t5"),
}


def configured(folder: Path, *kept: str) -> Path:
    """``folder`` without weights but those of the parts ``kept``."""
    for path in folder.glob("*/*.safetensors"):
        if path.parent.name not in kept:
            path.unlink()
    return folder


@pytest.mark.parametrize("family", fast_first(PIPELINES))
def test_a_single_file_gives_the_networks_of_the_folder(family: str, tmp_path: Path) -> None:
    made, parts = PIPELINES[family]()
    made.save_pretrained(tmp_path / "folder", safe_serialization=True)
    fingerprint = load_pipeline(str(tmp_path / "folder")).fingerprint()
    path = write(tmp_path / "all.safetensors", *parts)
    single = load_pipeline(f"{path},config={configured(tmp_path / 'folder')}")
    assert single.fingerprint() == fingerprint
    assert single.name.startswith(str(path))
    single.release_texts()
    assert single.fingerprint() == fingerprint


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    _, parts = stable_diffusion()
    return {key: value for part in parts for key, value in part.items()}


@pytest.fixture(scope="module")
def config(pipeline_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return configured(Path(shutil.copytree(pipeline_folder, tmp_path_factory.mktemp("config") / "config")))


DENOISER, VAE, TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer."


def without(*prefixes: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda weights: {key: value for key, value in weights.items() if not key.startswith(prefixes)}


def with_(key: str, value: Tensor) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda weights: weights | {key: value}


UNFIT: dict[str, tuple[Callable[[dict[str, Tensor]], dict[str, Tensor]], str]] = {
    "no denoiser": (without(DENOISER), r"holds no denoiser; name the file of a pipeline of Stable Diffusion 1\.x"),
    "no autoencoder": (without(VAE), "neither .* nor .*vae holds weights for vae; put its safetensors file into that"),
    "a weight less": (
        without(f"{DENOISER}out.2.bias"),
        r"unet holds no weights for conv_out\.bias \(1 in all\); is it",
    ),
    "half a text encoder": (without(f"{TEXT}text_model.final"), "holds no weights for final_layer_norm"),
    "a weight more": (with_(f"{DENOISER}lora.up", torch.ones(3)), "weights of the denoiser, of which .* describes"),
    "another shape": (
        with_(f"{DENOISER}out.2.bias", torch.ones(4, 1)),
        r"does not fit .*unet/config\.json: it has \(4, 1\) for conv_out\.bias, expected \(4,\)",
    ),
    "not finite": (
        with_(f"{DENOISER}out.2.bias", torch.full((4,), torch.nan)),
        r"unet: conv_out\.bias has values that are not finite",
    ),
}


FAST = ("no denoiser", "no autoencoder", "a weight more")


@pytest.mark.parametrize(
    ("change", "line"),
    [pytest.param(*case, id=name, marks=[] if name in FAST else [pytest.mark.heavy]) for name, case in UNFIT.items()],
)
def test_what_does_not_fit_is_refused_in_one_line(
    change: Callable[[dict[str, Tensor]], dict[str, Tensor]],
    line: str,
    weights: dict[str, Tensor],
    config: Path,
    tmp_path: Path,
) -> None:
    path = write(tmp_path / "all.safetensors", change(weights))
    with pytest.raises(ModelError, match=line) as caught:
        load_pipeline(f"{path},config={config}")
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_files_that_are_none_are_refused_before_torch_is_needed(config: Path, tmp_path: Path) -> None:
    for name in ("sd.ckpt", "sd.safetensors"):
        (tmp_path / name).write_bytes(b"\x80\x04")
    path = tmp_path / "sd.safetensors"
    for name, line in {
        f"{tmp_path}/sd.ckpt,config={config}": r"sd\.ckpt is no \.safetensors file, .*; pickles are never opened",
        f"{tmp_path}/none.safetensors,config={config}": r"there is no file .*none\.safetensors; give the path",
        "none.safetensors": r"there is no file none\.safetensors",
        str(path): rf"is a single file, which holds no configuration; .*: {path},config=FOLDER",
        f"{path},config={tmp_path}": rf"config={tmp_path} is no folder in diffusers' layout: it holds no model_index",
        f"{path},variant=fp16,config={config}": "a single file has no variants; leave variant out",
    }.items():
        with pytest.raises(ModelError, match=line):
            check_pipeline_name(name)
    with pytest.raises(ModelError, match=r"sd\.safetensors is not a safetensors file, or is cut off"):
        load_pipeline(f"{path},config={config}")


@pytest.mark.heavy
def test_what_the_file_lacks_comes_from_the_folder(tmp_path: Path) -> None:
    """Files of Flux hold the denoiser alone."""
    made = FAMILIES["flux dev"]()
    made.save_pretrained(tmp_path / "folder", safe_serialization=True)
    fingerprint = load_pipeline(str(tmp_path / "folder")).fingerprint()
    name = f"{write(tmp_path / 'dev.safetensors', made.transformer.state_dict())},config={tmp_path / 'folder'}"
    configured(tmp_path / "folder", "vae", "text_encoder", "text_encoder_2")
    assert load_pipeline(name).fingerprint() == fingerprint
    configured(tmp_path / "folder", "vae", "text_encoder")
    with pytest.raises(ModelError, match=r"neither .*dev\.safetensors nor .*text_encoder_2 holds weights for text_enc"):
        load_pipeline(name)
    with pytest.raises(ModelError, match=r"holds no transformer that .* describes .*; is it a pipeline of FLUX"):
        load_pipeline(
            f"{write(tmp_path / 'sd.safetensors', unet(tiny_pipeline(size=64).unet))},config={tmp_path}/folder"
        )


def test_names_of_the_authors_are_read_for_flux(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the width of the real one, which its names are bound to, and so without memory."""
    with torch.device("meta"):
        network = diffusers.FluxTransformer2DModel(num_layers=1, num_single_layers=1, guidance_embeds=True)
    network.save_config(tmp_path / "transformer")
    wide = 3072
    linear = {
        "img_in": (wide, 64), "txt_in": (wide, 4096), "final_layer.linear": (64, wide),
        "final_layer.adaLN_modulation.1": (2 * wide, wide), "single_blocks.0.linear1": (7 * wide, wide),
        "single_blocks.0.linear2": (wide, 5 * wide), "single_blocks.0.modulation.lin": (3 * wide, wide),
    }  # fmt: skip
    for name, inputs in (("time_in", 256), ("vector_in", 768), ("guidance_in", 256)):
        linear |= {f"{name}.in_layer": (wide, inputs), f"{name}.out_layer": (wide, wide)}
    for side in ("img", "txt"):
        linear |= {
            f"double_blocks.0.{side}_{name}": (outputs * wide, inputs * wide)
            for name, outputs, inputs in (
                ("attn.qkv", 3, 1), ("attn.proj", 1, 1), ("mlp.0", 4, 1), ("mlp.2", 1, 4), ("mod.lin", 6, 1)
            )
        }  # fmt: skip
    norms = ("single_blocks.0.norm", "double_blocks.0.img_attn.norm", "double_blocks.0.txt_attn.norm")
    shapes = {f"{name}.{kind}_norm.scale": (128,) for name in norms for kind in ("query", "key")}
    shapes |= {f"{name}.weight": shape for name, shape in linear.items()}
    shapes |= {f"{name}.bias": shape[:1] for name, shape in linear.items()}
    monkeypatch.setattr("attnshift.diffusion.single_file.safetensors_shapes", lambda _: shapes)
    found = single_file.SingleFile(tmp_path / "flux.safetensors", tmp_path, flux._LAYOUT).shapes("transformer")
    assert found == {key: tuple(value.shape) for key, value in network.state_dict().items()}
