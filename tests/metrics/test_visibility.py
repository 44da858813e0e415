"""Visibility on lab images, whose masks are exact, and against a naive formula."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor

from attnshift.data.images import quantise
from attnshift.metrics.metrics import ssim
from attnshift.metrics.visibility import contrast_kept, object_ssim, surroundings
from lab_scenes import rendered
from later import later

if TYPE_CHECKING:
    from attnshift.lab.render import Rendering

filters = later("kornia.filters")


@pytest.fixture(scope="module")
def shown() -> Rendering:
    """Six classes, of different colours, on different floors."""
    return rendered((0, 2, 3, 5, 7, 9))


def seen(shown: Rendering, edit: Tensor) -> tuple[Tensor, Tensor]:
    """Structure and contrast that the 8-bit ``edit`` leaves of each object."""
    saved = quantise(edit.clamp(0, 1))
    return object_ssim(shown.images, saved, shown.masks), contrast_kept(shown.images, saved, shown.masks)


def around(shown: Rendering) -> Tensor:
    """The mean colour of each object's surroundings, [batch,3,1,1]."""
    ring = surroundings(shown.masks)
    return ((shown.images * ring).sum((2, 3)) / ring.sum((2, 3)))[:, :, None, None]


def blend(shown: Rendering, share: float) -> Tensor:
    """The object with this share of its contrast."""
    edit = around(shown) + share * (shown.images - around(shown))
    return shown.masks * edit + (1 - shown.masks) * shown.images


def noisy(shown: Rendering, deviation: float) -> Tensor:
    noise = torch.randn(shown.images.shape, generator=torch.Generator().manual_seed(0))
    return shown.images + deviation * noise


def blurred(shown: Rendering, sigma: float) -> Tensor:
    side = 2 * round(3 * sigma) + 1
    return filters.gaussian_blur2d(shown.images, (side, side), (sigma, sigma))


def inpainted(shown: Rendering) -> Tensor:
    """The object replaced by what its surroundings become when they flow into the hole."""
    hole = (shown.masks > 0).float()
    edit = around(shown) * hole + shown.images * (1 - hole)
    for _ in range(600):
        padded = torch.nn.functional.pad(edit, (1, 1, 1, 1), mode="replicate")
        edit = hole * torch.nn.functional.avg_pool2d(padded, 3, 1) + (1 - hole) * edit
    return edit


def test_an_unchanged_object_is_as_visible_as_before(shown: Rendering) -> None:
    structure, contrast = (each(shown.images, shown.images, shown.masks) for each in (object_ssim, contrast_kept))
    assert structure.tolist() == pytest.approx([1.0] * 6, abs=1e-5)
    assert contrast.tolist() == pytest.approx([1.0] * 6, abs=1e-5)


def test_an_object_painted_over_is_gone(shown: Rendering) -> None:
    structure, contrast = seen(shown, blend(shown, 0.0))
    assert contrast.abs().max() < 0.03
    assert structure.max() < 0.45, "flat parts of an object have little structure to lose"


def test_an_object_that_its_surroundings_flow_over_is_gone(shown: Rendering) -> None:
    structure, contrast = seen(shown, inpainted(shown))
    assert contrast.abs().mean() < 0.15
    assert structure.mean() < 0.45


@pytest.mark.parametrize("share", [0.9, 0.5, 0.2])
def test_contrast_kept_is_the_share_of_the_contrast_that_is_left(shown: Rendering, share: float) -> None:
    assert seen(shown, blend(shown, share))[1].tolist() == pytest.approx([share] * 6, abs=0.015)


@pytest.mark.parametrize("ring", ["lighter", "of the object's colour"])
def test_surroundings_that_change_count_by_their_mean_colour(shown: Rendering, ring: str) -> None:
    """The same object, and what is not at all its own: lighter all over, or camouflage."""
    background = (shown.masks == 0).float()
    own = ((shown.images * shown.masks).sum((2, 3)) / shown.masks.sum((2, 3)))[:, :, None, None]
    edit = torch.where(background > 0, shown.images + 0.1 if ring == "lighter" else own, shown.images)
    assert object_ssim(shown.images, edit, shown.masks).tolist() == pytest.approx([1.0] * 6, abs=1e-5)
    kept = contrast_kept(shown.images, edit, shown.masks)
    if ring == "lighter":
        assert (kept - 1).abs().max() > 0.05
    else:
        assert kept.max() < 0.8, "what is left is the pattern on the object"


LADDERS: dict[str, tuple[Callable[[Rendering, float], Tensor], tuple[float, ...]]] = {
    "contrast": (blend, (0.9, 0.75, 0.5, 0.25, 0.1)),
    "blur": (blurred, (0.5, 1.0, 2.0, 4.0, 8.0)),
    "noise": (noisy, (0.02, 0.05, 0.1, 0.2)),
}


