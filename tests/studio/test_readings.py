"""Where words look, as the page asks for it."""

from __future__ import annotations

import numpy

from attnshift.data.images import as_pixels
from attnshift.studio.readings import Attention, as_image


def attention() -> Attention:
    """Two layers, [steps,heads,words,side,side], whose values say where they come from."""
    fine = numpy.zeros((2, 1, 2, 4, 4), numpy.float16)
    coarse = numpy.zeros((2, 2, 2, 2, 2), numpy.float16)
    fine[1, 0, 1] = 0.5
    coarse[0, 1, 1] = 1.0
    return Attention(("a", "mug"), ("down 4 × 4", "mid 2 × 2"), (fine, coarse))


def test_a_map_is_the_mean_over_what_is_not_chosen() -> None:
    read = attention()
    assert read.map(1, layer=0).mean() == 0.25
    assert read.map(1, layer=0, step=1).mean() == 0.5
    assert read.map(1, layer=1, head=1, step=0).tolist() == [[1.0, 1.0], [1.0, 1.0]]
    assert read.map(1, layer=1, head=0).max() == 0
    both = read.map(1)
    assert both.shape == (4, 4)
    assert both.mean() == 0.25
    assert read.map(0).max() == 0


def test_only_one_layer_has_heads() -> None:
    assert [attention().heads(layer) for layer in (None, 0, 1)] == [0, 1, 2]


def test_pixels_come_back_from_an_image() -> None:
    pixels = numpy.arange(48, dtype=numpy.uint8).reshape(4, 4, 3)
    assert numpy.array_equal(as_pixels(as_image(pixels)), pixels)
