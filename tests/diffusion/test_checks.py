"""Pipelines of others, damaged, of another kind, or with code of their own: refused in one line, and nothing runs."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load, save_file
from torch import Tensor, nn

from attnshift.errors import ModelError
from hubs import empty_hubs
from later import later
from pipelines import tiny_pipeline
from planted import declare_giant, edit_json, plant_module, plant_pickle
from tiers import fast_first, fast_where

if TYPE_CHECKING:
    from attnshift.diffusion.layout import Layout
    from attnshift.diffusion.stable_diffusion import StableDiffusion

checks = later("attnshift.diffusion.checks")
diffusers = later("diffusers")
hub = later("attnshift.diffusion.hub")
stable_diffusion = later("attnshift.diffusion.stable_diffusion")

UNET, VAE = "unet/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"

Spoil = Callable[[Path], object]


@pytest.fixture(scope="module", autouse=True)
def _outlines_once() -> Iterator[None]:
    """What a configuration describes is built once: of a spoilt pipeline's three networks most are as they were."""
    outline, known = checks._outline, {}

    def outline_once(folder: Path, part: str, config: dict[str, Any], layout: Layout | None) -> nn.Module:
        key = (part, json.dumps(config, sort_keys=True))
        if key not in known:
            known[key] = outline(folder, part, config, layout)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checks, "_outline", outline_once)
        yield


