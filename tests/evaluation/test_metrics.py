"""Distances against their formulas."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from attnshift.evaluation import METRICS
from attnshift.evaluation.metrics import l2, linf, psnr, ssim


@pytest.fixture
def pair() -> tuple[Tensor, Tensor]:
    """Three images and their edits, each edit stronger than the one before."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(3, 3, 32, 24, generator=generator)
    strength = torch.tensor([0.02, 0.1, 0.5]).view(3, 1, 1, 1)
    return images, (images + strength * torch.randn(images.shape, generator=generator)).clamp(0, 1)


def naive_ssim(reference: Tensor, candidate: Tensor) -> float:
    """Wang et al. 2004, equation 13, with a Gaussian window of 11 pixels and sigma 1.5; one image, in float64.

    Borders are reflected, as torchmetrics does; the paper's code leaves them out.
    """
    axis = torch.arange(-5, 6).double()
    window = torch.exp(-(axis**2) / (2 * 1.5**2))
    window = torch.outer(window, window) / window.sum() ** 2

    def local(values: Tensor) -> Tensor:
        padded = torch.nn.functional.pad(values.double().unsqueeze(1), (5, 5, 5, 5), mode="reflect")
        return torch.nn.functional.conv2d(padded, window[None, None])

    mean_x, mean_y = local(reference), local(candidate)
    square_x, square_y = local(reference.double() ** 2) - mean_x**2, local(candidate.double() ** 2) - mean_y**2
    product = local(reference.double() * candidate.double()) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    index = (2 * mean_x * mean_y + c1) * (2 * product + c2)
    return float((index / ((mean_x**2 + mean_y**2 + c1) * (square_x + square_y + c2))).mean())


def test_ssim_against_the_formula(pair: tuple[Tensor, Tensor]) -> None:
    expected = [naive_ssim(*both) for both in zip(*pair, strict=True)]
    assert ssim(*pair).tolist() == pytest.approx(expected, abs=1e-4)
    assert expected[0] > 0.95 > 0.6 > expected[2]


def test_psnr_against_the_formula(pair: tuple[Tensor, Tensor]) -> None:
    errors = [float((x.double() - y.double()).square().mean()) for x, y in zip(*pair, strict=True)]
    expected = [float(-10 * torch.log10(torch.tensor(error))) for error in errors]
    assert psnr(*pair).tolist() == pytest.approx(expected, rel=1e-5)


def test_l2_and_linf_of_a_known_change() -> None:
    image = torch.full((2, 3, 16, 16), 0.5)
    edit = image.clone()
    edit[1, 0, 0, 0] += 0.3
    edit[1, 2, 5, 5] -= 0.4
    assert l2(image, edit).tolist() == pytest.approx([0, 0.5])
    assert linf(image, edit).tolist() == pytest.approx([0, 0.4])


def test_equal_images(pair: tuple[Tensor, Tensor]) -> None:
    image = pair[0]
    assert ssim(image, image).tolist() == pytest.approx([1, 1, 1], abs=1e-6)
    assert psnr(image, image).isposinf().all()
    assert l2(image, image).tolist() == linf(image, image).tolist() == [0, 0, 0]


@pytest.mark.parametrize("name", METRICS)
def test_one_value_per_image_that_batch_mates_do_not_change(pair: tuple[Tensor, Tensor], name: str) -> None:
    metric = METRICS[name].load()
    together = metric(*pair)
    alone = [metric(x[None], y[None]) for x, y in zip(*pair, strict=True)]
    assert together.shape == (3,)
    assert all(value.shape == (1,) for value in alone)
    assert torch.allclose(together, torch.cat(alone), atol=1e-6)
