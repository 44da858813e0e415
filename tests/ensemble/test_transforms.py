"""Each transform does what its name says, image by image, and lets the gradient through."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import Any

import numpy
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, pad

from attnshift.ensemble.transforms import (
    BlockShuffle,
    Colour,
    Jpeg,
    Noise,
    ResizeAndPad,
    Rotate,
    ScaleAndShift,
    Spectrum,
    Transform,
)
from attnshift.errors import RecipeError
from attnshift.randomness import generator
from attnshift.registry import Entry, Table, build

ALL: list[Transform] = [Rotate(), ScaleAndShift(), ResizeAndPad(0.5), Colour(), Noise(), Jpeg()]
ALL += [BlockShuffle(3), Spectrum()]
NEUTRAL = [Rotate(0.0), ScaleAndShift((1.0, 1.0), 0.0), ResizeAndPad(1.0), Colour(0.0, 0.0, 0.0, 0.0), Noise(0.0)]
NEUTRAL += [BlockShuffle(1, 0.0), Spectrum(0.0, 0.0)]
STRONG = [Rotate(180.0), ScaleAndShift((0.3, 3.0), 0.5), ResizeAndPad(0.3), Colour(1.0, 1.0, 1.0, 0.5), Noise(1.0)]
STRONG += [BlockShuffle(5, 180.0), Spectrum(1.0, 1.0)]
ASKS = (Noise, Spectrum, BlockShuffle)
"""Transforms whose number of draws depends on the size or the options."""
SIZES = [(20, 20), (37, 37), (20, 37)]


def with_every_transform(transforms: list[Any]) -> Callable[..., Any]:
    return pytest.mark.parametrize("transform", transforms, ids=[type(each).__name__ for each in transforms])


def generators(count: int, first: int = 0) -> list[numpy.random.Generator]:
    return [generator("test of transforms", number) for number in range(first, first + count)]


def pictures(count: int, height: int = 20, width: int = 20) -> Tensor:
    """Smooth colours in [0.2,0.8]."""
    drawn = torch.rand(count, 3, height + 6, width + 6, generator=torch.Generator().manual_seed(height + width))
    smooth = avg_pool2d(drawn, 7, stride=1)
    low, high = smooth.amin((2, 3), True), smooth.amax((2, 3), True)
    return 0.2 + 0.6 * (smooth - low) / (high - low)


def gradient(transform: Transform, images: Tensor, drawn: list[numpy.random.Generator]) -> Tensor:
    """Of a fixed random linear form of each transformed image."""
    leaf = images.clone().requires_grad_()
    weights = torch.randn(images.shape[1:], generator=torch.Generator().manual_seed(5), dtype=images.dtype)
    (found,) = torch.autograd.grad((transform(leaf, drawn) * weights).sum(), leaf)
    return found


def luma(images: Tensor) -> Tensor:
    return (images * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1, keepdim=True)


def per_image(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32).view(-1, 1, 1, 1)


@with_every_transform(ALL)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_shape_and_type_are_kept_and_something_happens(transform: Transform, size: tuple[int, int]) -> None:
    shown = pictures(2, *size)
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        seen = transform(shown.to(dtype), generators(2))
        assert seen.shape == shown.shape
        assert seen.dtype == dtype
        assert ((seen.float() - shown).abs().mean((1, 2, 3)) > 2e-3).all()
        torch.testing.assert_close(seen.float(), transform(shown, generators(2)), atol=0.03, rtol=0)


def test_half_precision_does_not_move_pixels() -> None:
    """Stripes of 1 and 0: where they stand is not rounded as their values are."""
    shown = (torch.arange(256) // 4 % 2).float().expand(4, 3, 32, 256)
    transform = ScaleAndShift((0.9, 1.1), 0.3)
    seen = transform(shown.bfloat16(), generators(4))
    torch.testing.assert_close(seen.float(), transform(shown, generators(4)), atol=0.01, rtol=0)


@with_every_transform(ALL)
def test_device_follows_the_images(transform: Transform) -> None:
    assert transform(torch.zeros(2, 3, 20, 20, device="meta"), generators(2)).device.type == "meta"


@with_every_transform(NEUTRAL)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_neutral_options_are_the_identity(transform: Transform, size: tuple[int, int]) -> None:
    shown = pictures(3, *size)
    torch.testing.assert_close(transform(shown, generators(3)), shown, atol=1e-5, rtol=0)


@with_every_transform([*STRONG, Jpeg((1.0, 5.0))])
def test_values_stay_between_0_and_1(transform: Transform) -> None:
    noise = torch.rand(8, 3, 64, 64, generator=torch.Generator().manual_seed(1)).round()
    for shown in (noise, torch.ones_like(noise)):
        seen = transform(shown, generators(8))
        assert seen.isfinite().all()
        assert seen.min() >= 0
        assert seen.max() <= 1


@with_every_transform(ALL)
def test_an_image_depends_on_its_own_generator_alone(transform: Transform) -> None:
    shown = pictures(3, 24, 37)
    together, gradients = transform(shown, generators(3)), gradient(transform, shown, generators(3))
    assert torch.equal(transform(shown, generators(3)), together)
    for image in range(3):
        alone = transform(shown[image : image + 1], generators(1, first=image))
        assert (alone[0] - together[image]).norm() < 1e-5 * together[image].norm()
        found = gradient(transform, shown[image : image + 1], generators(1, first=image))
        assert (found[0] - gradients[image]).norm() < 1e-5 * gradients[image].norm()
        other = transform(shown[image : image + 1], generators(1, first=image + 1))
        assert (other[0] - together[image]).norm() > 1e-3 * together[image].norm()


@with_every_transform(ALL)
@pytest.mark.parametrize("count", [1, 2, 4])
def test_one_generator_per_image(transform: Transform, count: int) -> None:
    with pytest.raises(ValueError, match="zip"):
        transform(pictures(3), generators(count))


@with_every_transform([each for each in [*ALL, *NEUTRAL] if not isinstance(each, ASKS)])
def test_as_many_draws_whatever_the_size_and_the_options(transform: Transform) -> None:
    expected, strong = generators(1), [*STRONG, Jpeg()]
    next(each for each in strong if type(each) is type(transform))(pictures(1, 64, 48), expected)
    used = generators(1)
    transform(pictures(1, 20, 20), used)
    assert used[0].random() == expected[0].random()


@with_every_transform(ALL)
def test_gradient_is_right(transform: Transform) -> None:
    shown = pictures(1, 4, 5).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda images: transform(images, generators(1)), shown)


@with_every_transform(ALL)
def test_gradient_reaches_black_grey_and_white_images(transform: Transform) -> None:
    """Over a few draws, since a white image that is made brighter stays white."""
    shown = torch.tensor([0.0, 0.5, 1.0]).view(3, 1, 1, 1).expand(3, 3, 20, 20)
    found = torch.stack([gradient(transform, shown, generators(3, first)) for first in range(0, 18, 3)])
    assert found.isfinite().all()
    assert (found.abs().sum(0) > 0).float().mean((1, 2, 3)).min() > 0.9


def test_rotation_turns_about_the_centre() -> None:
    """A dot 8 px right of the centre of 61 x 51 pixels and 4 px below: y points down, and so the sine's sign."""
    y, x = torch.meshgrid(torch.arange(51) - 25.0, torch.arange(61) - 30.0, indexing="ij")
    dot = torch.exp(-((x - 8) ** 2 + (y - 4) ** 2) / 4).expand(40, 3, 51, 61)
    seen = Rotate(30.0)(dot, generators(40))[:, 1]
    mass = seen.sum((1, 2))
    found = torch.stack([(seen * x).sum((1, 2)) / mass, (seen * y).sum((1, 2)) / mass], 1)
    degrees = [each.uniform(-30, 30) for each in generators(40)]
    assert min(degrees) < -25
    assert max(degrees) > 25
    angles = torch.tensor(degrees).deg2rad()
    cos, sin = angles.cos(), angles.sin()
    expected = torch.stack([8 * cos + 4 * sin, 4 * cos - 8 * sin], 1).float()
    torch.testing.assert_close(found, expected, atol=0.02, rtol=0)