@pytest.mark.parametrize("name", LADDERS)
def test_less_is_less(shown: Rendering, name: str) -> None:
    """Step by step further from the clean object, on every image, and never as far as nothing."""
    edit, steps = LADDERS[name]
    rungs = [seen(shown, edit(shown, step)) for step in steps]
    structure, contrast = (torch.stack(each) for each in zip(*rungs, strict=True))
    for values in (structure,) if name == "noise" else (structure, contrast):
        noise_schedule = torch.cat([torch.ones(1, 6), values])
        assert (noise_schedule[1:] < noise_schedule[:-1]).all()
        assert (noise_schedule > 0).all()
    if name == "noise":
        assert contrast.min() > 0.8, "noise hides detail and leaves the object's colour"


def test_a_negative_has_all_of_its_contrast_upside_down(shown: Rendering) -> None:
    structure, contrast = seen(shown, 1 - shown.images)
    assert contrast.tolist() == pytest.approx([-1.0] * 6, abs=0.01)
    assert structure.max() < 0.1


def test_what_lies_beyond_the_surroundings_counts_nowhere(shown: Rendering) -> None:
    beyond = (shown.masks == 0) & (surroundings(shown.masks) == 0)
    other = torch.rand(shown.images.shape, generator=torch.Generator().manual_seed(1))
    edit = torch.where(beyond, other, shown.images)
    assert not torch.equal(edit, shown.images)
    for measure in (object_ssim, contrast_kept):
        assert torch.equal(measure(shown.images, edit, shown.masks), measure(shown.images, shown.images, shown.masks))


def test_the_surroundings_are_a_ring_around_the_object(shown: Rendering) -> None:
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 20:30, 10:50] = 0.1
    ring = torch.zeros(1, 1, 64, 64)
    ring[..., 16:34, 6:54] = 1
    assert torch.equal(surroundings(mask), ring - (mask > 0).float())
    assert surroundings(mask[..., ::4, ::4]).sum() == (3 + 4) * (10 + 4) - 3 * 10, "at least 2 pixels"
    touched = shown.masks > 0
    assert not (touched & (surroundings(shown.masks) > 0)).any()


def naive_ssim(clean: Tensor, edit: Tensor, mask: Tensor) -> float:
    """SSIM of one channel [height,width], pixel by pixel, over what is covered."""
    height, width = mask.shape
    total = 0.0
    for row in range(height):
        for column in range(width):
            rows, columns = (
                torch.arange(max(0, at - 5), min(side, at + 6)) for at, side in ((row, height), (column, width))
            )
            window = torch.exp(-((rows - row)[:, None] ** 2 + (columns - column)[None] ** 2) / (2 * 1.5**2)).double()
            here = (slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1))
            weights = window * mask[here]
            weights = weights / weights.sum()
            x, y = clean[here], edit[here]
            mx, my = (weights * x).sum(), (weights * y).sum()
            vx, vy, xy = (
                (weights * a * b).sum() - c for a, b, c in ((x, x, mx * mx), (y, y, my * my), (x, y, mx * my))
            )
            value = (2 * mx * my + 0.0001) * (2 * xy + 0.0009) / ((mx**2 + my**2 + 0.0001) * (vx + vy + 0.0009))
            total += float(mask[row, column] * value)
    return total / float(mask.sum())


def test_object_ssim_against_a_naive_version() -> None:
    draw = torch.Generator().manual_seed(0)
    clean, edit = torch.rand(2, 1, 3, 14, 17, generator=draw, dtype=torch.float64)
    edit = 0.6 * clean + 0.4 * edit
    mask = torch.zeros(1, 1, 14, 17, dtype=torch.float64)
    mask[..., 3:12, 2:13] = torch.rand(9, 11, generator=draw, dtype=torch.float64)
    expected = sum(naive_ssim(clean[0, channel], edit[0, channel], mask[0, 0]) for channel in range(3)) / 3
    assert float(object_ssim(clean, edit, mask)) == pytest.approx(expected, rel=1e-9)


def test_of_an_object_that_fills_the_image_it_is_the_usual_ssim(shown: Rendering) -> None:
    """But for the border, which the usual one mirrors."""
    edit = noisy(shown, 0.05)
    whole = object_ssim(shown.images, edit, torch.ones_like(shown.masks))
    assert whole.tolist() == pytest.approx(ssim(shown.images, edit).tolist(), abs=0.01)


def test_without_an_object_or_surroundings_or_contrast_there_is_no_number(shown: Rendering) -> None:
    nothing, everything = torch.zeros_like(shown.masks), torch.ones_like(shown.masks)
    assert object_ssim(shown.images, shown.images, nothing).isnan().all()
    assert contrast_kept(shown.images, shown.images, nothing).isnan().all()
    assert contrast_kept(shown.images, shown.images, everything).isnan().all()
    flat = torch.full_like(shown.images, 0.5)
    assert contrast_kept(flat, shown.images, shown.masks).isnan().all()


def test_one_value_per_image_that_batch_mates_do_not_change(shown: Rendering) -> None:
    edit = noisy(shown, 0.1)
    for measure in (object_ssim, contrast_kept):
        together = measure(shown.images, edit, shown.masks)
        assert together.shape == (6,)
        alone = [measure(*(each[at : at + 1] for each in (shown.images, edit, shown.masks))) for at in range(6)]
        assert torch.allclose(together, torch.cat(alone), atol=1e-6)
