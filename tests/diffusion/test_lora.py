"""LoRAs of others: added exactly, part of the fingerprint, and refused in one line where they do not fit."""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from attnshift.diffusion import check_pipeline_name, load_pipeline
from attnshift.diffusion.names import Lora
from attnshift.errors import ModelError
from families import FAMILIES
from later import later
from loras import ALPHA, LAYOUTS, RANK, Pairs, kohya, layers_of, pairs_of, peft, save
from pipelines import tiny_pipeline
from tiers import fast_where

if TYPE_CHECKING:
    from attnshift.diffusion.lora import LoraPairs

lora = later("attnshift.diffusion.lora")

KINDS = {"stable diffusion": lambda: tiny_pipeline(size=64), **FAMILIES}
ATTENTION = (".to_q", ".to_k", ".to_v", ".to_out.0")
CLIP = (".q_proj", ".k_proj", ".v_proj", ".out_proj", ".fc1", ".fc2")


def layout_of(family: str) -> Any:
    module = {"stable": "stable_diffusion"}.get(family.split()[0], family.split()[0])
    return importlib.import_module(f"attnshift.diffusion.{module}")._LAYOUT


def networks_of(family: str) -> dict[str, nn.Module]:
    pipeline = KINDS[family]()
    return {part: getattr(pipeline, part) for part in layout_of(family).networks if getattr(pipeline, part) is not None}


def some_layers(family: str, networks: dict[str, nn.Module]) -> list[tuple[str, str]]:
    """All of a U-Net, attention of a transformer, the usual layers of one CLIP and two kinds of them of another."""
    denoiser = layout_of(family).denoiser
    made = [*layers_of(denoiser, networks[denoiser], () if denoiser == "unet" else ATTENTION)]
    for part, kinds in (("text_encoder", CLIP), ("text_encoder_2", (".q_proj", ".v_proj", "text_projection"))):
        if "CLIP" in type(networks.get(part)).__name__:
            made += layers_of(part, networks[part], kinds)
    return made


def read(path: Path, family: str, networks: dict[str, nn.Module], scale: float = 1.0) -> LoraPairs:
    return lora.read_loras([Lora(str(path), scale)], layout_of(family), networks.__getitem__)


def weight(networks: dict[str, nn.Module], part: str, layer: str) -> Tensor:
    return networks[part].get_parameter(f"{layer}.weight").detach().double().clone()


def check_fused(path: Path, family: str, expected: Pairs, factor: float) -> None:
    """``path`` changes the layers that are ``expected``, and those alone, by their products times ``factor``."""
    networks = {part: network.double() for part, network in networks_of(family).items()}
    before = {key: weight(networks, *key) for key in expected}
    changes = read(path, family, networks, 0.7)
    assert {(part, layer) for part, some in changes.items() for layer in some} == set(expected)
    for part, some in changes.items():
        lora.fuse(networks[part], some)
    for key, (up, down) in expected.items():
        product = (up.double().flatten(1) @ down.double().flatten(1)).view_as(before[key])
        torch.testing.assert_close(weight(networks, *key), before[key] + 0.7 * factor * product, rtol=1e-12, atol=1e-12)


CASES = [
    (family, layout)
    for family in KINDS
    for layout in LAYOUTS
    # diffusers reads no file of kohya's for SD3, and those for Flux have names of their own.
    if not (layout == "kohya" and family.startswith(("sd3", "flux")))
]
FAST = [("stable diffusion", "kohya"), ("sd3", "peft")]


@pytest.mark.parametrize(("family", "layout"), fast_where(FAST.__contains__, CASES))
def test_fused_weights_are_those_of_the_pipeline_plus_the_product(family: str, layout: str, tmp_path: Path) -> None:
    networks = networks_of(family)
    pairs = pairs_of(networks, some_layers(family, networks))
    write, factor = LAYOUTS[layout]
    path = save(tmp_path / "lora.safetensors", write(pairs), networks if layout == "peft" else ())
    check_fused(path, family, pairs, factor)


@pytest.mark.heavy
def test_names_of_the_authors_are_read_for_sdxl(tmp_path: Path) -> None:
    """kohya's scripts count the blocks of SDXL as its authors do."""
    block = "transformer_blocks.0.attn1.to_k"
    layers = {
        f"input_blocks_3_1_{block}": f"down_blocks.1.attentions.0.{block}",
        "middle_block_1_proj_in": "mid_block.attentions.0.proj_in",
        "output_blocks_0_0_in_layers_2": "up_blocks.0.resnets.0.conv1",
    }
    pairs = pairs_of(networks_of("sdxl"), [("unet", layer) for layer in layers.values()])
    renamed = kohya({("unet", name): pairs["unet", layer] for name, layer in layers.items()})
    check_fused(save(tmp_path / "lora.safetensors", renamed), "sdxl", pairs, ALPHA / RANK)