def test_rotation_opens_no_dark_corners() -> None:
    shown = torch.ones(20, 3, 20, 32)
    torch.testing.assert_close(Rotate(180.0)(shown, generators(20)), shown)


def mirrored(positions: Tensor, last: int) -> Tensor:
    """Reflected at the centres of the first and the last pixel."""
    positions = positions.remainder(2 * last)
    return torch.minimum(positions, 2 * last - positions)


def test_scale_and_shift_moves_ramps_as_computed() -> None:
    """Red is a ramp to the right, green one downwards: they show where each pixel came from, also outside."""
    height, width = 20, 33
    y, x = torch.meshgrid(torch.arange(float(height)), torch.arange(float(width)), indexing="ij")
    shown = torch.stack([x / width, y / height, 0 * x]).expand(40, 3, height, width)
    seen = ScaleAndShift((0.5, 1.6), 0.3)(shown, generators(40))
    for image, drawn in zip(seen, generators(40), strict=True):
        scale, right, down = drawn.uniform(0.5, 1.6), drawn.uniform(-0.3, 0.3), drawn.uniform(-0.3, 0.3)
        from_x = (x - (width - 1) / 2 - right * width) / scale + (width - 1) / 2
        from_y = (y - (height - 1) / 2 - down * height) / scale + (height - 1) / 2
        torch.testing.assert_close(image[0] * width, mirrored(from_x, width - 1), atol=1e-3, rtol=0)
        torch.testing.assert_close(image[1] * height, mirrored(from_y, height - 1), atol=1e-3, rtol=0)


