"""What every term of ``losses.TERMS`` must do, whatever it measures."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from attnshift.attack.loop import AttackState, value_and_grad
from attnshift.attack.method import Method
from attnshift.attack.optimiser import AdamW
from attnshift.attack.prepare import Task, prepare_batch
from attnshift.classifiers.classifier import Classifier
from attnshift.diffusion.stable_diffusion import StableDiffusion
from attnshift.losses import TERMS
from attnshift.losses.objective import LossTerm, Objective, StatefulTerm, WeightedTerm, evaluate
from attnshift.losses.schedules import Schedule
from attnshift.recipes.reading import load_recipe
from attnshift.registry import build
from attnshift.types import Observation, Site
from contracts.observations import (
    SAMPLE,
    Fill,
    nothing,
    observation,
    one_hot,
    only,
    scores,
    softmax,
    uniform,
    with_images,
    with_maps,
)

EVERYWHERE = {"select": {"places": ["down", "mid", "up"], "grid": "all"}}
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "variance": [{}, EVERYWHERE, {"select": {"steps": [1, 1]}}, {"select": {"heads": [1.0, 3.0]}}],
    "entropy": [
        {}, EVERYWHERE, {"order": "per_head"}, {"dropout": 0.5}, {"dropout": 0.9, "order": "per_head"},
        {"smoothing": "ema"}, {"smoothing": "tv"}, {"smoothing": "ema", "order": "per_head", "dropout": 0.5},
        {"select": {"heads": [0.0, 1.0]}},
    ],
    "contrast": [
        {"form": form, "tokens": tokens, "delta": 3.0}
        for form in ("share", "raw", "log") for tokens in ("probe", "joint", "separate")
    ] + [EVERYWHERE | {"delta": 3.0}],
    "replace": [{"form": form, "p": p} for form in ("shape", "mass", "aligned") for p in (1, 2)] + [EVERYWHERE],
    "self_attention": [
        *({"distance": distance, "reduction": reduction}
          for distance in ("js", "kl", "mse") for reduction in ("layered", "mean", "sum")),
        {"rows": SAMPLE}, {"select": {"grid": "quarter", "steps": [0, 0]}}, {"gamma": 0.0},
    ],
    "frequency": [
        {"kind": kind, "against": against}
        for kind in ("laplacian", "wavelet") for against in ("image", "reconstruction")
    ] + [{"kind": "wavelet", "wavelet": "db2", "levels": 2}],
}  # fmt: skip
"""Options beyond the defaults to hold a term to; a term that is not named here is held to its defaults."""

NEEDS_DOWNLOAD = {"lpips"}
CASES = [
    pytest.param(name, options, id=f"{name}{options}")
    for name in TERMS
    if name not in NEEDS_DOWNLOAD
    for options in OPTIONS.get(name, [{}])
]
with_every_term = pytest.mark.parametrize(("name", "options"), CASES)


Built = LossTerm | StatefulTerm


def term(name: str, options: dict[str, Any]) -> Built:
    built = build(TERMS, name, options)
    assert isinstance(built, LossTerm)
    return built


@cache
def seen(fill: Fill = softmax, clean: Fill = softmax, dtype: torch.dtype = torch.float32) -> Observation:
    """``observation``, made once: terms change nothing that they are shown."""
    return observation(fill, clean, dtype)


def values_of(built: Built, observed: Observation) -> Tensor:
    """One value per image in the first iteration, [batch]."""
    return evaluate(built, observed)[0]


def running_sites(built: Built, observed: Observation) -> list[Site]:
    """What the term reads of the attacked pass."""
    named = built.sites(tuple(observed.adversarial.attention), observed.adversarial.latents.shape[-1])
    return [site for site in named if site.view != "reference"]


@with_every_term
def test_one_fp32_value_per_image(name: str, options: dict[str, Any]) -> None:
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        values = values_of(term(name, options), seen(dtype=dtype))
        assert values.shape == (3,)
        assert values.dtype == torch.float32
        assert values.isfinite().all()


FILLS: tuple[Fill, ...] = (uniform, one_hot, nothing)
CLEAN_FILLS: tuple[Fill, ...] = (softmax, *FILLS)


@dataclass(frozen=True)
class Reads:
    """What a term reads beside the image: a term that reads no maps sees no difference between degenerate ones."""

    attacked: bool
    clean: bool


class Watched(Mapping[Site, tuple[Tensor, ...]]):
    """Attention maps that note whether one of them was read."""

    def __init__(self, maps: Mapping[Site, tuple[Tensor, ...]]):
        self.maps, self.read = maps, False

    def __getitem__(self, site: Site) -> tuple[Tensor, ...]:
        self.read = True
        return self.maps[site]

    def __iter__(self) -> Iterator[Site]:
        return iter(self.maps)

    def __len__(self) -> int:
        return len(self.maps)


def reads(built: Built) -> Reads:
    """What ``built`` reads, seen from outside."""
    observed = seen()
    assert observed.interference is not None
    attacked, clean, phrases = (
        Watched(each.attention) for each in (observed.adversarial, observed.clean, observed.interference)
    )
    evaluate(
        built,
        replace(
            observed,
            adversarial=replace(observed.adversarial, attention=attacked),
            clean=replace(observed.clean, attention=clean),
            interference=replace(observed.interference, attention=phrases),
        ),
    )
    return Reads(attacked.read, clean.read or phrases.read)


def degenerate(read: Reads) -> Iterator[Observation]:
    """Observations with degenerate maps, each kind that a term which reads ``read`` can tell apart."""
    fills = FILLS if read.attacked else FILLS[:1]
    clean_fills = CLEAN_FILLS if read.clean else CLEAN_FILLS[:1]
    for dtype, fill, clean in itertools.product((torch.float32, torch.bfloat16), fills, clean_fills):
        yield seen(fill, clean, dtype)


@with_every_term
def test_value_and_gradient_are_finite_on_degenerate_maps_and_images(name: str, options: dict[str, Any]) -> None:
    built = term(name, options)
    for observed in degenerate(reads(built)):
        leaves = {
            site: [each.clone().requires_grad_() for each in steps]
            for site, steps in observed.adversarial.attention.items()
        }
        for image in (observed.images, observed.clean.images, torch.zeros_like(observed.images)):
            pixels = image.clone().requires_grad_()
            values = values_of(built, with_images(with_maps(observed, leaves), pixels))
            assert values.isfinite().all()
            flat = [pixels, *(each for steps in leaves.values() for each in steps)]
            gradients = torch.autograd.grad(values.sum(), flat, allow_unused=True)
            assert any(each is not None for each in gradients)
            assert all(each.isfinite().all() for each in gradients if each is not None)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("l2", Reads(attacked=False, clean=False)),
        ("entropy", Reads(attacked=True, clean=False)),
        ("self_attention", Reads(attacked=True, clean=True)),
        ("replace", Reads(attacked=True, clean=True)),
    ],
)
def test_what_a_term_reads_is_seen(name: str, expected: Reads) -> None:
    assert reads(term(name, {})) == expected


@with_every_term
def test_batch_mates_change_nothing(name: str, options: dict[str, Any]) -> None:
    built, observed = term(name, options), seen()
    together = values_of(built, observed)
    for image in range(3):
        torch.testing.assert_close(
            values_of(built, only(observed, image)), together[image : image + 1], rtol=1e-5, atol=1e-7
        )


@with_every_term
def test_only_the_sites_it_names_are_read(name: str, options: dict[str, Any]) -> None:
    built, observed = term(name, options), seen()
    named = running_sites(built, observed)
    assert set(named) <= set(observed.adversarial.attention)
    cut = with_maps(observed, {site: observed.adversarial.attention[site] for site in named})
    torch.testing.assert_close(values_of(built, cut), values_of(built, observed), rtol=0, atol=0)


@with_every_term
def test_interference_is_needed_only_where_it_says_so(name: str, options: dict[str, Any]) -> None:
    built, without = term(name, options), replace(seen(), interference=None)
    if not built.reads_interference:
        torch.testing.assert_close(values_of(built, without), values_of(built, seen()), rtol=0, atol=0)


@with_every_term
def test_gradcheck(name: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    # Terms compute in fp32, which is too coarse for finite differences: here their casts go to float64.
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    built, observed = term(name, options), seen(dtype=torch.float64)
    named = running_sites(built, observed)
    drawn = scores(1, dtype=torch.float64)
    flat = [observed.adversarial.images.clone(), *(each for site in named for each in drawn[site])]

    def value(images: Tensor, *each: Tensor) -> Tensor:
        maps = iter([one.softmax(-1) for one in each])
        steps = len(each) // max(len(named), 1)
        seen = with_maps(with_images(observed, images), {site: [next(maps) for _ in range(steps)] for site in named})
        return values_of(built, seen) + 0 * images.sum()

    leaves = [each.requires_grad_() for each in flat]
    assert value(*leaves).dtype == torch.float64
    assert torch.autograd.gradcheck(value, leaves, fast_mode=True)


@with_every_term
def test_twenty_plain_gradient_steps_lower_it(name: str, options: dict[str, Any]) -> None:
    """Steps of a fixed length along the scores of the maps, and along the pixels."""
    built, observed = term(name, options), seen()
    named = running_sites(built, observed)
    drawn = scores(1)
    leaves = [observed.adversarial.images.clone(), *(each.clone() for site in named for each in drawn[site])]
    first = None
    for _ in range(20):
        leaves = [each.detach().requires_grad_() for each in leaves]
        images, *rest = leaves
        maps = iter([each.softmax(-1) for each in rest])
        steps = len(rest) // max(len(named), 1)
        moved = with_maps(with_images(observed, images), {site: [next(maps) for _ in range(steps)] for site in named})
        values = values_of(built, moved)
        first = values.detach() if first is None else first
        gradients = torch.autograd.grad(values.sum(), leaves, allow_unused=True)
        for image in range(3):
            parts = [each[image] for each in gradients if each is not None]
            norm = torch.stack([part.norm() for part in parts]).norm().clamp(min=1e-12)
            for leaf, gradient in zip(leaves, gradients, strict=True):
                if gradient is not None:
                    leaf.data[image] -= 0.5 * gradient[image] / norm
    assert first is not None
    assert (values < first).all()


@pytest.fixture(scope="module")
def tasks() -> list[Task]:
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    return [Task("first", images[0], 1, "snowman"), Task("second", images[1], 2, "mug")]


@with_every_term
def test_gradient_reaches_the_latents_of_every_image(
    backbone: StableDiffusion, classifiers: list[Classifier], tasks: list[Task], name: str, options: dict[str, Any]
) -> None:
    both = ["prompt.template=a photo of a {} and a {interference}"] if options.get("tokens") == "joint" else []
    recipe = load_recipe("fast", ["classification.weight=0.0", "diffusion.guidance=2.5", *both])
    method = replace(Method.of(recipe), objective=Objective({name: WeightedTerm(term(name, options), 1.0, Schedule())}))
    batch = prepare_batch(method, backbone, classifiers[:1], tasks)
    start = batch.trajectory.start
    away = start + 0.1 * torch.randn(start.shape, generator=torch.Generator().manual_seed(1))
    found = value_and_grad(batch, away, 3, AttackState(AdamW.start(away, 0.1, 0.0)))
    assert found.losses[name].shape == (2,)
    assert found.gradient.isfinite().all()
    assert (found.gradient.flatten(1).norm(dim=1) > 0).all()
    if options.get("smoothing") == "ema":
        assert len(found.state.terms[name]) == 2