@pytest.mark.parametrize("layout", ["kohya", "xlabs"])
def test_names_of_the_authors_are_read_for_flux(layout: str, tmp_path: Path) -> None:
    """One pair changes queries, keys and values there; alpha counts for kohya's files alone."""
    block = "transformer_blocks.1.attn"
    pairs = pairs_of(networks_of("flux dev"), [("transformer", f"{block}.to_out.0")])
    out = pairs["transformer", f"{block}.to_out.0"]
    up, down = torch.cat([out[0]] * 3), torch.randn(RANK, 32, generator=torch.Generator().manual_seed(1))
    expected = pairs | {("transformer", f"{block}.to_{name}"): (out[0], down) for name in "qkv"}
    tensors = {
        "kohya": kohya({("", "double_blocks.1.img_attn_qkv"): (up, down), ("", "double_blocks.1.img_attn_proj"): out}),
        "xlabs": {
            f"double_blocks.1.processor.{kind}_lora1.{side}.weight": matrix
            for kind, both in (("qkv", (up, down)), ("proj", out))
            for side, matrix in zip(("up", "down"), both, strict=True)
        },
    }[layout]
    path = save(tmp_path / "lora.safetensors", tensors)
    check_fused(path, "flux dev", expected, ALPHA / RANK if layout == "kohya" else 1.0)


def test_several_loras_are_added_in_one_sum() -> None:
    layer = nn.Linear(3, 2).half()
    before = layer.weight.detach().double().clone()
    changes = [
        lora.LoraPair(torch.full((2, 1), value).double(), torch.ones(1, 3).double()) for value in (1e4, 3e-4, -1e4)
    ]
    lora.fuse(nn.ModuleDict({"only": layer}), {"only": changes})
    assert torch.equal(layer.weight, (before + 3e-4).half())


def test_a_change_that_is_too_large_is_refused() -> None:
    change = lora.LoraPair(torch.full((2, 1), 1e60, dtype=torch.float64), torch.ones(1, 3, dtype=torch.float64))
    with pytest.raises(ModelError, match="with the LoRA, only has weights that are not finite; use a smaller scale"):
        lora.fuse(nn.ModuleDict({"only": nn.Linear(3, 2)}), {"only": [change]})


