"""Purification before a surrogate: the gradient that an attack gets which knows the defence."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from attnshift.attack.effort import Effort
from attnshift.batching import select_rows
from attnshift.defences.defended import Defended
from attnshift.defences.jpeg import JpegCompression
from attnshift.defences.names import load_surrogate
from attnshift.defences.purification import AttackedPurifier, Purification
from attnshift.ensemble.expectation import as_it_is
from attnshift.ensemble.surrogates import Surrogates
from attnshift.errors import ModelError, RecipeError
from attnshift.losses.classification import CrossEntropy
from attnshift.testing.models import pictures, small_backbone, small_classifier
from attnshift.types import Goals, RandomKey
from later import later
from pipelines import tiny_pipeline
from tiers import fast_first

stable_diffusion = later("attnshift.diffusion.stable_diffusion")

KEY = RandomKey(5, ("a", "b"), 3)
OPTIONS = Purification(0.1, 10, gradient="bpda")


def slope(defended: Defended, images: Tensor, key: RandomKey) -> tuple[Tensor, Tensor]:
    leaf = images.clone().requires_grad_()
    logits = defended(leaf, key)
    return logits.detach(), torch.autograd.grad(logits[:, 0].sum(), leaf)[0]


def behind(**options: object) -> Defended:
    return Defended(small_classifier(), replace(OPTIONS, **options).on(small_backbone()))  # type: ignore[arg-type]


def test_bpda_is_the_classifiers_gradient_at_the_purified_image() -> None:
    defended, images = behind(), pictures(2)
    assert isinstance(defended.defence, AttackedPurifier)
    purified = defended.defence._seen(images, KEY, 0)
    leaf = purified.clone().requires_grad_()
    (expected,) = torch.autograd.grad(small_classifier()(leaf)[:, 0].sum(), leaf)
    logits, gradient = slope(defended, images, KEY)
    assert (purified - images).abs().mean() > 1e-3
    torch.testing.assert_close(logits, small_classifier()(purified))
    torch.testing.assert_close(gradient, expected)


def test_the_exact_gradient_is_that_of_finite_differences() -> None:
    pipeline = tiny_pipeline(size=32)
    for module in (pipeline.vae, pipeline.unet, pipeline.text_encoder):
        module.double()
    purifier = replace(OPTIONS, gradient="exact", draws=2).on(stable_diffusion.StableDiffusion(pipeline, "tiny"))
    assert isinstance(purifier, AttackedPurifier)
    alone = select_rows(KEY, slice(0, 1))
    draw = torch.Generator().manual_seed(0)
    weights, direction = torch.randn(2, 1, 3, 32, 32, generator=draw, dtype=torch.float64)
    image = pictures(1, 32).double()

    def value(images: Tensor) -> Tensor:
        return purifier.poll(lambda seen: (seen * weights).flatten(1).sum(1, keepdim=True), images, alone).sum()

    leaf = image.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(value(leaf), leaf)
    with torch.no_grad():
        difference = (value(image + 1e-5 * direction) - value(image - 1e-5 * direction)) / 2e-5
    assert float(difference.abs()) > 1e-3
    torch.testing.assert_close((gradient * direction).sum(), difference, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("gradient", fast_first(["bpda", "exact"]))
def test_batch_mates_change_no_gradient(gradient: str) -> None:
    defended, images = behind(gradient=gradient), pictures(2)
    together = slope(defended, images, KEY)
    alone = slope(defended, images[1:], select_rows(KEY, slice(1, 2)))
    torch.testing.assert_close(alone[0], together[0][1:], rtol=1e-4, atol=1e-5)
    assert (alone[1] - together[1][1:]).norm() <= 1e-4 * alone[1].norm()


def test_draws_belong_to_the_key_and_logits_are_their_mean() -> None:
    defended, images = behind(), pictures(2)
    purifier = defended.defence
    assert isinstance(purifier, AttackedPurifier)
    first = purifier._seen(images, KEY, 0)
    others = [replace(KEY, iteration=4), replace(KEY, view=1), replace(KEY, ids=("b", "a")), None]
    for key in others:
        assert not torch.equal(purifier._seen(images, key, 0), first)
    mean = torch.stack([small_classifier()(purifier._seen(images, KEY, draw)) for draw in (0, 1)]).mean(0)
    torch.testing.assert_close(behind(draws=2)(images, KEY), mean)


def test_surrogates_draw_anew_in_every_iteration_and_view() -> None:
    seen: list[RandomKey] = []

    def classifier(images: Tensor, key: RandomKey) -> Tensor:
        seen.append(key)
        return images.flatten(1)

    classifier.takes_key = True  # type: ignore[attr-defined]
    surrogates = Surrogates(
        [classifier], CrossEntropy(), Goals(torch.tensor([0, 1])), views=(as_it_is, as_it_is), key=KEY
    )
    images = torch.rand(2, 3, 1, 1)
    surrogates.at(7).gradients(images)
    select_rows(surrogates, slice(1, 2)).judge(images[1:])
    assert [(key.iteration, key.view, key.ids) for key in seen] == [
        (7, 0, ("a", "b")),
        (7, 1, ("a", "b")),
        (3, 0, ("b",)),
    ]


def test_a_chain_names_its_draws_and_its_work_counts() -> None:
    chain = Defended(behind(draws=2), JpegCompression(90))
    assert chain.takes_key
    assert chain.differentiable
    images, effort = pictures(2), Effort()
    (counted,) = effort.of_surrogates(Surrogates([chain], CrossEntropy(), Goals(torch.tensor([0, 1])))).classifiers
    expected, gradient = slope(chain, images, KEY)
    found, _ = slope(counted, images, KEY)  # type: ignore[arg-type]
    torch.testing.assert_close(found, expected)
    assert (gradient.flatten(1).norm(dim=1) > 0).all()
    assert (effort.gradients, effort.denoisings) == (2 * 2, 2 * 2)


def test_names() -> None:
    name = "purification(gradient=bpda, draws=4, prompt='a mug')+random:test_resnet"
    surrogate = load_surrogate(name, small_backbone)
    assert isinstance(surrogate, Defended)
    assert surrogate.defence.options == Purification(prompt="a mug", gradient="bpda", draws=4)  # type: ignore[union-attr]
    with pytest.raises(ModelError, match="needs a pipeline"):
        load_surrogate(name)
    with pytest.raises(RecipeError, match="draws average a gradient; set gradient"):
        load_surrogate("purification(draws=2)+random:test_resnet", small_backbone)


def test_jpeg_as_the_identity() -> None:
    images, weights = pictures(1), torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    leaf = images.clone().requires_grad_()
    compressed = JpegCompression(60, "bpda")(leaf)
    assert torch.equal(compressed, JpegCompression(60)(images))
    assert torch.equal(torch.autograd.grad((compressed * weights).sum(), leaf)[0], weights)