def box(lit: Tensor) -> tuple[int, int]:
    """First and one past the last of [positions] that are lit, which must be in one piece."""
    at = lit.nonzero().flatten()
    first, end = int(at[0]), int(at[-1]) + 1
    assert len(at) == end - first
    return first, end


def test_resize_and_pad_is_interpolation_and_padding() -> None:
    height, width = 20, 30
    shown = pictures(60, height, width)
    shares, rooms = [], []
    for image, seen in zip(shown, ResizeAndPad(0.5)(shown, generators(60)), strict=True):
        (top, bottom), (left, right) = box(seen.amax((0, 2)) > 0), box(seen.amax((0, 1)) > 0)
        rows, columns = bottom - top, right - left
        small = interpolate(image[None], (rows, columns), mode="bilinear", align_corners=False)
        expected = pad(small, (left, width - right, top, height - bottom))[0]
        torch.testing.assert_close(seen, expected, atol=1e-4, rtol=0)
        assert (seen[:, top:bottom, left:right].mean() - image.mean()).abs() < 0.02
        shares.append((rows / height, columns / width))
        rooms += [top / (height - rows)] if rows < height else []
        rooms += [left / (width - columns)] if columns < width else []
    for rows, columns in shares:
        assert 0.5 <= rows <= 1
        assert 0.5 <= columns <= 1
        assert abs(rows - columns) < 1 / height
    assert len(set(shares)) > 10
    assert min(shares) <= (0.55, 0.55)
    assert max(shares) == (1, 1)
    assert min(rooms) == 0
    assert max(rooms) == 1
    assert 0.4 < sum(rooms) / len(rooms) < 0.6


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_blocks_change_places_and_nothing_is_lost(size: tuple[int, int]) -> None:
    """Red and green say where a pixel was: all come back, each beside its neighbour but at the edges of blocks."""
    height, width = size
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    shown = torch.stack([x / width, y / height, 0 * x]).expand(20, 3, height, width)
    found = set()
    for seen in BlockShuffle(3, 0.0)(shown, generators(20)):
        columns, rows = (seen[0] * width).floor().long(), (seen[1] * height).floor().long()
        assert (rows * width + columns).flatten().sort().values.equal(torch.arange(height * width))
        beside = (columns.diff(dim=1) == 1) & (rows.diff(dim=1) == 0)
        below = (rows.diff(dim=0) == 1) & (columns.diff(dim=0) == 0)
        assert min(each.float().mean() for each in (beside, below)) > 0.6
        found.add((int(columns[0, 0]), int(rows[0, 0])))
    assert len(found) > 10


def test_a_block_turns_about_its_own_centre() -> None:
    """One block turns as a whole image, the other way round where strips lie."""
    shown, drawn = pictures(20, 31, 40), generators(20)
    lying = [bool(each.uniform(size=5)[0] < 0.5) for each in drawn]
    turned, again = Rotate(30.0)(shown, drawn), generators(20)
    for each in again:
        each.uniform(size=5)
    mirrored = Rotate(30.0)(shown.flip(2), again).flip(2)
    expected = torch.stack([mirrored[at] if lies else turned[at] for at, lies in enumerate(lying)])
    torch.testing.assert_close(BlockShuffle(1, 30.0)(shown, generators(20)), expected, atol=1e-4, rtol=0)
    assert 0 < sum(lying) < 20


def test_the_spectrum_is_multiplied() -> None:
    from scipy.fft import dctn

    shown, options = 0.3 + 0.4 * pictures(4, 20, 37).double(), Spectrum(0.01, 0.2)
    seen = options(shown, generators(4))
    for image, changed, drawn in zip(shown.numpy(), seen.numpy(), generators(4), strict=True):
        noisy = image + 0.01 * drawn.standard_normal(image.shape)
        factors = drawn.uniform(0.8, 1.2, image.shape)
        expected = dctn(noisy, axes=(1, 2), norm="ortho") * factors
        assert numpy.abs(dctn(changed, axes=(1, 2), norm="ortho") - expected).max() < 1e-9  # type: ignore[operator]


