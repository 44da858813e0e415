"""Numbers as text, and pictures of pixels."""

from __future__ import annotations

import base64
import io
import math

import numpy
import pytest
from PIL import Image

from attnshift.metrics.statistics import Estimate
from attnshift.report.figures import change_map, data_url, heat_overlay, number, percent


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        (Estimate(0.625, 0.484, 0.741, 48), "62 % [48, 74]"),
        (Estimate(0.0, 0.0, 0.2, 20), "0 % [0, 20]"),
        (Estimate(-0.25, -0.5, 0.0, 20), "-25 % [-50, 0]"),
        (Estimate(-0.001, -0.004, 0.001, 20), "0 % [0, 0]"),
        (Estimate(math.nan, 0.0, 1.0, 0), "–"),
    ],
)
def test_percent(estimate: Estimate, text: str) -> None:
    assert percent(estimate) == text


def test_number() -> None:
    assert number(Estimate(0.9314, 0.92, 0.941, 9)) == "0.931 [0.920, 0.941]"
    assert number(Estimate(31.0, 30.0, 32.0, 9), digits=1) == "31.0 [30.0, 32.0]"
    assert number(Estimate(math.inf, math.inf, math.inf, 0)) == "equal"


def test_a_data_url_is_a_png_of_the_same_pixels() -> None:
    pixels = numpy.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=numpy.uint8)
    head, _, body = data_url(pixels).partition(",")
    assert head == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(body))) as image:
        assert numpy.array_equal(numpy.asarray(image), pixels)


def test_the_brightest_place_of_a_map_has_changed_most() -> None:
    clean = numpy.full((1, 4, 3), 100, dtype=numpy.uint8)
    attack = clean + numpy.array([[[0, 0, 0], [0, 5, 1], [0, 0, 20], [10, 0, 0]]], dtype=numpy.uint8)
    assert change_map(clean, attack)[0].tolist() == [[0, 0, 0], [87, 15, 110], [252, 255, 163], [186, 54, 85]]
    assert not change_map(clean, clean).any()


def test_the_overlay_glows_where_attention_is_and_nowhere_else() -> None:
    image = numpy.full((64, 64, 3), 128, dtype=numpy.uint8)
    attention = numpy.zeros((4, 4))
    attention[1, 2] = 0.01
    picture = heat_overlay(image, attention.flatten().tolist(), 4, peak=0.01)
    assert picture.shape == image.shape
    assert picture.dtype == numpy.uint8
    row, column = numpy.unravel_index(picture[..., 0].argmax(), (64, 64))
    assert 16 <= row < 32
    assert 32 <= column < 48
    assert picture[-1, 0].tolist() == [57, 57, 57], "far away only darkened"
    dimmer = heat_overlay(image, attention.flatten().tolist(), 4, peak=0.02)
    assert 57 < dimmer[row, column, 0] < picture[row, column, 0], "half of the common peak glows less"


def test_the_overlay_of_no_attention_at_all() -> None:
    picture = heat_overlay(numpy.full((8, 8, 3), 100, dtype=numpy.uint8), [0.0] * 4, 2, peak=0.0)
    assert picture.max() == 45
