"""Training of the lab's flow: a small MM-DiT in Stable Diffusion 3's layout, with its CLIPs.

The autoencoder is that of the lab's first pipeline. There is no T5; as in the pipeline of
diffusers, zeros stand in its place.
"""

# The annotations of diffusers and transformers are narrower than what they accept and return.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportReturnType=false

from __future__ import annotations

import math
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import CLIPTextModelWithProjection, CLIPTokenizer

from attnshift.attention.maps import of_share
from attnshift.diffusion.attention import record_attention
from attnshift.diffusion.backbone import Read
from attnshift.diffusion.flow import Flow
from attnshift.diffusion.joint import JointRecorder, joint_sites
from attnshift.diffusion.networks import load_checked, silence
from attnshift.diffusion.sd3 import T5_LENGTH
from attnshift.errors import UserError
from attnshift.lab.examples import ATTENTION_WEIGHT, Examples, encoded, outside
from attnshift.lab.random_pipeline import text_configuration
from attnshift.lab.splits import Split
from attnshift.lab.tokenizer import MAX_LENGTH, build_tokenizer
from attnshift.lab.training import Report, Stage, TrainingBatch, optimise
from attnshift.sizes import Size, size_of
from attnshift.types import Site

__all__ = ["FLOW", "FLOW_IMAGES", "OneForAll", "check_autoencoder", "cross_sites", "train_flow"]

FLOW = Stage("flow", steps=2400, batch=32, learning_rate=1e-3, ema=0.998)
FLOW_IMAGES = 2_000
"""Images that it is trained on, the first ones of the training split."""

_PATCH = 2
_DEPTH, _HEADS, _HEAD_WIDTH = 6, 4, 32
_TEXT_WIDTH = 64
_NOISE_MEAN = -0.5
"""Mean of the levels' logits, whose deviation is 1: less noise than pure generation would draw."""
_SHIFT = 3.0
"""Shift of the levels, Stable Diffusion 3's own. A quarter of the steps then reaches half noise."""


def check_autoencoder(folder: Path) -> None:
    """Raise ``UserError`` if ``folder`` holds no autoencoder for the flow."""
    if not (folder / "config.json").is_file():
        raise UserError(
            f"the flow takes the autoencoder of the lab's pipeline, and {folder} holds none; train `pipeline` first"
        )


def train_flow(split: Split, seed: int, work: Path, autoencoder: Path, out: Path, report: Report) -> None:
    """Train text encoders and transformer on ``split``, and save the pipeline to ``out``.

    ``StableDiffusion3Pipeline`` loads the folder; its weights are fp16 safetensors. ``autoencoder``
    is the folder of the lab's.
    """
    silence()
    vae = load_checked(autoencoder, AutoencoderKL, None, torch.float32).requires_grad_(False).eval()
    assert isinstance(vae, AutoencoderKL)
    latents = encoded(vae, split, work / "flow-latents.safetensors", report) * vae.config["scaling_factor"]
    torch.manual_seed(seed)
    parts, tokenizer = _networks(latents.shape[2], latents.shape[3]), build_tokenizer()
    examples = Examples(split, tokenizer, latents)
    optimise(
        FLOW,
        parts,
        lambda network, batch: _loss(network, examples, batch),
        len(split.images),
        seed,
        work / "flow.pt",
        report,
    )
    pipeline = StableDiffusion3Pipeline(
        transformer=parts["transformer"],
        scheduler=FlowMatchEulerDiscreteScheduler(shift=_SHIFT),
        vae=vae,
        text_encoder=parts["text"],
        tokenizer=tokenizer,
        text_encoder_2=parts["text_2"],
        tokenizer_2=build_tokenizer(),
        text_encoder_3=None,
        tokenizer_3=None,
    )
    pipeline.to(dtype=torch.float16).save_pretrained(out, safe_serialization=True)
    report(f"saved the pipeline in {out}")


def _networks(channels: int, side: int) -> nn.ModuleDict:
    tokenizer = build_tokenizer()
    text, second = _text_encoder(tokenizer), _text_encoder(tokenizer)
    return nn.ModuleDict({"text": text, "text_2": second, "transformer": _transformer(channels, side)})