def test_brightness_multiplies() -> None:
    shown = 0.7 * pictures(60)
    factors = [each.uniform(0.6, 1.4) for each in generators(60)]
    seen = Colour(0.4, 0.0, 0.0, 0.0)(shown, generators(60))
    torch.testing.assert_close(seen, shown * per_image(factors))
    assert min(factors) < 0.65
    assert max(factors) > 1.35


def test_contrast_multiplies_differences_from_the_mean_luma() -> None:
    shown = 0.25 + 0.5 * pictures(10)
    factors = [each.uniform([1, 0.6], [1, 1.4])[1] for each in generators(10)]
    mean = luma(shown).mean((2, 3), True)
    seen = Colour(0.0, 0.4, 0.0, 0.0)(shown, generators(10))
    torch.testing.assert_close(seen, mean + per_image(factors) * (shown - mean))


def test_saturation_multiplies_differences_from_the_luma() -> None:
    shown = 0.25 + 0.5 * pictures(10)
    factors = [each.uniform([1, 1, 0.6], [1, 1, 1.4])[2] for each in generators(10)]
    seen = Colour(0.0, 0.0, 0.4, 0.0)(shown, generators(10))
    torch.testing.assert_close(seen, luma(shown) + per_image(factors) * (shown - luma(shown)))


def chroma(images: Tensor) -> Tensor:
    """U + iV, [batch,height,width]."""
    difference = images - luma(images)
    return torch.complex(0.492 * difference[:, 2], 0.877 * difference[:, 0])


@pytest.mark.parametrize("saturation", [0.0, 0.4])
def test_hue_turns_the_chroma(saturation: float) -> None:
    shown = 0.4 + 0.2 * pictures(10)
    low, high = [1, 1, 1 - saturation, -0.3], [1, 1, 1 + saturation, 0.3]
    factors, turns = torch.tensor(numpy.array([each.uniform(low, high)[2:] for each in generators(10)])).float().T
    seen = Colour(0.0, 0.0, saturation, 0.3)(shown, generators(10))
    torch.testing.assert_close(luma(seen), luma(shown))
    turn = torch.polar(factors, 2 * math.pi * turns).view(-1, 1, 1)
    torch.testing.assert_close(chroma(seen), turn * chroma(shown), atol=1e-5, rtol=0)
    assert turns.abs().max() > 0.2


def test_colour_is_clamped_once_in_the_end() -> None:
    """Brighter than white and back: what leaves [0,1] on the way is not lost."""
    shown = pictures(40)
    shown[:, :, :, 10:] = 1.0
    brightness, contrast = zip(*[each.uniform([0.6, 0.6], [1.4, 1.4]) for each in generators(40)], strict=True)
    brighter = shown * per_image(list(brightness))
    mean = luma(brighter).mean((2, 3), True)
    expected = (mean + per_image(list(contrast)) * (brighter - mean)).clamp(0, 1)
    torch.testing.assert_close(Colour(0.4, 0.4, 0.0, 0.0)(shown, generators(40)), expected, atol=1e-5, rtol=0)


