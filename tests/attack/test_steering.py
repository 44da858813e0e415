"""Each term moves the quantity that it is named after, on lab images, with the renderer's own masks as the judge.

A term alone, without any classifier, for a few iterations from the clean latents.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor

from attnshift.attack.loop import optimise_latents
from attnshift.attack.method import Method
from attnshift.attack.prepare import PreparedBatch, Task, prepare_batch
from attnshift.attention.maps import phrase_map
from attnshift.attention.selection import Selection
from attnshift.classifiers import load_classifier
from attnshift.data.images import quantise
from attnshift.lab.render import render_scenes
from attnshift.lab.scenes import scene
from attnshift.metrics.metrics import psnr, ssim
from attnshift.recipes.reading import load_recipe
from attnshift.sizes import size_of
from attnshift.types import Branch
from later import later
from tiers import fast_first

if TYPE_CHECKING:
    from attnshift.classifiers.classifier import Classifier
    from attnshift.diffusion.stable_diffusion import StableDiffusion

shipped = later("attnshift.lab.shipped")

Steered = tuple[PreparedBatch, Branch, Branch]
INDICES = (23, 25)
FINEST = Selection(grid="all")


@dataclass(frozen=True)
class World:
    backbone: StableDiffusion
    surrogate: Classifier
    tasks: list[Task]
    masks: Tensor


@pytest.fixture(scope="module")
def world() -> World:
    scenes = [scene(0, "tuning", index) for index in INDICES]
    shown = render_scenes(scenes)
    tasks = [
        Task(str(each.label), image, each.label, each.class_name)
        for each, image in zip(scenes, quantise(shown.images), strict=True)
    ]
    return World(shipped.load_lab_pipeline(), load_classifier("lab:resnet"), tasks, shown.masks)


def steered(world: World, *settings: str) -> Steered:
    """The clean and the last branch of an attack by one term, with the attention of every cross-attention site."""
    usual = [
        "classification.weight=0.0", "terms.variance.weight=0.0", "terms.self_attention.weight=0.0",
        "optimiser.iterations=3", "optimiser.learning_rate=0.05", "finish.keep=last",
    ]  # fmt: skip
    batch = prepare_batch(
        Method.of(load_recipe("quick", [*usual, *settings])), world.backbone, [world.surrogate], world.tasks
    )
    *_, last = optimise_latents(batch)
    sites = tuple(world.backbone.sites(64))
    sites += tuple(site.seen("probe") for site in sites if site.kind == "cross" and batch.observe.interference)
    with torch.no_grad():
        return batch, batch.render(batch.render.trajectory.start, sites), batch.render(last.latents, sites)


@pytest.fixture(scope="module")
def free(world: World) -> Steered:
    """What the entropy term does to the images with nothing to hold it back."""
    return steered(world, "terms.entropy.weight=1.0")


def looks(branch: Branch, batch: PreparedBatch, select: Selection = FINEST) -> Tensor:
    """Where the class word looks, [batch, side, side]."""
    sites = select.sites(branch.attention, "cross", size_of(branch.latents))
    return torch.stack(
        [phrase_map(branch.attention, sites, select, span, image) for image, span in enumerate(batch.observe.tokens)]
    )


def entropy(maps: Tensor) -> Tensor:
    share = maps.flatten(1) / maps.flatten(1).sum(1, keepdim=True)
    return -(share * share.log()).sum(1)


def on_object(maps: Tensor, masks: Tensor) -> Tensor:
    """Share of the maps' mass that lies on the object."""
    inside = torch.nn.functional.adaptive_avg_pool2d(masks, maps.shape[-1])[:, 0]
    return (maps * inside).flatten(1).sum(1) / maps.flatten(1).sum(1)


def true_share(branch: Branch, batch: PreparedBatch) -> Tensor:
    """The class word's part of the mass that it and the interference phrase have, on the probed sites."""
    assert batch.observe.interference is not None
    sites = [site.seen("probe") for site in Selection().sites(branch.attention, "cross", size_of(branch.latents))]
    shares = []
    for image, (span, other) in enumerate(zip(batch.observe.tokens, batch.observe.interference.probed, strict=True)):
        true, rival = (phrase_map(branch.attention, sites, Selection(), each, image).sum() for each in (span, other))
        shares.append(true / (true + rival))
    return torch.stack(shares)