def _transformer(channels: int, side: int) -> SD3Transformer2DModel:
    """Transformer for latents of ``channels`` and ``side``, whose blocks begin as the identity
    (adaLN-Zero: Peebles and Xie, ICCV 2023, section 3.2)."""
    transformer = SD3Transformer2DModel(
        sample_size=side,
        patch_size=_PATCH,
        in_channels=channels,
        out_channels=channels,
        num_layers=_DEPTH,
        attention_head_dim=_HEAD_WIDTH,
        num_attention_heads=_HEADS,
        joint_attention_dim=2 * _TEXT_WIDTH,
        caption_projection_dim=_HEADS * _HEAD_WIDTH,
        pooled_projection_dim=2 * _TEXT_WIDTH,
        pos_embed_max_size=side,
        qk_norm="rms_norm",
    )
    norms = [norm for block in transformer.transformer_blocks for norm in (block.norm1, block.norm1_context)]
    for layer in (*(norm.linear for norm in norms), transformer.norm_out.linear, transformer.proj_out):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    return transformer


def _text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModelWithProjection:
    return CLIPTextModelWithProjection(text_configuration(tokenizer, _TEXT_WIDTH, layers=2, heads=4))


def _loss(network: nn.Module, examples: Examples, batch: TrainingBatch) -> Tensor:
    """Squared error of the velocity, plus the attention supervision of the lab's first denoiser.

    The levels are logit-normal (Esser et al., ICML 2024, section 3.1). The supervision's weight is
    the share of signal left at the level.
    """
    assert isinstance(network, nn.ModuleDict)
    transformer = network["transformer"]
    assert isinstance(transformer, SD3Transformer2DModel)
    drawn = examples.draw(batch)
    levels = torch.sigmoid(_NOISE_MEAN + batch.normal(len(drawn.clean), 1, 1, 1))
    noise = batch.normal(*drawn.clean.shape)
    noisy = (1 - levels) * drawn.clean + levels * noise
    sites = cross_sites(transformer, size_of(drawn.clean))
    with (
        # The fused kernel's backward pass takes a CPU several times as long on so few tokens.
        sdpa_kernel(SDPBackend.MATH),
        torch.autocast("cpu", torch.bfloat16),
        record_attention(transformer, [Read(site) for site in sites], OneForAll) as maps,
    ):
        told = [network[part](drawn.ids, output_hidden_states=True) for part in ("text", "text_2")]
        states = torch.cat([each.hidden_states[-2] for each in told], 2)
        predicted = transformer(
            noisy,
            timestep=1000 * levels.flatten(),
            encoder_hidden_states=nn.functional.pad(states, (0, 0, 0, 1)),
            pooled_projections=torch.cat([each.text_embeds for each in told], 1),
        ).sample
    error = (predicted.float() - Flow().prediction(drawn.clean, noise)).square().mean()
    pull = torch.stack(
        [outside(of_share(maps[site], site, "part")[..., :MAX_LENGTH], drawn, site.grid) for site in sites]
    ).mean(0)
    signal = (1 - levels) ** 2 / ((1 - levels) ** 2 + levels**2)
    return error + ATTENTION_WEIGHT * (pull * signal.flatten() * drawn.phrase.any(1)).mean()


def cross_sites(transformer: SD3Transformer2DModel, latents: Size) -> list[Site]:
    """The text columns of every joint block, read as maps."""
    blocks = ((f"transformer_blocks.{at}", block) for at, block in enumerate(transformer.transformer_blocks))
    return [site.mapped() for site in joint_sites(blocks, latents.shrunk(_PATCH)) if site.kind == "cross"]


class OneForAll(JointRecorder):
    """Recorder of a training, in which the text's last token stands for all of T5's zeros.

    Equal tokens stay equal in every block, since Stable Diffusion 3 gives the text no positions. In
    a softmax they are one key whose score is raised by the logarithm of their number.
    """

    def _mixed(self, queries: Tensor, keys: Tensor, values: Tensor, image: slice, words: slice) -> Tensor:
        scores = torch.matmul(queries * queries.shape[3] ** -0.5, keys.mT).float()
        number = scores.new_zeros(scores.shape[3])
        number[-1] = math.log(T5_LENGTH)
        masses = (scores + number).softmax(-1)
        for read in (read for reads in self.whole.values() for read in reads):
            self.recorded[read.site] = masses[read.rows][:, :, image][..., words]
        return torch.matmul(masses.to(values.dtype), values)
