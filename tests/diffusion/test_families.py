"""Every family of backbones, on tiny pipelines with random weights, against the code of diffusers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from attnshift.attention.maps import of_share
from attnshift.attention.projections import phrase_shares, queries_and_keys
from attnshift.attention.selection import Selection
from attnshift.batching import select_rows
from attnshift.diffusion import load_pipeline
from attnshift.diffusion.backbone import Backbone, Probe, Read
from attnshift.diffusion.denoising import InterferenceText, denoise, predict
from attnshift.diffusion.inversion import invert
from attnshift.diffusion.low_rank import Projecting
from attnshift.diffusion.reconstruction import Offset
from attnshift.errors import ModelError
from attnshift.sizes import Size
from attnshift.testing.backbones import BACKBONE_CHECKS
from attnshift.types import MassShare
from families import FAMILIES, SIDE, TOKENS, backbone_of, flux, lcm, sd3, sdxl
from pipelines import tiny_pipeline
from tiers import fast_first

PROMPTS = ("a photo of a red ball", "a mug on the tree")
WIDE = Size(SIDE, SIDE + SIDE // 2)
JOINT = [name for name in FAMILIES if name.startswith(("sd3", "flux"))]


def images(count: int = 2) -> Tensor:
    return torch.rand(count, 3, *WIDE, generator=torch.Generator().manual_seed(0))


def latents_of(backbone: Backbone) -> Tensor:
    with torch.no_grad():
        return backbone.encode(images())


def probe_of(states: Tensor, span: tuple[int, ...]) -> Probe:
    at = torch.tensor([span] * len(states))
    return Probe(states[:, list(span)], at)


@pytest.mark.heavy
@pytest.mark.parametrize("family", ["sd3 medium without t5", "flux schnell"])
@pytest.mark.parametrize("check", BACKBONE_CHECKS, ids=lambda check: check.__name__)
def test_contract(check: Any, family: str) -> None:
    check(backbone_of(family))


@pytest.mark.parametrize("family", fast_first(sorted(FAMILIES)))
def test_the_offset_path_ends_at_the_image_and_passes_a_gradient(family: str) -> None:
    backbone = backbone_of(family)
    schedule = backbone.noise_schedule(8, 3, WIDE)
    latents = latents_of(backbone)
    with torch.no_grad():
        text, empty = backbone.embed(PROMPTS), backbone.embed(["", ""])
    stored = invert(backbone, schedule, latents, empty, "aligned")
    made = Offset()(backbone, schedule, stored, text, empty, 2.0 if backbone.guided else 1.0)
    start = made.start.requires_grad_()
    final, _ = denoise(backbone, made, start, checkpointing=True)
    torch.testing.assert_close(final.detach(), latents, rtol=1e-4, atol=1e-4)
    (gradient,) = torch.autograd.grad(final.square().sum(), start)
    assert (gradient.flatten(1).norm(dim=1) > 0).all()


@pytest.mark.parametrize("family", fast_first(FAMILIES))
def test_a_row_of_a_batch_is_told_what_it_is_told_alone(family: str) -> None:
    backbone = backbone_of(family)
    schedule, latents = backbone.noise_schedule(8, 3, WIDE), latents_of(backbone)
    with torch.no_grad():
        text = backbone.embed(PROMPTS)
        both = backbone.denoise(latents, schedule.timesteps[0], text).output
        alone = backbone.denoise(latents[1:], schedule.timesteps[0], select_rows(text, torch.tensor([1]))).output
    torch.testing.assert_close(both[1:], alone, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_sdxl_tells_its_denoiser_what_the_pipeline_tells_it() -> None:
    pipeline, backbone = sdxl(), backbone_of("sdxl")
    states, empty, pooled, no_text = pipeline.encode_prompt(list(PROMPTS), device=torch.device("cpu"))
    text, nothing = backbone.embed(PROMPTS), backbone.embed(["", ""])
    for found, expected in ((text, (states, pooled)), (nothing, (empty, no_text))):
        torch.testing.assert_close(found.states, expected[0])
        torch.testing.assert_close(found.pooled, expected[1])
    assert not nothing.states.any()
    latents = latents_of(backbone)
    ids = torch.tensor([[*WIDE, 0, 0, *WIDE]] * 2)
    expected = pipeline.unet(
        latents, 201, encoder_hidden_states=states, added_cond_kwargs={"text_embeds": pooled, "time_ids": ids}
    ).sample
    torch.testing.assert_close(backbone.denoise(latents, 201, text).output, expected)


@torch.no_grad()
def test_sdxl_encodes_the_empty_prompt_where_the_pipeline_says_so() -> None:
    from attnshift.diffusion.sdxl import StableDiffusionXL

    assert StableDiffusionXL(sdxl(zeros=False), "plain").embed([""]).states.any()


def test_a_distilled_sdxl_keeps_its_trailing_levels() -> None:
    from attnshift.diffusion.sdxl import StableDiffusionXL

    few = StableDiffusionXL(sdxl(spacing="trailing"), "turbo").noise_schedule(4, 4)
    assert few.timesteps == (999, 749, 499, 249)
    assert backbone_of("sdxl").noise_schedule(20, 5).timesteps == (201, 151, 101, 51, 1)


@torch.no_grad()
def test_a_consistency_model_is_told_what_the_pipeline_tells_it_and_where() -> None:
    """A run of its pipeline in one step, from given noise."""
    pipeline, backbone = lcm(), backbone_of("lcm")
    noise = torch.randn(2, 4, *backbone.latent_size(WIDE), generator=torch.Generator().manual_seed(0))
    pipeline.set_progress_bar_config(disable=True)
    expected = pipeline(
        list(PROMPTS), height=WIDE.rows, width=WIDE.columns, num_inference_steps=1, latents=noise, output_type="latent"
    ).images
    whole, text = backbone.noise_schedule(1, 1), backbone.embed(PROMPTS)
    found = whole.step(noise, backbone.denoise(noise, whole.timesteps[0], text).output, 0)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    # Levels that it was distilled at, as its own scheduler picks them.
    assert backbone.noise_schedule(4, 2).timesteps == (499, 259)
    with pytest.raises(ModelError, match="a schedule of 51 steps is too long: lcm was trained with 50"):
        backbone.noise_schedule(51, 2)


def test_a_distilled_stable_diffusion_keeps_its_trailing_levels() -> None:
    from attnshift.diffusion.stable_diffusion import StableDiffusion

    made = tiny_pipeline(size=SIDE)
    before = StableDiffusion(made, "plain").noise_schedule(4, 4)
    made.scheduler = made.scheduler.from_config(made.scheduler.config, timestep_spacing="trailing")
    few = StableDiffusion(made, "turbo").noise_schedule(4, 4)
    assert before.timesteps == (751, 501, 251, 1)
    assert few.timesteps == (999, 749, 499, 249)


@pytest.mark.parametrize("family", ["sd3", "sd3 medium without t5"])
@torch.no_grad()
def test_sd3_predicts_what_the_pipeline_predicts(family: str) -> None:
    pipeline, backbone = FAMILIES[family](), backbone_of(family)
    length = TOKENS if backbone.streams == ("clip", "t5") else 256
    states, _, pooled, _ = pipeline.encode_prompt(
        list(PROMPTS), None, None, device=torch.device("cpu"), max_sequence_length=length
    )
    text, latents = backbone.embed(PROMPTS), latents_of(backbone)
    torch.testing.assert_close(text.states, states)
    torch.testing.assert_close(text.pooled, pooled)
    pipeline.scheduler.set_timesteps(8)
    schedule = backbone.noise_schedule(8, 3, WIDE)
    torch.testing.assert_close(torch.tensor(schedule.timesteps), pipeline.scheduler.timesteps[-3:])
    torch.testing.assert_close(torch.tensor(schedule.levels), pipeline.scheduler.sigmas[-4:])
    time = torch.full((2,), schedule.timesteps[0])
    expected = pipeline.transformer(
        latents, timestep=time, encoder_hidden_states=states, pooled_projections=pooled
    ).sample
    torch.testing.assert_close(backbone.denoise(latents, schedule.timesteps[0], text).output, expected)


@pytest.mark.parametrize("dev", [True, False])
@torch.no_grad()
def test_flux_predicts_what_the_pipeline_predicts(dev: bool) -> None:
    """A whole run of the pipeline from given noise ends where the steps of the schedule end."""
    pipeline, backbone = flux(dev), backbone_of("flux dev" if dev else "flux schnell")
    noise = torch.randn(2, 4, *backbone.latent_size(WIDE), generator=torch.Generator().manual_seed(0))
    packed = pipeline._pack_latents(noise, 2, 4, *noise.shape[2:])
    pipeline.set_progress_bar_config(disable=True)
    expected = pipeline(
        list(PROMPTS), height=WIDE.rows, width=WIDE.columns, num_inference_steps=3, latents=packed,
        output_type="latent", max_sequence_length=TOKENS,
    ).images  # fmt: skip
    schedule, text, found = backbone.noise_schedule(3, 3, WIDE), backbone.embed(PROMPTS), noise
    assert schedule.levels[0] == 1
    for index, timestep in enumerate(schedule.timesteps):
        found = schedule.step(found, backbone.denoise(found, timestep, text).output, index)
    expected = pipeline._unpack_latents(expected, *WIDE, pipeline.vae_scale_factor)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", fast_first(JOINT, 3))
@torch.no_grad()
def test_joint_maps_are_those_of_the_one_softmax(family: str) -> None:
    """Queries and keys as the fused kernel gets them; the image's rows, at the text's columns and at the image's."""
    backbone = backbone_of(family)
    latents, text = latents_of(backbone), backbone.embed(PROMPTS)
    sites, given = [site.mapped() for site in backbone.sites(WIDE)], []
    kernel = torch.nn.functional.scaled_dot_product_attention

    def caught(query: Tensor, key: Tensor, value: Tensor, *rest: Any, **options: Any) -> Tensor:
        given.append((query, key))
        return kernel(query, key, value, *rest, **options)

    torch.nn.functional.scaled_dot_product_attention = caught
    try:
        plain = backbone.denoise(latents, 300.0, text).output
    finally:
        torch.nn.functional.scaled_dot_product_attention = kernel
    read = backbone.denoise(latents, 300.0, text, [Read(site, slice(1, 2)) for site in sites])
    torch.testing.assert_close(read.output, plain, rtol=1e-4, atol=1e-5)
    layers = list(dict.fromkeys(site.layer for site in sites))
    assert len(layers) == len(given)
    tokens, count = text.states.shape[1], backbone.latent_size(WIDE).shrunk(2).area
    text_first = family.startswith("flux")
    for layer, (query, key) in zip(layers, given, strict=True):
        masses = (query @ key.mT / query.shape[-1] ** 0.5).softmax(-1)[1:]
        alone = masses.shape[-1] == count
        image = slice(tokens, None) if text_first and not alone else slice(0, count)
        words = slice(0, tokens) if text_first else slice(count, None)
        for site in (each for each in sites if each.layer == layer):
            assert site.joint is not alone
            columns = words if site.kind == "cross" else image
            torch.testing.assert_close(read.attention[site], masses[:, :, image, columns], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("family", ["sd3", "flux dev"])
@torch.no_grad()
def test_a_joint_probe_meets_the_phrase_as_it_stands_in_its_own_prompt(family: str) -> None:
    """Where the two prompts are one, the phrase's keys are those of its own tokens, each met twice."""
    backbone = backbone_of(family)
    latents, texts = latents_of(backbone), backbone.embed(PROMPTS[:1] * 2)
    span = backbone.locate(PROMPTS[0], "red ball")
    probe = probe_of(texts.states, span)
    sites = [site for site in backbone.sites(WIDE) if site.kind == "cross"]
    probes = [site.seen("probe") for site in sites]
    told = InterferenceText(texts, probe)
    plain = backbone.denoise(latents, 300.0, texts)
    found = predict(backbone, latents, 300.0, [texts], [*sites, *probes], told)
    torch.testing.assert_close(found.output[:2], plain.output, rtol=1e-4, atol=1e-5)
    tokens = texts.states.shape[1]
    for site, seen in zip(sites, probes, strict=True):
        own = phrase_shares(site, found.attention[site], range(tokens), "whole")
        both = phrase_shares(seen, found.attention[seen], range(tokens + len(span)), "whole")
        torch.testing.assert_close(both[..., tokens:], both[..., list(span)], rtol=1e-4, atol=1e-6)
        shares = own / (1 + own[..., list(span)].sum(-1, keepdim=True))
        torch.testing.assert_close(both[..., :tokens], shares, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("family", fast_first(JOINT))
@pytest.mark.parametrize("share", ["part", "whole"])
@torch.no_grad()
def test_columns_of_a_phrase_are_those_of_the_map(family: str, share: MassShare) -> None:
    backbone = backbone_of(family)
    site = next(each for each in backbone.sites(WIDE) if each.kind == "cross")
    found = backbone.denoise(latents_of(backbone), 300.0, backbone.embed(PROMPTS), [Read(site), Read(site.mapped())])
    expected = of_share(found.attention[site.mapped()], site, share)[..., [7, 2]]
    torch.testing.assert_close(phrase_shares(site, found.attention[site], (7, 2), share), expected)


@pytest.mark.parametrize("family", fast_first(JOINT))
@torch.no_grad()
def test_projections_give_the_shares_of_the_images_part(family: str) -> None:
    backbone = backbone_of(family)
    site = next(each for each in backbone.sites(WIDE) if each.kind == "self" and each.joint)
    latents, text = latents_of(backbone), backbone.embed(PROMPTS)
    found = backbone.denoise(latents, 300.0, text, [Read(site), Read(site.projected())])
    plain = backbone.denoise(latents, 300.0, text)
    torch.testing.assert_close(found.output, plain.output, rtol=1e-4, atol=1e-5)
    whole, held = found.attention[site], found.attention[site.projected()]
    assert of_share(whole, site, "whole") is whole
    assert float(whole.sum(-1).max()) < 1
    queries, keys = queries_and_keys(site, held)
    expected = (queries @ keys.mT / queries.shape[-1] ** 0.5).softmax(-1)
    torch.testing.assert_close(of_share(whole, site, "part"), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_projections_are_linear_layers_of_every_module(family: str) -> None:
    backbone = backbone_of(family)
    assert isinstance(backbone, Projecting)
    layers, found = {site.layer for site in backbone.sites(SIDE)}, backbone.projections()
    assert {name.rpartition(".to_")[0] for name in found} == layers
    assert all(isinstance(each, torch.nn.Linear) for each in found.values())


def test_phrases_stand_in_every_stream() -> None:
    prompt, backbone = "a photo of a snowman", backbone_of("sd3")
    clip, t5 = (backbone.locate(prompt, "snowman", stream=stream) for stream in ("clip", "t5"))
    assert clip == (5, 6)
    assert t5 == (TOKENS + 4, TOKENS + 5)
    assert backbone.locate(prompt, "snowman") == (*clip, *t5)
    assert backbone_of("sd3 medium without t5").locate(prompt, "snowman") == clip
    assert backbone_of("flux dev").locate(prompt, "snowman") == (4, 5)
    with pytest.raises(ModelError, match=r"prompt\.stream is 'clip', and flux dev reads texts as t5"):
        backbone_of("flux dev").locate(prompt, "snowman", stream="clip")


def test_a_transformer_has_thirds_and_one_grid() -> None:
    sites = backbone_of("sd3").sites(SIDE)
    assert [(site.place, site.grid.rows) for site in sites if site.kind == "cross"] == [
        ("down", 4),
        ("mid", 4),
        ("up", 4),
    ]
    assert [site.place for site in backbone_of("flux dev").sites(SIDE) if site.kind == "self"] == [
        "down", "down", "mid", "up",
    ]  # fmt: skip
    extra = [site for site in backbone_of("sd3 medium without t5").sites(SIDE) if site.layer.endswith("attn2")]
    assert [(site.layer, site.joint, site.kind) for site in extra] == [("transformer_blocks.0.attn2", False, "self")]
    assert len(Selection(places=("down",)).sites(sites, "cross", 8)) == 1


def test_released_encoders_are_loaded_again_when_a_prompt_comes() -> None:
    from attnshift.diffusion.sd3 import StableDiffusion3

    loaded: list[int] = []

    def again() -> dict[str, torch.nn.Module]:
        loaded.append(1)
        made = sd3()
        return {part: getattr(made, part) for part in ("text_encoder", "text_encoder_2", "text_encoder_3")}

    backbone = StableDiffusion3(sd3(), "released", again)
    before = backbone.embed(PROMPTS)
    backbone.release_texts()
    backbone.locate(PROMPTS[0], "red ball")
    assert not loaded
    after = backbone.embed(PROMPTS)
    assert torch.equal(before.states, after.states)
    assert len(loaded) == 1


def test_levels_of_flux_dev_are_shifted_by_the_image_size() -> None:
    backbone = backbone_of("flux dev")
    small, large = (backbone.noise_schedule(10, 5, side).levels for side in (256, 1024))
    assert all(low < high for low, high in zip(small[:-1], large[:-1], strict=True))
    plain = backbone_of("flux schnell")
    assert plain.noise_schedule(4, 4, 256).levels == plain.noise_schedule(4, 4, 1024).levels == (1, 0.75, 0.5, 0.25, 0)


def test_a_folder_may_be_called_like_a_backbone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sdxl").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=r"^sdxl is not a diffusers pipeline"):
        load_pipeline("sdxl")


@pytest.mark.heavy
@pytest.mark.parametrize("family", ["sdxl", "sd3", "flux dev"])
@pytest.mark.parametrize("variant", ["fp16", "bf16"])
def test_variants_in_shards_are_the_weights_of_the_plain_files(family: str, variant: str, tmp_path: Path) -> None:
    made = FAMILIES[family]().to({"fp16": torch.float16, "bf16": torch.bfloat16}[variant])
    made.save_pretrained(tmp_path / "plain", safe_serialization=True)
    made.save_pretrained(tmp_path / "parted", variant=variant, safe_serialization=True, max_shard_size="30KB")
    assert len(list((tmp_path / "parted").glob(f"*/*.{variant}-00001-of-*.safetensors"))) > 1
    plain, parted = (load_pipeline(f"{tmp_path}/{name}") for name in ("plain", f"parted,variant={variant}"))
    assert plain.fingerprint() == parted.fingerprint()
    parted.release_texts()
    assert plain.fingerprint() == parted.fingerprint()
