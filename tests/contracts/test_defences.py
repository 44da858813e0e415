"""What every defence of ``defences.DEFENCES`` must do, and a classifier behind it."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

import pytest
import torch
from torch import Tensor

from attnshift.classifiers.classifier import Classifier
from attnshift.data.images import quantise
from attnshift.defences import DEFENCES
from attnshift.defences.defended import ClassifierDefence, Classify, Defence, Defended, NeedsBackbone
from attnshift.diffusion.stable_diffusion import StableDiffusion
from attnshift.errors import RecipeError
from attnshift.registry import build

SIDE = 64
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "jpeg": [{}, {"quality": 1}],
    "bit_depth": [{}, {"bits": 1}],
    "median": [{}, {"size": 5}],
    "gaussian_blur": [{}, {"sigma": 20.0}],
    "resize_and_pad": [{}, {"smallest": 0.1}],
    "smoothing": [{"copies": 7, "sigma": 0.5}],
    "purification": [{"schedule_steps": 10}, {"schedule_steps": 10, "strength": 0.0}],
}
"""Options beyond the defaults to hold a defence to; one that is not named here is held to its defaults."""
NEUTRAL: dict[str, tuple[dict[str, Any], float]] = {
    "jpeg": ({"quality": 100}, 0.03),
    "bit_depth": ({"bits": 8}, 0.0),
    "median": ({"size": 1}, 0.0),
    "gaussian_blur": ({"sigma": 0.0}, 0.0),
    "resize_and_pad": ({"smallest": 1.0}, 1e-5),
    "smoothing": ({"sigma": 0.0, "copies": 3}, 0.0),
    "purification": ({"strength": 0.0}, math.inf),
}
"""Options that change nothing, or values by so much on average. What the autoencoder alone does has no bound."""

CLASSES = {name: entry.load() for name, entry in DEFENCES.items()}
RANDOM = [name for name, each in CLASSES.items() if "seed" in {field.name for field in fields(each)}]
CASES = [pytest.param(name, options, id=f"{name}{options}") for name in DEFENCES for options in OPTIONS.get(name, [{}])]
with_every_defence = pytest.mark.parametrize(("name", "options"), CASES)
with_every_filter = pytest.mark.parametrize(
    ("name", "options"), [case for case in CASES if not hasattr(CLASSES[str(case.values[0])], "poll")]
)
"""Those that change the image, and not the classifier."""


def placed(name: str, options: dict[str, Any], backbone: StableDiffusion) -> Defence | ClassifierDefence:
    built = build(DEFENCES, name, options)
    return built.on(backbone) if isinstance(built, NeedsBackbone) else built


def pictures(count: int = 3) -> Tensor:
    """Smooth colours with some noise, as 8-bit files hold them."""
    draw = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, 4, 4, generator=draw)
    smooth = torch.nn.functional.interpolate(coarse, (SIDE, SIDE), mode="bicubic")
    return quantise((smooth + 0.05 * torch.randn(smooth.shape, generator=draw)).clamp(0, 1))


@pytest.fixture(scope="module")
def classifier(classifiers: list[Classifier]) -> Classifier:
    return classifiers[0]


def answers(defence: Defence | ClassifierDefence, classifier: Classify, images: Tensor) -> Tensor:
    """Images of a defence that changes images, logits of one that changes the classifier."""
    return defence.poll(classifier, images) if isinstance(defence, ClassifierDefence) else defence(images)


@with_every_filter
def test_images_stay_images(name: str, options: dict[str, Any], backbone: StableDiffusion) -> None:
    defence = placed(name, options, backbone)
    assert isinstance(defence, Defence)
    shown = torch.cat([pictures(2), torch.zeros(1, 3, SIDE, SIDE), torch.ones(1, 3, SIDE, SIDE)])
    for dtype in (torch.float32, torch.bfloat16):
        seen = defence(shown.to(dtype))
        assert seen.shape == shown.shape
        assert seen.dtype == dtype
        assert seen.isfinite().all()
        assert seen.min() >= 0
        assert seen.max() <= 1
    assert (defence(shown)[:2] - shown[:2]).abs().mean() > 1e-3


@with_every_defence
def test_logits_are_one_finite_row_per_image(
    name: str, options: dict[str, Any], backbone: StableDiffusion, classifier: Classifier
) -> None:
    defended = Defended(classifier, placed(name, options, backbone))
    logits = defended(pictures())
    assert isinstance(defended, Classifier)
    assert (defended.classes, defended.class_names) == (classifier.classes, classifier.class_names)
    assert defended.name.endswith(f"+{classifier.name}")
    assert defended.to("cpu") is defended
    assert logits.shape == (3, classifier.classes)
    assert logits.dtype == torch.float32
    assert logits.isfinite().all()


@with_every_defence
def test_the_same_image_gives_the_same_answer(
    name: str, options: dict[str, Any], backbone: StableDiffusion, classifier: Classifier
) -> None:
    torch.manual_seed(1)
    first = answers(placed(name, options, backbone), classifier, pictures())
    torch.manual_seed(2)
    assert torch.equal(answers(placed(name, options, backbone), classifier, pictures()), first)


@with_every_defence
def test_batch_mates_change_nothing(
    name: str, options: dict[str, Any], backbone: StableDiffusion, classifier: Classifier
) -> None:
    defence, shown = placed(name, options, backbone), pictures()
    defended = Defended(classifier, defence)
    together, logits = answers(defence, classifier, shown), defended(shown)
    for at in (0, 2):
        alone = shown[at : at + 1]
        torch.testing.assert_close(answers(defence, classifier, alone), together[at : at + 1], rtol=0, atol=1e-5)
        torch.testing.assert_close(defended(alone), logits[at : at + 1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", DEFENCES)
def test_neutral_options_change_nothing_or_little(name: str, backbone: StableDiffusion, classifier: Classifier) -> None:
    options, bound = NEUTRAL[name]
    defence, shown = placed(name, options, backbone), pictures()
    if isinstance(defence, ClassifierDefence):
        assert torch.equal(answers(defence, classifier, shown).argmax(1), classifier(shown).argmax(1))
    else:
        assert float((defence(shown) - shown).abs().mean()) <= bound


@with_every_defence
def test_a_gradient_passes_where_it_says_so(
    name: str, options: dict[str, Any], backbone: StableDiffusion, classifier: Classifier
) -> None:
    defence = placed(name, options, backbone)
    defended = Defended(classifier, defence)
    leaf = pictures().requires_grad_()
    logits = defended(leaf)
    assert defended.differentiable == defence.differentiable
    assert logits.requires_grad == defence.differentiable
    if defence.differentiable:
        (gradient,) = torch.autograd.grad(logits[:, 0].sum(), leaf)
        assert gradient.isfinite().all()
        assert (gradient.flatten(1).norm(dim=1) > 0).all()
    with torch.no_grad():
        torch.testing.assert_close(defended(leaf), logits.detach(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", RANDOM)
def test_what_is_drawn_belongs_to_the_seed(name: str, backbone: StableDiffusion) -> None:
    shown, options = pictures(1), OPTIONS.get(name, [{}])[0]
    first, other = (
        answers(placed(name, options | {"seed": seed}, backbone), lambda images: images.flatten(1), shown)
        for seed in (0, 1)
    )
    assert not torch.equal(first, other)


@pytest.mark.parametrize("name", DEFENCES)
def test_options_are_checked(name: str) -> None:
    with pytest.raises(RecipeError, match=f"defence '{name}': strenght"):
        build(DEFENCES, name, {"strenght": 1})
