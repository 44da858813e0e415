"""Check of the shipped networks: figures on held-out renders against their lower bounds."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from attnshift.attention.maps import phrase_map
from attnshift.attention.selection import Selection
from attnshift.classifiers import load_classifier
from attnshift.data.images import quantise
from attnshift.diffusion.denoising import denoise
from attnshift.diffusion.inversion import invert
from attnshift.diffusion.reconstruction import Offset
from attnshift.diffusion.stable_diffusion import StableDiffusion
from attnshift.lab.classifiers import RECIPES
from attnshift.lab.shipped import load_lab_pipeline
from attnshift.lab.splits import Split, rendered
from attnshift.lab.weights import pipeline_folder
from attnshift.metrics.metrics import psnr
from attnshift.metrics.statistics import bootstrap, wilson
from attnshift.sizes import size_of

__all__ = ["check_lab"]

_BATCH = 50
_GUIDANCE = 2.5


@torch.no_grad()
def check_lab(images: int, write: bool, report: Callable[[str], None]) -> bool:
    """True if the shipped networks meet all bounds on ``images`` held-out renders.

    ``report`` receives one line for each figure. ``write`` saves the figures beside the weights.
    """
    with tempfile.TemporaryDirectory() as cache:
        split = rendered(0, "test", images, Path(cache), workers=2)
    backbone = load_lab_pipeline()
    figures: dict[str, dict[str, float]] = {}
    passed = True

    def check(name: str, value: float, low: float, high: float, bound: float, unit: str) -> None:
        nonlocal passed
        met = value >= bound
        passed &= met
        figures[name] = {"value": round(value, 4), "low": round(low, 4), "high": round(high, 4), "bound": bound}
        report(f"{'ok  ' if met else 'FAIL'} {name}: {value:.3f} [{low:.3f}, {high:.3f}] {unit}, must be >= {bound}")

    pixels = split.images / 255
    parts = list(zip(pixels.split(_BATCH), _names(split), strict=True))
    trip, path, inside = [], [], []
    for at, (part, names) in enumerate(parts):
        latents = backbone.encode(part)
        decoded = backbone.decode(latents).clamp(0, 1)
        trip += psnr(part, decoded).tolist()
        reconstructed, shares = _reconstruct(backbone, latents, names, split.masks[at * _BATCH :][: len(part)])
        path += psnr(decoded, reconstructed).clamp(max=100).tolist()
        inside += shares
    for name, values, bound in (("autoencoder round trip", trip, 30.0), ("offset path against round trip", path, 45.0)):
        estimate = bootstrap(values, (name,))
        check(name, estimate.value, estimate.low, estimate.high, bound, "dB")
    estimate = wilson(sum(inside), len(inside))
    check("class word looks inside the mask", estimate.value, estimate.low, estimate.high, 0.7, "of images")
    for name, recipe in RECIPES.items():
        classifier = load_classifier(f"lab:{name}")
        predicted = torch.cat([classifier(quantise(part)).argmax(1) for part in pixels.split(_BATCH)])
        estimate = wilson(int((predicted == split.labels).sum()), len(predicted))
        bound = 0.85 if recipe.radius else 0.97
        check(f"accuracy of {name} ({recipe.role})", estimate.value, estimate.low, estimate.high, bound, "of images")
    if write:
        card = pipeline_folder().parent / "figures.json"
        card.write_text(
            json.dumps({"images": images, "figures": figures}, indent=1) + "\n", encoding="utf-8", newline="\n"
        )
        report(f"wrote {card}")
    return passed


def _names(split: Split) -> list[list[str]]:
    names = [scene.class_name for scene in split.scenes]
    return [names[at : at + _BATCH] for at in range(0, len(names), _BATCH)]


def _reconstruct(
    backbone: StableDiffusion, latents: Tensor, names: list[str], masks: Tensor
) -> tuple[Tensor, list[bool]]:
    """Images after aligned inversion and guided denoising with offsets, and a flag for each.

    The flag is true if the class word's highest attention lies inside the object's mask. Attention
    is the mean over all down and up sites and steps, at the finest grid.
    """
    noise_schedule = backbone.noise_schedule(20, 5)
    prompts = [f"a photo of a {name}" for name in names]
    text, empty = backbone.embed(prompts), backbone.embed([""] * len(names))
    stored = invert(backbone, noise_schedule, latents, empty, "aligned")
    trajectory = Offset()(backbone, noise_schedule, stored, text, empty, _GUIDANCE)
    selection = Selection(places=("down", "up"), grid="all")
    sites = selection.sites(backbone.sites(size_of(masks)), "cross", size_of(latents))
    final, attention = denoise(backbone, trajectory, trajectory.start, sites)
    inside = []
    for image, (prompt, name) in enumerate(zip(prompts, names, strict=True)):
        attended = phrase_map(attention, sites, selection, backbone.locate(prompt, name), image)
        mask = torch.nn.functional.adaptive_avg_pool2d(masks[image].float() / 255, size_of(attended))[0]
        inside.append(bool(mask.flatten()[attended.argmax()] >= 0.5))
    return backbone.decode(final).clamp(0, 1), inside
