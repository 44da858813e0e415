"""Models of the benchmarks: a pipeline, the classifiers that it attacks, and images.

lab     the built-in tabletop world, trained, 64 px
mini    Stable Diffusion 2's layout, narrow (autoencoder: a quarter, denoiser: a tenth), random,
        14 M parameters, 224 px
sd15    the true shape of Stable Diffusion 1.5, random, 860 M and 84 M parameters, 224 px
sd2     the true shape of Stable Diffusion 2 base, random, 866 M and 84 M parameters, 224 px
tiny    the same layout, as small as possible, to try the scripts out
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from functools import cache

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.utils import logging
from transformers import CLIPTextConfig, CLIPTextModel

from attnshift.attack.prepare import Task
from attnshift.classifiers import load_classifier
from attnshift.classifiers.classifier import Classifier
from attnshift.diffusion import load_pipeline
from attnshift.diffusion.stable_diffusion import StableDiffusion
from attnshift.lab.random_pipeline import stable_diffusion_scheduler
from attnshift.lab.render import render_scenes
from attnshift.lab.scenes import scene
from attnshift.lab.tokenizer import build_tokenizer
from attnshift.lab.weights import classifier_names

__all__ = ["LARGE", "MODELS", "Model", "Shape", "autoencoder", "build", "denoiser", "in_bf16", "pipeline"]


@dataclass(frozen=True)
class Shape:
    """Widths of denoiser and autoencoder level by level, finest first.

    ``heads`` are those of the denoiser's attention at each level, ``text`` is the width of the text
    states, and ``side`` that of the images in pixels. ``surrogates`` are the classifiers to attack.
    """

    denoiser: tuple[int, ...]
    heads: tuple[int, ...]
    autoencoder: tuple[int, ...]
    text: int
    side: int
    surrogates: tuple[str, ...]
    linear: bool = True
    """Attention blocks have matrices at both ends; version 1 has convolutions of one pixel."""
    groups: int = 32
    """Groups of all group norms; hardly more channels than groups amplify rounding errors."""


_LIGHT = (
    "resnet18",
    "mobilenetv3_large_100",
    "efficientnet_b0",
    "regnety_004",
    "convnext_atto",
    "vit_tiny_patch16_224",
)
_LIGHT += ("mobilevit_s", "ghostnet_100")
# DiffAttack's paper attacks these and transfers to them.
_HEAVY = ("resnet50", "vgg19", "mobilenetv2_100", "inception_v3", "convnext_base", "vit_base_patch16_224")
_HEAVY += ("deit_base_patch16_224", "swin_base_patch4_window7_224")
_SMALLEST = ("test_resnet", "test_convnext", "test_efficientnet", "test_vit", "test_mambaout", "test_nfnet")
_SMALLEST += ("test_byobnet", "test_coatnet")

SHAPES = {
    "tiny": Shape((16, 32, 64, 64), (1, 1, 2, 2), (16, 32, 64, 64), 32, 64, _SMALLEST, groups=4),
    "mini": Shape((32, 64, 128, 128), (1, 1, 2, 2), (32, 64, 128, 128), 128, 224, _LIGHT),
    "sd15": Shape((320, 640, 1280, 1280), (8, 8, 8, 8), (128, 256, 512, 512), 768, 224, _HEAVY, linear=False),
    "sd2": Shape((320, 640, 1280, 1280), (5, 10, 20, 20), (128, 256, 512, 512), 1024, 224, _HEAVY),
}
MODELS = ("lab", *SHAPES)
LARGE = ("sd15", "sd2")
_ALL_THREADS = torch.get_num_threads()


@dataclass(frozen=True)
class Model:
    name: str
    backbone: StableDiffusion
    side: int
    device: str

    @property
    def surrogates(self) -> tuple[str, ...]:
        """Eight classifiers; an attack on one takes the first."""
        if self.name == "lab":
            return ("lab:resnet", *(f"lab:{name}" for name in classifier_names() if name != "resnet"))
        return tuple(f"random:{name}" for name in SHAPES[self.name].surrogates)

    @property
    def large(self) -> bool:
        """True if an iteration takes minutes on a CPU, and gigabytes."""
        return self.name in LARGE

    @property
    def threads(self) -> int:
        """CPU threads that ``attnshift attack`` would use."""
        return 1 if self.side <= 96 else _ALL_THREADS

    @property
    def batch(self) -> int:
        """Images that ``attnshift attack`` would attack together."""
        return 8 if self.side <= 96 else 1

    def classifiers(self, count: int = 1) -> list[Classifier]:
        return [_classifier(name, self.device) for name in self.surrogates[:count]]

    def tasks(self, count: int, classifier: Classifier) -> list[Task]:
        """Return lab images; the label is the prediction of a classifier that is untrained."""
        scenes = [scene(0, "tuning", index) for index in range(count)]
        images = render_scenes(scenes, self.side).images
        labels = [each.label for each in scenes]
        if self.name != "lab":
            with torch.no_grad():
                labels = classifier(images.to(self.device)).argmax(1).tolist()
        drawn = zip(images, labels, scenes, strict=True)
        return [Task(f"lab {at}", image, label, each.class_name) for at, (image, label, each) in enumerate(drawn)]


@cache
def _classifier(name: str, device: str) -> Classifier:
    """Load a classifier that sees the whole image, as in DiffAttack."""
    loaded = load_classifier(name).to(device)
    return replace(loaded, preprocessing=replace(loaded.preprocessing, resized=None))


def build(name: str, device: str = "cpu") -> Model:
    """Return the model called ``name``, one of ``MODELS``; random weights repeat every time."""
    if name == "lab":
        backbone = load_pipeline("lab").to(device)
        assert isinstance(backbone, StableDiffusion)
        return Model(name, backbone, backbone.suggested_size, device)
    shape = SHAPES[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        built = pipeline(shape)
    return Model(name, StableDiffusion(built, name).to(device), shape.side, device)


def in_bf16(model: Model) -> Model:
    """Return ``model`` with a copy of its weights in bf16."""
    logging.set_verbosity_error()
    backbone = copy.copy(model.backbone)
    for part in ("vae", "unet"):
        setattr(backbone, part, copy.deepcopy(getattr(backbone, part)).to(torch.bfloat16))
    return replace(model, backbone=backbone)


def denoiser(shape: Shape) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=64,
        block_out_channels=shape.denoiser,
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        layers_per_block=2,
        cross_attention_dim=shape.text,
        # diffusers calls the number of heads the dimension of a head.
        attention_head_dim=shape.heads,
        use_linear_projection=shape.linear,
        norm_num_groups=shape.groups,
    )


def autoencoder(shape: Shape) -> AutoencoderKL:
    return AutoencoderKL(
        sample_size=512,
        block_out_channels=shape.autoencoder,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
        norm_num_groups=shape.groups,
    )


def pipeline(shape: Shape) -> StableDiffusionPipeline:
    tokenizer = build_tokenizer()
    tokenizer.model_max_length = 77
    # One layer: prompts are encoded once an image, so the depth does not show in the comparison.
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=shape.text,
            projection_dim=shape.text,
            intermediate_size=4 * shape.text,
            num_hidden_layers=1,
            num_attention_heads=shape.text // 32,
            max_position_embeddings=77,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    return StableDiffusionPipeline(
        vae=autoencoder(shape),
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=denoiser(shape),
        scheduler=stable_diffusion_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