@pytest.fixture
def folder(pipeline_folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(pipeline_folder, tmp_path / "pipeline")


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "marker"


def complaint(folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        stable_diffusion.load_stable_diffusion(str(folder))
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert str(folder) in message
    return message


def change(file: str, edit: Callable[[dict[str, Tensor]], object]) -> Spoil:
    """Rewrite the weights in ``file``."""

    def spoil(folder: Path) -> None:
        # Not ``load_file``, which maps the file that is then overwritten.
        weights = load((folder / file).read_bytes())
        edit(weights)
        save_file(weights, folder / file)

    return spoil


def value(file: str, key: str, number: float) -> Spoil:
    return change(file, lambda weights: weights[key].view(-1)[0].fill_(number))


def config(part: str, **values: Any) -> Spoil:
    return lambda folder: edit_json(folder / part, **values)


def text(file: str, content: str | bytes) -> Spoil:
    return lambda folder: (folder / file).write_bytes(content.encode() if isinstance(content, str) else content)


def without(name: str) -> Spoil:
    def spoil(folder: Path) -> None:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return spoil


def cut(file: str, keep: int) -> Spoil:
    return lambda folder: (folder / file).write_bytes((folder / file).read_bytes()[:keep])


def giant(file: str) -> Spoil:
    return lambda folder: declare_giant(folder / file)


def huge_header(folder: Path) -> None:
    (folder / UNET).write_bytes(b"\xff" * 7 + b"\x3f" + b"{}")


def with_channels(channels: int, **more: Any) -> Spoil:
    """A denoiser whose weights fit its configuration."""

    def spoil(folder: Path) -> None:
        settings = diffusers.UNet2DConditionModel.load_config(folder / "unet")
        assert isinstance(settings, dict)
        changed = diffusers.UNet2DConditionModel.from_config({**settings, "in_channels": channels, **more})
        changed.save_pretrained(folder / "unet")  # type: ignore[union-attr]

    return spoil


def conditioned(**more: Any) -> Spoil:
    return with_channels(4, **more)


INDEX, SCHEDULER = "model_index.json", "scheduler/scheduler_config.json"
ADDITION = {"addition_time_embed_dim": 8, "projection_class_embeddings_input_dim": 64}

CASES: dict[str, tuple[Spoil, str]] = {
    **{f"no {part}": (without(part), f"has no {part}; is the pipeline complete") for part in
       ("unet", "vae", "text_encoder", "tokenizer", "scheduler")},
    **{f"no {file}": (without(file), rf"has no {Path(file).name}; save the pipeline") for file in (UNET, VAE, TEXT)},
    **{f"cut {file}": (cut(file, 3000), f"{file} is not a safetensors file, or is cut") for file in (UNET, VAE, TEXT)},
    **{f"giant {file}": (giant(file), f"{file} is not a safetensors file, .*not fully") for file in (UNET, TEXT)},
    "huge header": (huge_header, r"is not a safetensors file, .*too large"),
    "empty weights": (cut(UNET, 0), "is not a safetensors file"),
    "nan in unet": (value(UNET, "conv_in.weight", torch.nan), r"/unet: conv_in\.weight has values that are not finite"),
    "nan in vae": (value(VAE, "quant_conv.bias", torch.nan), r"/vae: quant_conv\.bias has values that are not finite"),
    "inf in text encoder": (
        value(TEXT, "final_layer_norm.weight", torch.inf),
        r"/text_encoder: final_layer_norm\.weight has values that are not finite \(1 such entries\); take undamaged",
    ),
    "other width of unet": (
        config("unet/config.json", block_out_channels=[16, 16, 32, 32]),
        r"does not fit .*unet/config\.json: it has \(8, 4, 3, 3\) for conv_in\.weight, expected \(16, 4, 3, 3\)",
    ),
    "other width of vae": (config("vae/config.json", block_out_channels=[16] * 4), "does not fit .*vae/config"),
    "other width of text encoder": (
        config("text_encoder/config.json", hidden_size=32),
        r"does not fit .*it has \(600, 16\) for embeddings\.token_embedding\.weight, expected \(600, 32\)",
    ),
    "width of a giant": (config("unet/config.json", block_out_channels=[10**6] * 4), "does not fit"),
    "width beyond numbers": (config("unet/config.json", block_out_channels=[10**9] * 4), "describes no network"),
    "depth of a giant": (config("unet/config.json", layers_per_block=10**7), "layers_per_block is 10000000; at most"),
    "more layers than weights": (
        config("text_encoder/config.json", num_hidden_layers=2),
        r"/text_encoder holds no weights for encoder\.layers\.1\.\S+ \(16 in all\)",
    ),
    "a weight left out": (
        change(VAE, lambda weights: weights.pop("post_quant_conv.bias")),
        r"/vae holds no weights for post_quant_conv\.bias \(1 in all\)",
    ),
    "nearly all weights left out": (
        change(UNET, lambda weights: [weights.pop(key) for key in list(weights) if "blocks" in key]),
        r"unet/config\.json describes \d+ weights, and .* holds \d+",
    ),
    "nine channels": (with_channels(9), "takes 9 channels but the autoencoder makes 4; inpainting"),
    "eight channels": (with_channels(8), "takes 8 channels but the autoencoder makes 4; inpainting and editing"),
    "variance too": (with_channels(4, out_channels=8), "gives 8 channels for 4; models that predict more"),
    "nine channels, four in the file": (config("unet/config.json", in_channels=9), "does not fit"),
    "conditions of SDXL": (
        conditioned(addition_embed_type="text_time", **ADDITION),
        r"asks for more than a text \(addition_embed_type is 'text_time'\), as SDXL's does",
    ),
    "class embeddings": (conditioned(num_class_embeds=10), r"more than a text \(num_class_embeds is 10\)"),
    "timestep classes": (conditioned(class_embed_type="timestep"), r"more than a text \(class_embed_type"),
    "text of another width": (
        with_channels(4, cross_attention_dim=24),
        "reads texts of width 24 but the text encoder gives 16; do they belong together",
    ),
    "index that is no JSON": (text(INDEX, "hello"), r"model_index\.json is not a JSON file: Expecting value"),
    "index of another encoding": (text(INDEX, b'{"a": "\xff"}'), "is not a JSON file: 'utf-8' codec"),
    "index that is a list": (text(INDEX, "[1]"), "holds a list; expected a JSON object"),
    "index that is null": (text(INDEX, "null"), "expected a JSON object"),
    "index that never ends": (text(INDEX, "[" * 100_000), "is not a JSON file: maximum recursion"),
    "enormous index": (text(INDEX, " " * 5_000_000), "holds more than 4194304 bytes"),
    "empty index": (text(INDEX, "{}"), "has no unet"),
    "configuration that is a list": (text("unet/config.json", "[]"), r"unet/config\.json holds a list"),
    "no configuration": (without("vae/config.json"), r"there is no file .*vae/config\.json"),
    "SDXL": (config(INDEX, text_encoder_2=["transformers", "CLIPTextModelWithProjection"]), "for text_encoder_2, exp"),
    "another denoiser": (config(INDEX, unet=["diffusers", "UNet2DModel"]), "'UNet2DModel' for unet, expected UNet2DC"),
    "class from the system": (config(INDEX, scheduler=["os", "system"]), "only classes of diffusers and transformers"),
    "no scheduler at all": (config(INDEX, scheduler=["diffusers", "DiffusionPipeline"]), "expected a scheduler of"),
    "a component that is text": (config(INDEX, vae="AutoencoderKL"), "'AutoencoderKL' for vae"),
    "a component that is null": (config(INDEX, unet=[None, None]), "names None for unet"),
    "no vocabulary": (without("tokenizer/tokenizer.json"), "tokenizer has no vocabulary"),
    "empty vocabulary": (text("tokenizer/tokenizer.json", "{}"), "cannot load the pipeline"),
    "unknown prediction": (config(SCHEDULER, prediction_type="velvet"), "prediction type 'velvet' is not supported"),
    "unknown noise": (config(SCHEDULER, beta_schedule="velvet"), "cannot load the pipeline .*velvet"),
    "noise that is no number": (config(SCHEDULER, beta_start=float("nan")), r"noise levels are not in \[0,1\]"),
    "noise that falls": (config(SCHEDULER, beta_start=-0.1, beta_schedule="linear"), "noise levels"),
    "flow matching": (
        text(SCHEDULER, '{"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}'),
        r"states no beta_schedule \('FlowMatchEulerDiscreteScheduler'\); models of flow matching",
    ),
    "EDM": (
        text(SCHEDULER, '{"_class_name": "EDMEulerScheduler", "prediction_type": "epsilon", "sigma_data": 0.5}'),
        "states no beta_schedule .*EDM and consistency are not supported",
    ),
    "flow through betas": (config(SCHEDULER, use_flow_sigmas=True), "states no betas in use"),
    "no first beta": (config(SCHEDULER, beta_start=None), "states no beta_start .*write the beta_start, beta_end and"),
    "no betas at all": (text(SCHEDULER, "{}"), "states no beta_schedule"),
    "steps that are text": (config(SCHEDULER, num_train_timesteps="many"), "num_train_timesteps is 'many'; expected"),
    "steps without end": (config(SCHEDULER, num_train_timesteps=10**9), "num_train_timesteps is 1000000000"),
    "no scale": (config("vae/config.json", scaling_factor=0), "scaling_factor is 0; expected a number above 0"),
    "scale that is no number": (config("vae/config.json", scaling_factor=float("nan")), "scaling_factor is nan"),
    "a shift": (config("vae/config.json", shift_factor=0.1), "autoencoder has a shift_factor"),
    "guidance as an input": (conditioned(time_cond_proj_dim=8), "time_cond_proj_dim is 8: .*latent consistency"),
    "two transformers in a row": (config("unet/config.json", dual_cross_attention=True), "dual_cross_attention is T"),
    "no self-attention": (config("unet/config.json", only_cross_attention=True), "only_cross_attention is True; the"),
    "no self-attention below": (
        config("unet/config.json", only_cross_attention=[False, True, False, False]), "only_cross_attention is",
    ),
    "normalised texts": (config("unet/config.json", cross_attention_norm="layer_norm"), "cross_attention_norm is"),
    "boxes beside the text": (config("unet/config.json", attention_type="gated"), "attention_type is 'gated'"),
    "blocks of another attention": (
        config("unet/config.json", up_block_types=["UpBlock2D", *["SimpleCrossAttnUpBlock2D"] * 3]),
        "up_block_types has 'SimpleCrossAttnUpBlock2D', which",
    ),
    "a LoRA in the denoiser": (
        change(UNET, lambda weights: weights.update({"mid.lora_A.weight": torch.zeros(2, 2)})),
        r"/unet holds weights that its network does not take: mid\.lora_A\.weight \(1 in all\); merge a LoRA",
    ),
    "five keys too many": (
        change(VAE, lambda weights: weights.update({f"more.{at}": torch.zeros(1) for at in range(5)})),
        r"does not take: more\.0, more\.1, more\.2, … \(5 in all\)",
    ),
    "a LoRA beside the parts": (text("pytorch_lora_weights.safetensors", ""), "is a LoRA, which would not act; name"),
    "no size": (config("unet/config.json", sample_size=None), "sample_size is None; expected a whole number"),
    "negative size": (config("unet/config.json", sample_size=-1), "sample_size is -1"),
}  # fmt: skip


LATER = {
    *("eight channels", "variance too", "class embeddings", "timestep classes", "guidance as an input"),
    *("negative size", "scale that is no number", "noise that falls", "unknown noise", "five keys too many"),
    *("no configuration", "other width of vae", "boxes beside the text", "normalised texts"),
}
"""Cases that another one of the fast tier is nearly the same as."""


@pytest.mark.parametrize("case", fast_where(lambda case: case not in LATER, CASES))
def test_a_folder_that_cannot_be_used_is_refused_in_a_line(folder: Path, case: str) -> None:
    spoil, expected = CASES[case]
    spoil(folder)
    assert re.search(expected, complaint(folder))


@pytest.mark.parametrize(
    ("file", "pickled"),
    [
        (UNET, "diffusion_pytorch_model.bin"),
        (VAE, "diffusion_pytorch_model.bin"),
        (TEXT, "pytorch_model.bin"),
        (UNET, "diffusion_pytorch_model.safetensors"),
    ],
)
@pytest.mark.parametrize("archive", [False, True], ids=["pickle", "archive"])
def test_a_pickle_is_never_opened(folder: Path, marker: Path, file: str, pickled: str, archive: bool) -> None:
    (folder / file).unlink()
    plant_pickle((folder / file).with_name(pickled), marker, archive)
    message = complaint(folder)
    assert "safetensors" in message
    assert pickled.endswith("safetensors") or f"pickles such as {pickled} are never opened" in message
    assert not marker.exists()


def test_a_pickle_beside_the_weights_is_left_alone(folder: Path, marker: Path) -> None:
    plant_pickle(folder / "unet" / "diffusion_pytorch_model.bin", marker)
    assert stable_diffusion.load_stable_diffusion(str(folder)).suggested_size == 64
    assert not marker.exists()


CODE: dict[str, tuple[str, dict[str, dict[str, Any]], str]] = {
    "component": ("my_module.py", {INDEX: {"unet": ["my_module", "Evil"]}}, r"\['my_module', 'Evil'\] for unet; only"),
    "component in its folder": ("unet/my_module.py", {INDEX: {"unet": ["my_module", "Evil"]}}, "never run"),
    "safety checker": ("my_module.py", {INDEX: {"safety_checker": ["my_module", "Evil"]}}, "for safety_checker"),
    "further component": ("my_module.py", {INDEX: {"watermark": ["my_module", "Evil"]}}, "for watermark"),
    "pipeline class": ("pipeline.py", {INDEX: {"_class_name": ["pipeline", "Evil"]}}, "a pipeline class of its own"),
    "custom pipeline": ("pipeline.py", {INDEX: {"custom_pipeline": "pipeline"}}, "a pipeline class of its own"),
    "code that nobody names": ("unet/unet.py", {}, r"unet/unet\.py is code, which is never run; take it out"),
    "auto_map of the text encoder": (
        "text_encoder/my_module.py", {"text_encoder/config.json": {"auto_map": {"AutoModel": "my_module.Evil"}}},
        "never run",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CODE)
def test_code_that_comes_with_a_pipeline_is_never_run(
    folder: Path, marker: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    file, changes, expected = CODE[case]
    monkeypatch.syspath_prepend(folder)
    plant_module(folder / file, marker)
    for name, values in changes.items():
        edit_json(folder / name, **values)
    assert re.search(expected, complaint(folder))
    assert not marker.exists()


@pytest.mark.parametrize("file", ["tokenizer/tokenizer_config.json", "text_encoder/config.json"])
def test_an_auto_map_is_refused_without_its_code_too(folder: Path, file: str) -> None:
    edit_json(folder / file, auto_map={"AutoModel": "somebody/repository--my_module.Evil"})
    assert "asks to run code of its own (auto_map)" in complaint(folder)


@pytest.mark.parametrize("name", ["/etc/passwd", "../unet.safetensors", "", 3, None])
def test_shards_stay_in_their_folder(folder: Path, name: object) -> None:
    (folder / UNET).rename(folder / "unet.safetensors")
    index = {"metadata": {}, "weight_map": {"conv_in.weight": name}}
    (folder / f"{UNET}.index.json").write_text(json.dumps(index))
    assert "must name files beside it in weight_map" in complaint(folder)


def test_a_device_in_place_of_a_configuration_is_not_read(folder: Path) -> None:
    (folder / "unet" / "config.json").unlink()
    (folder / "unet" / "config.json").symlink_to("/dev/zero")
    assert "there is no file" in complaint(folder)


def test_a_vocabulary_of_another_model(folder: Path) -> None:
    key = "embeddings.token_embedding.weight"
    change(TEXT, lambda weights: weights.update({key: weights[key][:100].clone()}))(folder)
    edit_json(folder / "text_encoder" / "config.json", vocab_size=100, bos_token_id=1, eos_token_id=2, pad_token_id=2)
    assert "counts tokens up to 599 but the text encoder knows 100" in complaint(folder)


@pytest.mark.parametrize("names", ["x" * 500, "a\0b", "[bold]x[/bold]", "\x1b[31m", "a/b/c/d"], ids=ascii)
def test_a_name_that_nothing_can_have(names: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r"^cannot load the pipeline "):
        stable_diffusion.load_stable_diffusion(names)


def test_more_steps_than_the_model_knows(folder: Path) -> None:
    edit_json(folder / SCHEDULER, num_train_timesteps=10)
    with pytest.raises(ModelError, match=r"a schedule of 20 steps is too long: .* was trained with 10$"):
        stable_diffusion.load_stable_diffusion(str(folder)).noise_schedule(20, 5)


@torch.no_grad()
def noise(pipeline: StableDiffusion) -> Tensor:
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    return pipeline.denoise(latents, 201, pipeline.embed(["snowman"])).output


@pytest.mark.parametrize("variant", fast_first(["fp16", None]))
def test_half_precision_is_computed_in_full(tmp_path: Path, variant: str | None) -> None:
    tiny_pipeline(size=64).to(torch.float16).save_pretrained(tmp_path, variant=variant)
    assert (tmp_path / "unet" / "diffusion_pytorch_model.fp16.safetensors").exists() == bool(variant)
    loaded = stable_diffusion.load_stable_diffusion(str(tmp_path))
    assert next(loaded.unet.parameters()).dtype == next(loaded.vae.parameters()).dtype == torch.float32
    expected = tiny_pipeline(size=64).to(torch.float16).to(torch.float32)
    torch.testing.assert_close(noise(loaded), noise(stable_diffusion.StableDiffusion(expected, "tiny")))


def varied(*variants: str, shard: str | None = None) -> Spoil:
    """Files of all networks under the names of ``variants`` alone, in shards of the size ``shard``."""

    def spoil(folder: Path) -> None:
        for file in (UNET, VAE, TEXT):
            for variant in variants if shard is None else ():
                path = folder / file
                shutil.copy(path, path.with_name(f"{path.stem}.{variant}.safetensors"))
            (folder / file).unlink()
        for variant in variants if shard else ():
            tiny_pipeline(size=64).save_pretrained(folder, variant=variant, max_shard_size=shard)

    return spoil


@pytest.mark.parametrize(
    ("variant", "shard"), fast_first([("fp16", "30KB"), ("bf16", None), ("fp32", None), ("non_ema", "30KB")])
)
def test_the_only_variant_is_loaded(folder: Path, variant: str, shard: str | None) -> None:
    varied(variant, shard=shard)(folder)
    assert len(list((folder / "unet").glob("*.safetensors"))) == 1 or shard
    torch.testing.assert_close(
        noise(stable_diffusion.load_stable_diffusion(str(folder))),
        noise(stable_diffusion.StableDiffusion(tiny_pipeline(size=64), "")),
    )


def test_of_several_variants_one_is_chosen_behind_the_name(folder: Path) -> None:
    varied("fp16", "bf16")(folder)
    weights = folder / "unet" / "diffusion_pytorch_model.bf16.safetensors"
    changed = {key: value / 2 for key, value in load(weights.read_bytes()).items()}
    save_file(changed, weights)
    assert "in the variants bf16 and fp16; choose one behind the pipeline's name, as in FOLDER,variant=" in complaint(
        folder
    )
    half, full = (stable_diffusion.load_stable_diffusion(f"{folder},variant={variant}") for variant in ("bf16", "fp16"))
    assert half.unet.conv_in.weight.equal(full.unet.conv_in.weight / 2)
    assert half.name == f"{folder},variant=bf16"


def test_a_variant_of_one_network_goes_with_the_plain_files_of_the_others(folder: Path) -> None:
    weights = {key: value / 2 for key, value in load((folder / UNET).read_bytes()).items()}
    save_file(weights, folder / "unet" / "diffusion_pytorch_model.non_ema.safetensors")
    loaded = stable_diffusion.load_stable_diffusion(f"{folder},variant=non_ema")
    assert loaded.unet.conv_in.weight.equal(weights["conv_in.weight"])
    assert not stable_diffusion.load_stable_diffusion(str(folder)).unet.conv_in.weight.equal(weights["conv_in.weight"])
    with pytest.raises(ModelError, match="holds no weights of the variant 'fp16'; leave"):
        stable_diffusion.load_stable_diffusion(f"{folder},variant=fp16")
    with pytest.raises(ModelError, match="'' is no variant of weights"):
        stable_diffusion.load_stable_diffusion(f"{folder},variant=")


def test_weights_under_another_name_are_named(folder: Path) -> None:
    (folder / UNET).rename(folder / "unet" / "model.safetensors")
    assert "unet has no diffusion_pytorch_model.safetensors; model.safetensors is not a name" in complaint(folder)


def test_the_rest_of_a_clip_beside_its_text_encoder_is_left_alone(folder: Path) -> None:
    more = {"text_projection.weight": torch.zeros(2, 2), "vision_model.class_embedding": torch.zeros(2)}
    change(TEXT, lambda weights: weights.update(more))(folder)
    assert stable_diffusion.load_stable_diffusion(str(folder)).suggested_size == 64


@pytest.mark.parametrize("name", ["./nope", "../nope", "/nope/sd", "~/sd", "a/b/c", "models/sd2", "sd 1.5", "sd\\v1"])
def test_a_folder_that_does_not_exist_is_not_asked_for_at_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "models").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hub, "HfApi", None)
    with pytest.raises(ModelError, match=r"cannot load the pipeline .*: there is no such folder; give a folder"):
        stable_diffusion.load_stable_diffusion(name)


class Hub:
    """The hub as ``model_info`` meets it."""

    def __init__(self, error: Exception) -> None:
        self.error, self.asked = error, 0

    def model_info(self, name: str, timeout: float) -> None:
        assert timeout <= 10
        self.asked += 1
        raise self.error


@pytest.mark.parametrize("name", ["nobody/nothing", "nothing"])
def test_a_hub_that_does_not_answer_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    empty_hubs(tmp_path, monkeypatch)
    silent = Hub(ConnectionError("Name or service not known"))
    monkeypatch.setattr(hub, "HfApi", lambda: silent)
    with pytest.raises(
        ModelError, match=rf"^cannot load the pipeline {name}: .* cannot be reached \(Name or .* give a"
    ):
        stable_diffusion.load_stable_diffusion(name)
    assert silent.asked == 1


def old_texts(weights: dict[str, Tensor]) -> None:
    """As the text encoders of Stable Diffusion 1.x and 2.x were published."""
    for key in list(weights):
        weights[f"text_model.{key}"] = weights.pop(key)
    weights["text_model.embeddings.position_ids"] = torch.arange(24)[None]


def old_images(weights: dict[str, Tensor]) -> None:
    """As the autoencoders were."""
    new = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    for key in [key for key in weights if "attentions" in key]:
        renamed = key
        for part, old in new.items():
            renamed = renamed.replace(f".{part}.", f".{old}.")
        weights[renamed] = weights.pop(key)


def test_names_that_published_weights_have_are_understood(folder: Path, pipeline_folder: Path) -> None:
    change(VAE, old_images)(folder)
    change(TEXT, old_texts)(folder)
    assert "decoder.mid_block.attentions.0.query.weight" in load((folder / VAE).read_bytes())
    loaded, expected = (
        stable_diffusion.load_stable_diffusion(str(folder)),
        stable_diffusion.load_stable_diffusion(str(pipeline_folder)),
    )
    for part in ("vae", "text_encoder"):
        weights = getattr(expected, part).state_dict()
        torch.testing.assert_close(dict(getattr(loaded, part).state_dict()), dict(weights), rtol=0, atol=0)