def test_colour_has_the_same_gradient_at_every_colour() -> None:
    """Saturation and hue are linear; HSV's are not, and pass only a part at grey, black and white."""
    colours = torch.tensor([[0.4, 0.5, 0.6], [0.6, 0.5, 0.5], [0.5, 0.5, 0.5], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    shown = colours[:, :, None, None].expand(5, 3, 4, 4)
    same = [generator("colour") for _ in range(5)]
    found = gradient(Colour(0.0, 0.0, 0.5, 0.5), shown, same)
    assert (found[0, 0] - found[0, 1]).abs().min() > 1e-3
    torch.testing.assert_close(found, found[:1].expand_as(found))


def test_noise_is_added_to_every_pixel() -> None:
    shown = pictures(2, 37, 64)
    seen = Noise(0.05)(shown, generators(2))
    expected = shown + 0.05 * torch.from_numpy(
        numpy.stack([each.standard_normal((3, 37, 64)) for each in generators(2)])
    )
    torch.testing.assert_close(seen, expected.clamp(0, 1).float())
    change = seen - shown
    assert change.std((1, 2, 3)).sub(0.05).abs().max() < 0.002
    assert change.mean((1, 2, 3)).abs().max() < 0.002
    assert (change[:, 0] * change[:, 1]).mean().abs() < 0.05 * 0.05 * 0.1


def pillow(images: Tensor, quality: int) -> Tensor:
    decoded = []
    for image in images:
        file = io.BytesIO()
        pixels = (image * 255).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling="4:2:0")
        decoded.append(torch.from_numpy(numpy.array(Image.open(file))).permute(2, 0, 1) / 255)
    return torch.stack(decoded)


@pytest.mark.parametrize("size", [(64, 64), (37, 20)], ids=str)
def test_jpeg_is_like_a_jpeg_file_of_the_same_quality(size: tuple[int, int]) -> None:
    """On average within 1.2% of the range, and nearer to this quality's file than to any other's.

    Not equal: the codec's rounding is soft, its quantisation steps are off by up to an eighth, and a file's chroma is
    averaged over 2 x 2 pixels.
    """
    texture = torch.rand(6, 1, *size, generator=torch.Generator().manual_seed(0))
    shown = 0.3 + 0.3 * pictures(6, *size) + 0.2 * texture
    qualities = (10, 30, 55, 75, 90)
    files = {quality: pillow(shown, quality) for quality in qualities}
    for quality in qualities:
        seen = Jpeg((quality, quality))(shown, generators(6))
        distance = {other: float((seen - files[other]).abs().mean()) for other in qualities}
        assert distance[quality] < 0.012
        assert min(distance, key=lambda other: distance[other]) == quality
        assert distance[quality] < 0.5 * float((files[quality] - shown).abs().mean())


def test_jpeg_draws_a_quality_for_each_image() -> None:
    shown = pictures(1, 32, 32).expand(30, 3, 32, 32)
    seen = Jpeg((20.0, 80.0))(shown, generators(30))
    qualities = [each.uniform(20, 80) for each in generators(30)]
    for image, quality in zip(seen, qualities, strict=True):
        torch.testing.assert_close(image[None], Jpeg((quality, quality))(shown[:1], generators(1)))


TABLE = Table(
    "transform",
    {
        name: Entry("", "", f"attnshift.ensemble.transforms:{name}")
        for name in ("Rotate", "ScaleAndShift", "ResizeAndPad", "Colour", "Noise", "Jpeg")
    },
)


@pytest.mark.parametrize("name", TABLE)
def test_options_may_be_left_out(name: str) -> None:
    built = build(TABLE, name, {})
    assert built == type(built)()


def test_ranges_from_a_recipe() -> None:
    options = {"scale": [1, 1.5], "shift": 0}
    assert build(TABLE, "ScaleAndShift", options) == ScaleAndShift((1.0, 1.5), 0.0)
    assert build(TABLE, "Jpeg", {"quality": [100, 100]}) == Jpeg((100.0, 100.0))


@pytest.mark.parametrize(
    ("name", "options", "complaint"),
    [
        ("Rotate", {"degrees": -1}, "degrees: Input should be greater than or equal to 0"),
        ("Rotate", {"degrees": 181}, "degrees"),
        ("Rotate", {"angle": 1}, "angle"),
        ("ScaleAndShift", {"scale": [1.1, 0.9]}, "scale: .*the first number must not exceed the second"),
        ("ScaleAndShift", {"scale": [0, 1]}, "scale.0"),
        ("ScaleAndShift", {"scale": [1, 11]}, "scale.1"),
        ("ScaleAndShift", {"scale": [1]}, "scale"),
        ("ScaleAndShift", {"shift": 1.1}, "shift"),
        ("ResizeAndPad", {"smallest": 0}, "smallest"),
        ("ResizeAndPad", {"smallest": 1.1}, "smallest"),
        ("Colour", {"brightness": 1.1}, "brightness"),
        ("Colour", {"contrast": -0.1}, "contrast"),
        ("Colour", {"saturation": "0.1"}, "saturation"),
        ("Colour", {"hue": 0.6}, "hue"),
        ("Noise", {"std": -0.1}, "std"),
        ("Jpeg", {"quality": [95, 50]}, "quality: .*the first number must not exceed the second"),
        ("Jpeg", {"quality": [0, 50]}, "quality.0"),
        ("Jpeg", {"quality": [50, 101]}, "quality.1"),
    ],
)
def test_bad_options_are_refused_in_one_line(name: str, options: dict[str, object], complaint: str) -> None:
    with pytest.raises(RecipeError, match=rf"transform '{name}': {complaint}") as caught:
        build(TABLE, name, options)
    assert "\n" not in str(caught.value)