@pytest.fixture
def folder(pipeline_folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(pipeline_folder, tmp_path / "pipeline")


@pytest.fixture(scope="module")
def unet() -> dict[str, nn.Module]:
    return networks_of("stable diffusion")


KEY = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"


def of_one_layer(
    layer: str = KEY, outputs: int = 8, inputs: int = 16, ranks: tuple[int, int] = (2, 2)
) -> dict[str, Tensor]:
    return peft({("unet", layer): (torch.ones(outputs, ranks[0]), torch.ones(ranks[1], inputs))})


GOOD, UP, DOWN = of_one_layer(), f"unet.{KEY}.lora_B.weight", f"unet.{KEY}.lora_A.weight"
FLUX = {("", "double_blocks_0_img_attn_proj"): (torch.ones(32, 2), torch.ones(2, 32))}
UNFIT: dict[str, tuple[dict[str, Tensor], str]] = {
    "a layer that is not there": (
        GOOD | of_one_layer("mid_block.attentions.7.proj_in"),
        r"it changes mid_block\.attentions\.7\.proj_in of unet, which is not there \(1 of 2 such layers\); take a LoRA",
    ),
    "another width": (
        of_one_layer(inputs=24),
        r"its change of .*attn2\.to_k of unet has the shape \(8, 24\), expected \(8, 16\)",
    ),
    "two ranks": (of_one_layer(ranks=(2, 3)), "have the ranks 2 and 3; is it damaged"),
    "half a pair": ({UP: GOOD[UP]}, "holds one of two matrices for .*to_k of unet; is it whole"),
    "a vector": (GOOD | {UP: torch.ones(8)}, "holds a vector for .*; expected two matrices"),
    "alpha alone": (
        GOOD | {"lora_unet_conv_in.alpha": torch.ones(1)},
        r"holds lora_unet_conv_in\.alpha without its two",
    ),
    "DoRA": (
        GOOD | {f"unet.{KEY}.lora_magnitude_vector": torch.ones(8)},
        "1 of 3 entries.*no plain LoRA has; DoRA, LoHa",
    ),
    "LoHa": ({"lora_unet_conv_in.hada_w1_a": torch.ones(2, 2)}, r"holds lora_unet_conv_in\.hada_w1_a \(1 of 1 entries"),
    "a whole model": ({"conv_in.weight": torch.ones(8, 4, 3, 3)}, r"holds conv_in\.weight \(1 of 1 entries"),
    "nothing": ({}, r"holds nothing \(0 of 0 entries"),
    "not finite": (GOOD | {UP: torch.full((8, 2), torch.nan)}, "has values that are not finite"),
    "no numbers": (of_one_layer(ranks=(0, 0)), r"holds no numbers for .*; is it damaged"),
    "one for Flux": (
        kohya(FLUX),
        r"it changes double\.blocks.*, which is not there .*\(Stable Diffusion 1\.x and 2\.x\)",
    ),
    "one for SD3": (
        {key.replace("unet", "transformer"): value for key, value in GOOD.items()},
        r"it changes transformer\.down_blocks.*, which is not there",
    ),
    "names that fall together": (
        kohya({("unet", name): (torch.ones(8, 2), torch.ones(2, 16)) for name in ("xemb_1", "xemb_2")}),
        "only 1 of its 2 changes of the denoiser can be read as a LoRA of Stable Diffusion",
    ),
}


@pytest.mark.parametrize(("tensors", "line"), UNFIT.values(), ids=UNFIT)
def test_what_does_not_fit_is_refused_in_one_line(
    tensors: dict[str, Tensor], line: str, unet: dict[str, nn.Module], tmp_path: Path
) -> None:
    path = save(tmp_path / "lora.safetensors", tensors)
    with pytest.raises(ModelError, match=line) as caught:
        read(path, "stable diffusion", unet)
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_one_for_a_unet_is_refused_by_flux(tmp_path: Path, unet: dict[str, nn.Module]) -> None:
    path = save(tmp_path / "lora.safetensors", kohya(pairs_of(unet, [("unet", KEY)])))
    with pytest.raises(ModelError, match=r"cannot be read as a LoRA of FLUX\.1 dev and schnell \(Incompatible keys"):
        read(path, "flux dev", networks_of("flux dev"))


NAMES = {
    ",lroa=a.safetensors": "lroa is no option behind a name; known are variant, config, lora, scale and weights",
    ",lora=none.safetensors": r"there is no file none\.safetensors; give the path of a \.safetensors file",
    ",lora=style.ckpt": r"style\.ckpt is no \.safetensors file, and LoRAs are read from those alone; pickles are never",
    ",lora=": r"nothing is no \.safetensors file",
    ",lora=.": r"\. is no \.safetensors file, .*; name the file in it",
    ",scale=2": "scale=2 must stand right behind a lora=FILE of its own",
    ",lora=a.safetensors,scale=1,scale=2": "scale=2 must stand right behind",
    ",lora=a.safetensors,scale=much": "scale is 'much'; expected a number, such as 0.8",
    ",lora=a.safetensors,scale=nan": "scale is 'nan'; expected a number",
    ",variant=fp16,variant=bf16": "variant is given twice; give it once",
    ",config=.": r"config goes with a single \.safetensors file",
}


@pytest.mark.parametrize("place", ["lab", "", "sdxl:"])
@pytest.mark.parametrize(("options", "line"), NAMES.items())
def test_options_that_mean_nothing_are_refused_before_torch_is_needed(
    place: str, options: str, line: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=line):
        check_pipeline_name((place if place == "lab" else f"{place}{tmp_path}") + options)


def test_a_lora_is_part_of_the_weights_and_of_the_name(pipeline_folder: Path, tmp_path: Path) -> None:
    path = save(tmp_path / "style.safetensors", GOOD)
    names = [f"{pipeline_folder},lora={path}{behind}" for behind in ("", f",scale=0.5,lora={path},scale=-0.25")]
    whole, quarter = map(load_pipeline, names)
    assert [each.name for each in (whole, quarter)] == names
    plain = load_pipeline(str(pipeline_folder))
    assert len({each.fingerprint() for each in (plain, whole, quarter)}) == 3
    latents, text = torch.ones(1, 4, 8, 8), plain.embed(["a mug"])
    with torch.no_grad():
        assert not torch.allclose(whole.denoise(latents, 500, text).output, plain.denoise(latents, 500, text).output)
    key = f"{KEY}.weight"
    before, one, part = (each.unet.get_parameter(key) for each in (plain, whole, quarter))  # type: ignore[attr-defined]
    torch.testing.assert_close(part - before, (one - before) / 4)


@pytest.mark.heavy
def test_one_in_the_folder_acts_if_it_is_named(folder: Path) -> None:
    path = save(folder / "pytorch_lora_weights.safetensors", GOOD)
    with pytest.raises(ModelError, match=rf"is a LoRA, which would not act; name it .*{folder},lora={path}, or take"):
        load_pipeline(str(folder))
    load_pipeline(f"{folder},lora={path}")


@pytest.mark.heavy
def test_text_encoders_that_are_loaded_again_keep_their_changes(tmp_path: Path) -> None:
    networks = networks_of("sdxl")
    FAMILIES["sdxl"]().save_pretrained(tmp_path / "sdxl", safe_serialization=True)
    pairs = pairs_of(networks, layers_of("text_encoder_2", networks["text_encoder_2"], CLIP))
    path = save(tmp_path / "lora.safetensors", kohya(pairs))
    plain, changed = load_pipeline(f"{tmp_path / 'sdxl'}"), load_pipeline(f"{tmp_path / 'sdxl'},lora={path}")
    before, name = changed.embed(["a mug"]).states, changed.fingerprint()
    assert not torch.allclose(plain.embed(["a mug"]).states, before)
    changed.release_texts()
    assert torch.equal(changed.embed(["a mug"]).states, before)
    assert changed.fingerprint() == name