@pytest.mark.heavy
@pytest.mark.parametrize("more", fast_first([[], ["terms.entropy.order=per_head"], ["terms.entropy.dropout=0.3"]]))
def test_entropy_spreads_attention_also_off_the_object(world: World, more: list[str]) -> None:
    batch, before, after = steered(world, "terms.entropy.weight=1.0", *more)
    early, late = looks(before, batch, Selection()), looks(after, batch, Selection())
    assert (entropy(late) > entropy(early)).all()
    assert on_object(late, world.masks).mean() < on_object(early, world.masks).mean()


@pytest.mark.heavy
def test_variance_flattens_attention(world: World) -> None:
    batch, before, after = steered(world, "terms.variance.weight=1e4")
    flat = [looks(branch, batch, Selection()).flatten(1).var(1) for branch in (after, before)]
    assert (flat[0] < flat[1]).all()


@pytest.mark.heavy
@pytest.mark.parametrize("form", fast_first(["share", "raw", "log"]))
def test_contrast_moves_attention_from_the_true_class_to_the_other(world: World, form: str) -> None:
    delta = "3.0" if form == "raw" else "1.0"
    batch, before, after = steered(
        world, "terms.contrast.weight=1.0", f"terms.contrast.form={form}", f"terms.contrast.delta={delta}"
    )
    assert (true_share(after, batch) < true_share(before, batch)).all()


@pytest.mark.heavy
@pytest.mark.parametrize("form", fast_first(["shape", "mass", "aligned"]))
def test_replace_nears_what_the_interference_phrase_looks_at(world: World, form: str) -> None:
    batch, before, after = steered(
        world, "terms.replace.weight=1.0", f"terms.replace.form={form}", "interference.choose=random"
    )
    assert batch.observe.interference is not None
    reference = [*batch.observe.interference.attention]
    gaps = []
    for branch in (before, after):
        values = []
        for image, span in enumerate(batch.observe.interference.tokens):
            wanted = phrase_map(batch.observe.interference.attention, reference, Selection(), span, image)
            values.append(distance(looks(branch, batch, Selection())[image], wanted, form))
        gaps.append(torch.stack(values))
    assert gaps[1].mean() < gaps[0].mean()


def distance(left: Tensor, right: Tensor, form: str) -> Tensor:
    if form == "mass":
        return (left - right).abs().sum() / right.sum()
    return (left / left.sum() - right / right.sum()).abs().sum()


def self_gap(branch: Branch, clean: Branch) -> Tensor:
    gaps = [
        (now - then).abs().flatten(1).sum(1) / now.shape[1] / now.shape[2]
        for site in branch.attention
        if site.kind == "self"
        for now, then in zip(branch.attention[site], clean.attention[site], strict=True)
    ]
    return torch.stack(gaps).mean(0)


@pytest.mark.heavy
@pytest.mark.parametrize("distance", fast_first(["js", "kl", "mse"]))
def test_self_attention_keeps_the_structure_that_another_term_breaks(
    world: World, free: Steered, distance: str
) -> None:
    held = steered(
        world, "terms.entropy.weight=1.0", "terms.self_attention.weight=100.0",
        f"terms.self_attention.distance={distance}", "terms.self_attention.reduction=layered",
    )  # fmt: skip
    assert self_gap(held[2], held[1]).mean() < self_gap(free[2], free[1]).mean()


Quality = Callable[[Tensor, Tensor], Tensor]


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("term", "nearer"),
    fast_first(
        [
            ("l2", psnr),
            ("perceptual", ssim),
            ("frequency", lambda clean, changed: -_detail(changed - clean)),
        ]
    ),
)
def test_distances_keep_the_image_that_another_term_changes(
    world: World, free: Steered, term: str, nearer: Quality
) -> None:
    held = steered(world, "terms.entropy.weight=1.0", f"terms.{term}.weight=10.0")
    images = free[0].images
    assert (nearer(images, held[2].images) > nearer(images, free[2].images)).all()


def _detail(change: Tensor) -> Tensor:
    return (change - torch.nn.functional.avg_pool2d(change, 3, 1, 1)).abs().flatten(1).mean(1)
