"""Check of the shipped networks, or of another pipeline: figures on held-out renders against their
lower bounds."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from attnshift.attention.maps import phrase_map
from attnshift.attention.selection import Selection
from attnshift.classifiers import load_classifier
from attnshift.data.images import quantise
from attnshift.diffusion import load_pipeline
from attnshift.diffusion.backbone import Backbone
from attnshift.diffusion.denoising import denoise
from attnshift.diffusion.inversion import invert
from attnshift.diffusion.reconstruction import Offset
from attnshift.errors import UserError
from attnshift.lab.classifiers import RECIPES
from attnshift.lab.splits import Split, rendered
from attnshift.lab.weights import pipeline_folder
from attnshift.metrics.metrics import psnr
from attnshift.metrics.statistics import Estimate, bootstrap, wilson
from attnshift.sizes import size_of

__all__ = ["check_lab"]

_SHIPPED = {"lab": "figures.json", "lab-flow": "flow-figures.json"}
"""Pipelines that ship, and the file that keeps their figures beside the weights."""
_BATCH = 50
_GUIDANCE = 2.5


@torch.no_grad()
def check_lab(images: int, write: bool, report: Callable[[str], None], pipeline: str = "lab") -> bool:
    """True if ``pipeline``, and with ``lab`` the classifiers too, meet all bounds on ``images``
    held-out renders.

    ``report`` receives one line for each figure. ``write`` saves the figures beside the weights of
    a pipeline that ships: ``UserError`` for another one.
    """
    if write and pipeline not in _SHIPPED:
        raise UserError(f"`write` saves the figures of the shipped networks, and not those of {pipeline}; leave it out")
    with tempfile.TemporaryDirectory() as cache:
        split = rendered(0, "test", images, Path(cache), workers=2)
    figures: dict[str, dict[str, float]] = {}
    passed = True
    classified = _of_classifiers(split) if pipeline == "lab" else ()
    for figure in (*_of_pipeline(load_pipeline(pipeline), split), *classified):
        passed &= figure.met
        figures[figure.name] = figure.rounded
        report(figure.line)
    if write:
        card = pipeline_folder().parent / _SHIPPED[pipeline]
        card.write_text(
            json.dumps({"images": images, "figures": figures}, indent=1) + "\n", encoding="utf-8", newline="\n"
        )
        report(f"wrote {card}")
    return passed


class _Figure(NamedTuple):
    """A measured figure: its name, the value with its interval, its lower bound, and its unit."""

    name: str
    estimate: Estimate
    bound: float
    unit: str

    @property
    def met(self) -> bool:
        return self.estimate.value >= self.bound

    @property
    def rounded(self) -> dict[str, float]:
        value, low, high = (round(each, 4) for each in (self.estimate.value, self.estimate.low, self.estimate.high))
        return {"value": value, "low": low, "high": high, "bound": self.bound}

    @property
    def line(self) -> str:
        found = self.estimate
        return (
            f"{'ok  ' if self.met else 'FAIL'} {self.name}: {found.value:.3f} [{found.low:.3f}, {found.high:.3f}] "
            f"{self.unit}, must be >= {self.bound}"
        )


def _of_pipeline(backbone: Backbone, split: Split) -> Iterator[_Figure]:
    trip, path, inside = list[float](), list[float](), list[bool]()
    for at, (part, names) in enumerate(zip((split.images / 255).split(_BATCH), _names(split), strict=True)):
        latents = backbone.encode(part)
        decoded = backbone.decode(latents).clamp(0, 1)
        trip += psnr(part, decoded).tolist()
        reconstructed, shares = _reconstruct(backbone, latents, names, split.masks[at * _BATCH :][: len(part)])
        path += psnr(decoded, reconstructed).clamp(max=100).tolist()
        inside += shares
    for name, values, bound in (("autoencoder round trip", trip, 30.0), ("offset path against round trip", path, 45.0)):
        yield _Figure(name, bootstrap(values, (name,)), bound, "dB")
    yield _Figure("class word looks inside the mask", wilson(sum(inside), len(inside)), 0.7, "of images")


def _of_classifiers(split: Split) -> Iterator[_Figure]:
    parts = (split.images / 255).split(_BATCH)
    for name, recipe in RECIPES.items():
        classifier = load_classifier(f"lab:{name}")
        predicted = torch.cat([classifier(quantise(part)).argmax(1) for part in parts])
        estimate = wilson(int((predicted == split.labels).sum()), len(predicted))
        bound = 0.85 if recipe.radius else 0.97
        yield _Figure(f"accuracy of {name} ({recipe.role})", estimate, bound, "of images")


def _names(split: Split) -> list[list[str]]:
    names = [scene.class_name for scene in split.scenes]
    return [names[at : at + _BATCH] for at in range(0, len(names), _BATCH)]


def _reconstruct(backbone: Backbone, latents: Tensor, names: list[str], masks: Tensor) -> tuple[Tensor, list[bool]]:
    """Images after aligned inversion and guided denoising with offsets, and a flag for each.

    The flag is true if the class word's highest attention lies inside the object's mask. Attention
    is the mean over all down and up sites and steps, at the finest grid; of joint attention, over
    all blocks.
    """
    noise_schedule = backbone.noise_schedule(20, 5)
    prompts = [f"a photo of a {name}" for name in names]
    text, empty = backbone.embed(prompts), backbone.embed([""] * len(names))
    stored = invert(backbone, noise_schedule, latents, empty, "aligned")
    trajectory = Offset()(backbone, noise_schedule, stored, text, empty, _GUIDANCE)
    offered = backbone.sites(size_of(masks))
    joint = any(site.joint for site in offered)
    selection = Selection(places=("down", "mid", "up") if joint else ("down", "up"), grid="all")
    sites = selection.sites(offered, "cross", size_of(latents))
    final, attention = denoise(backbone, trajectory, trajectory.start, sites)
    inside = []
    for image, (prompt, name) in enumerate(zip(prompts, names, strict=True)):
        attended = phrase_map(attention, sites, selection, backbone.locate(prompt, name), image)
        mask = torch.nn.functional.adaptive_avg_pool2d(masks[image].float() / 255, size_of(attended))[0]
        inside.append(bool(mask.flatten()[attended.argmax()] >= 0.5))
    return backbone.decode(final).clamp(0, 1), inside
