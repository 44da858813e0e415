"""What the benchmark compares has the shape that it says, and is the same work."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from later import later

models = later("models")
pieces = later("pieces")


def parameters(network: nn.Module) -> float:
    """In millions."""
    return sum(each.numel() for each in network.parameters()) / 1e6


@pytest.mark.parametrize(
    ("name", "lowest", "highest"), [("sd2", 865.9, 866.0), ("sd15", 859.4, 859.6), ("mini", 8, 10)]
)
def test_denoisers_have_the_size_that_they_are_said_to_have(name: str, lowest: float, highest: float) -> None:
    with torch.device("meta"):
        assert lowest < parameters(models.denoiser(models.SHAPES[name])) < highest


@pytest.mark.parametrize(("name", "lowest", "highest"), [("sd2", 83.6, 83.7), ("mini", 4, 6)])
def test_autoencoders_have_the_size_that_they_are_said_to_have(name: str, lowest: float, highest: float) -> None:
    with torch.device("meta"):
        assert lowest < parameters(models.autoencoder(models.SHAPES[name])) < highest


def test_all_shapes_are_one_layout() -> None:
    layers = []
    for shape in models.SHAPES.values():
        with torch.device("meta"):
            layers.append([name for name, _ in models.denoiser(shape).named_parameters()])
    assert all(names == layers[0] for names in layers)
    assert set(models.MODELS) == {"lab", *models.SHAPES}


@pytest.mark.heavy
def test_ours_and_the_baseline_agree_and_the_floor_is_the_same_chain() -> None:
    model = models.build("tiny")
    pieces.check_agreement(pieces.Prepared.of(model, "diffattack"))
    bare = pieces.Prepared.of(model, "diffattack", ["terms.variance.weight=0.0", "terms.self_attention.weight=0.0"])
    ours, floor = bare.ours().gradient, bare.floor()
    # The preset's classification loss is minus ten times the cross-entropy.
    assert (ours + 10 * floor).norm() < 1e-4 * ours.norm()


@pytest.mark.heavy
def test_a_batch_s_first_image_is_that_of_the_batch_of_one() -> None:
    model = models.build("tiny")
    one, two = (pieces.Prepared.of(model, "quick", batch=batch).ours().images for batch in (1, 2))
    # Up to rounding, which differs from processor to processor.
    torch.testing.assert_close(one[0], two[0], rtol=0, atol=1e-4)


@pytest.mark.heavy
def test_weights_in_bf16_keep_steps_losses_and_gradient_in_fp32() -> None:
    model = models.build("tiny")
    exact, halved = (
        pieces.Prepared.of(model, "diffattack").ours(),
        pieces.Prepared.of(models.in_bf16(model), "diffattack").ours(),
    )
    assert model.backbone.unet.dtype == torch.float32
    assert halved.gradient.dtype == halved.images.dtype == torch.float32
    assert all(values.dtype == torch.float32 for values in halved.losses.values())
    assert (halved.images - exact.images).abs().mean() < 0.01
    assert not torch.equal(halved.images, exact.images)


def test_a_checkpointed_decoder_keeps_less_for_backward_and_gives_the_same_gradient() -> None:
    backbone = models.build("tiny").backbone
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    kept, gradients = [], []
    for checkpointing in (False, True):
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda each, to=sizes: to.append(each.nbytes) or each, _same):
            images = backbone.decode(latents, checkpointing)
        kept.append(sum(sizes))
        gradients.append(torch.autograd.grad(images.square().sum(), latents)[0])
    assert kept[1] < kept[0] / 4
    assert torch.equal(*gradients)
    assert not backbone.vae.decoder.gradient_checkpointing


def _same(tensor: torch.Tensor) -> torch.Tensor:
    return tensor
