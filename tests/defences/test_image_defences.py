"""Defences that change the image, against other libraries or plain counts."""

from __future__ import annotations

import io

import numpy
import pytest
import torch
from PIL import Image
from torch import Tensor

from attnshift.data.images import quantise
from attnshift.defences.bit_depth import BitDepth
from attnshift.defences.gaussian_blur import GaussianBlur
from attnshift.defences.jpeg import JpegCompression
from attnshift.defences.median import Median
from attnshift.defences.resize_and_pad import RandomResizeAndPad
from later import later

enhance = later("kornia.enhance")
filters = later("kornia.filters")
functional = later("torchvision.transforms.functional")


def pictures(count: int = 2, height: int = 40, width: int = 56) -> Tensor:
    """Smooth colours with noise, not on 8-bit values."""
    draw = torch.Generator().manual_seed(3)
    smooth = torch.nn.functional.interpolate(
        torch.rand(count, 3, 4, 4, generator=draw), (height, width), mode="bicubic"
    )
    return (smooth + 0.05 * torch.randn(smooth.shape, generator=draw)).clamp(0, 1)


@pytest.mark.parametrize("quality", [10, 75, 100])
def test_jpeg_is_what_a_file_holds(quality: int) -> None:
    shown = pictures()
    for image, seen in zip(shown, JpegCompression(quality)(shown), strict=True):
        pixels = (image * 255).round().byte().permute(1, 2, 0).numpy()
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=quality)
        held = numpy.asarray(Image.open(io.BytesIO(file.getvalue())))
        assert torch.equal((seen * 255).round().byte().permute(1, 2, 0), torch.from_numpy(held.copy()))
        assert torch.equal(seen, quantise(seen))


def test_jpeg_costs_more_at_lower_quality() -> None:
    shown = pictures()
    errors = [float((JpegCompression(quality)(shown) - shown).square().mean()) for quality in (95, 75, 30, 5)]
    assert errors == sorted(errors)


def test_jpeg_has_the_files_values_and_the_codecs_gradient() -> None:
    leaf, weights = pictures().requires_grad_(), torch.randn(2, 3, 40, 56)
    seen = JpegCompression(90)(leaf)
    assert torch.equal(seen, JpegCompression(90)(leaf.detach()))
    codec = enhance.jpeg_codec_differentiable(leaf, torch.tensor([90.0]))
    gradients = [torch.autograd.grad((each * weights).sum(), leaf)[0] for each in (seen, codec)]
    assert torch.equal(*gradients)
    assert float((codec - seen).detach().abs().mean()) < 0.02


def test_jpeg_takes_what_noise_has_pushed_out_of_range() -> None:
    assert (JpegCompression(95)(torch.full((1, 3, 16, 16), 1.2)) > 0.98).all()
    assert (JpegCompression(95)(torch.full((1, 3, 16, 16), -0.2)) < 0.02).all()


def test_bit_depth_by_hand() -> None:
    values = torch.tensor([0.0, 0.16, 0.17, 0.49, 0.51, 0.83, 0.84, 1.0])
    expected = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3]) / 3
    images = values.expand(1, 3, 2, 8)
    torch.testing.assert_close(BitDepth(2)(images), expected.expand(1, 3, 2, 8))
    assert torch.equal(BitDepth(1)(images).unique(), torch.tensor([0.0, 1.0]))
    assert torch.equal(BitDepth(8)(quantise(pictures())), quantise(pictures()))


def test_bit_depths_gradient_passes_straight_through() -> None:
    leaf, weights = pictures().requires_grad_(), torch.randn(2, 3, 40, 56)
    (gradient,) = torch.autograd.grad((BitDepth(3)(leaf) * weights).sum(), leaf)
    assert torch.equal(gradient, weights)


@pytest.mark.parametrize("size", [3, 5])
def test_median_of_an_odd_window(size: int) -> None:
    shown = pictures()
    torch.testing.assert_close(
        Median(size)(shown), filters.median_blur(shown, size, border_type="replicate"), rtol=0, atol=1e-6
    )


def test_median_of_two_by_two_by_hand() -> None:
    """The result is that of scipy's median_filter: the third of four values up and left."""
    image = torch.tensor([[0.1, 0.9, 0.3], [0.4, 0.2, 0.8], [0.7, 0.6, 0.5]])
    expected = torch.tensor([[0.1, 0.9, 0.9], [0.4, 0.4, 0.8], [0.7, 0.6, 0.6]])
    assert torch.equal(Median(2)(image.expand(1, 3, 3, 3)), expected.expand(1, 3, 3, 3))


def test_median_removes_single_pixels() -> None:
    image = torch.full((1, 3, 16, 16), 0.5)
    image[..., 4, 5], image[..., 0, 0], image[..., 9, 12] = 1.0, 0.0, 0.0
    assert torch.equal(Median(3)(image), torch.full_like(image, 0.5))


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.5])
def test_gaussian_blur(sigma: float) -> None:
    shown, size = pictures(), 2 * int(numpy.ceil(3 * sigma)) + 1
    expected = functional.gaussian_blur(shown, [size, size], [sigma, sigma])
    torch.testing.assert_close(GaussianBlur(sigma)(shown), expected, rtol=0, atol=1e-5)


def test_a_blur_wider_than_the_image() -> None:
    seen = GaussianBlur(20.0)(pictures(height=8, width=12))
    assert seen.shape == (2, 3, 8, 12)
    assert seen.std((2, 3)).max() < 0.1


def test_resize_and_pad_keeps_the_content_on_black() -> None:
    """A white image shows its place: sides lie in the range, and places differ."""
    side, count = 60, 40
    # Not quite the same white, or all would be one content.
    white = torch.stack([torch.full((3, side, side), 1 - number / 255) for number in range(count)])
    seen = RandomResizeAndPad(0.7)(white)[:, 0] > 0.3
    sides = seen.any(1).sum(1)
    assert torch.equal(sides, seen.any(2).sum(1))
    assert 0.7 * side <= sides.min() < sides.max() <= side
    corners = {
        (int(rows.int().argmax()), int(columns.int().argmax()))
        for rows, columns in zip(seen.any(2), seen.any(1), strict=True)
    }
    assert len(corners) > count / 2


def test_what_is_drawn_belongs_to_the_file() -> None:
    """Images with the same 8-bit pixels get the same draws. Another size or pixel gets others."""
    shown = quantise(pictures(1))
    defence, bit = RandomResizeAndPad(0.5), shown.clone()
    bit[0, 0, 0, 0] += 1 / 255 if bit[0, 0, 0, 0] < 0.5 else -1 / 255
    first = defence(shown)
    torch.testing.assert_close(defence(shown + 1e-4), first, rtol=0, atol=2e-4)
    assert (defence(bit) - first).abs().mean() > 1e-2
    tall, wide = torch.full((1, 3, 40, 80), 0.5), torch.full((1, 3, 80, 40), 0.5)
    assert not torch.equal(defence(tall).flatten(2).sort().values, defence(wide).flatten(2).sort().values)
