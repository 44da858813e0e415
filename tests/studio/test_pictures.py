"""Pictures of the page, and masks that are painted on it."""

from __future__ import annotations

import numpy
import pytest

from attnshift.studio.pictures import SHOWN, difference, enlarged, overlay, painted


def test_a_difference_is_scaled_until_its_largest_change_fits() -> None:
    clean = numpy.full((4, 4, 3), 100, numpy.uint8)
    changed = clean.copy()
    changed[0, 0, 0], changed[1, 1, 1] = 90, 105
    picture, largest, factor = difference(clean, changed)
    assert (largest, factor) == (10, 12.7)
    assert (picture[0, 0, 0], picture[1, 1, 1], picture[2, 2, 2]) == (1, 192, 128)
    assert difference(clean, clean)[1:] == (0, 1.0)


def test_attention_is_brightest_where_it_is_most() -> None:
    image, attention = numpy.zeros((8, 8, 3), numpy.uint8), numpy.zeros((4, 4))
    attention[0, 0] = 0.5
    picture = overlay(image, attention, 0.5)
    assert picture.shape == (SHOWN, SHOWN, 3)
    brightness = picture.astype(int).sum(2)
    assert brightness[:100, :100].min() > brightness[300:, 300:].max()
    half = overlay(image, attention, 1.0).astype(int).sum(2)
    assert half[20, 20] < brightness[20, 20]


def test_only_small_pictures_are_enlarged() -> None:
    large = numpy.zeros((SHOWN, SHOWN, 3), numpy.uint8)
    assert enlarged(large) is large
    assert enlarged(large[:64, :64]).shape == large.shape


def layer(rows: slice) -> numpy.ndarray:
    pixels = numpy.zeros((64, 64, 4), numpy.uint8)
    pixels[rows, :, 3] = 200
    return pixels


@pytest.mark.parametrize(
    ("layers", "rows"), [([layer(slice(0, 32))], [0, 1]), ([layer(slice(0, 16)), layer(slice(48, 64))], [0, 3])]
)
def test_a_mask_is_all_that_was_painted(layers: list[numpy.ndarray], rows: list[int]) -> None:
    mask = painted({"layers": layers}, 4)
    assert mask is not None
    assert [row for row in range(4) if mask[row].all()] == rows
    assert set(numpy.unique(mask).tolist()) == {0, 255}


def test_nothing_painted_is_no_mask() -> None:
    assert painted(None, 4) is None
    assert painted({"layers": []}, 4) is None
    assert painted({"layers": [layer(slice(0, 0))]}, 4) is None
