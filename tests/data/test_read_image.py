"""Every kind of image file that people have: read as they see it, or refused in one line."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image
from torch import Tensor

from attnshift.data import images as images_module
from attnshift.data.images import read_image
from attnshift.errors import ImageError

SIDE = 8
RED, BLUE, GREEN, WHITE, BLACK = (255, 0, 0), (0, 0, 255), (0, 255, 0), (255, 255, 255), (0, 0, 0)


def noise(width: int = SIDE, height: int = SIDE) -> Image.Image:
    return Image.fromarray(numpy.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=numpy.uint8))


def values(image: Tensor, row: int, column: int) -> tuple[int, ...]:
    return tuple(round(float(value) * 255) for value in image[:, row, column])


def png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    """A PNG from its parts, for what Pillow does not write."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def assert_refused(path: Path, *words: str) -> None:
    with pytest.raises(ImageError) as caught:
        read_image(path, SIDE)
    message = str(caught.value)
    assert len(message.splitlines()) == 1, "one line"
    assert str(path) in message, "names the file"
    assert any(word in message for word in ("replace", "convert it", "correct", "scale it")), "says what to do"
    for word in words:
        assert word in message


def test_rgb_pixels_are_read_exactly(tmp_path: Path) -> None:
    original = noise()
    original.save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png", SIDE)
    expected = torch.from_numpy(numpy.asarray(original).copy()).permute(2, 0, 1).float() / 255
    assert image.dtype == torch.float32
    assert torch.equal(image, expected)


def test_transparent_pixels_are_laid_on_white(tmp_path: Path) -> None:
    picture = Image.new("RGBA", (SIDE, SIDE), (255, 0, 0, 0))
    picture.paste((0, 0, 255, 255), (0, 0, SIDE // 2, SIDE))
    picture.putpixel((SIDE - 1, 0), (0, 0, 0, 51))
    picture.save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png", SIDE)
    assert values(image, 4, 1) == BLUE
    assert values(image, 4, SIDE - 1) == WHITE
    assert values(image, 0, SIDE - 1) == (204, 204, 204), "a fifth of black over white"


@pytest.mark.parametrize("name", ["a.png", "a.gif"])
def test_palette_with_transparency(tmp_path: Path, name: str) -> None:
    picture = Image.new("P", (SIDE, SIDE), 0)
    picture.putpalette([*RED, *BLUE, *GREEN])
    picture.paste(1, (0, 0, SIDE // 2, SIDE))
    picture.save(tmp_path / name, transparency=0)
    image = read_image(tmp_path / name, SIDE)
    assert values(image, 2, 1) == BLUE
    assert values(image, 2, SIDE - 1) == WHITE


@pytest.mark.parametrize(("mode", "grey"), [("L", 77), ("1", 1), ("LA", (77, 255))])
def test_grey_becomes_three_equal_channels(tmp_path: Path, mode: str, grey: int | tuple[int, int]) -> None:
    Image.new(mode, (SIDE, SIDE), grey).save(tmp_path / "a.png")
    assert values(read_image(tmp_path / "a.png", SIDE), 3, 3) == ((255,) if mode == "1" else (77,)) * 3


@pytest.mark.parametrize(("ink", "seen"), [((0, 0, 0, 0), WHITE), ((0, 0, 0, 255), BLACK), ((255, 0, 255, 0), GREEN)])
def test_cmyk(tmp_path: Path, ink: tuple[int, int, int, int], seen: tuple[int, int, int]) -> None:
    Image.new("CMYK", (SIDE, SIDE), ink).save(tmp_path / "a.tiff")
    assert values(read_image(tmp_path / "a.tiff", SIDE), 3, 3) == seen


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_turned_as_exif_says(tmp_path: Path, name: str) -> None:
    picture = Image.new("RGB", (SIDE, SIDE), BLUE)
    picture.paste(RED, (0, 0, SIDE, SIDE // 2))
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(tmp_path / name, exif=exif, **({"quality": 100, "subsampling": 0} if name.endswith("jpg") else {}))
    image = read_image(tmp_path / name, SIDE)
    right, left = values(image, 4, SIDE - 1), values(image, 4, 0)
    assert right[0] > 200 > 60 > right[2], "the stored top is seen on the right"
    assert left[2] > 200 > 60 > left[0]


@pytest.mark.parametrize("upright", [False, True])
def test_the_middle_of_an_image_that_is_not_square(tmp_path: Path, upright: bool) -> None:
    picture = Image.new("RGB", (3 * SIDE, SIDE), RED)
    picture.paste(noise(), (SIDE, 0))
    expected = numpy.asarray(noise())
    if upright:
        picture, expected = picture.transpose(Image.Transpose.TRANSPOSE), expected.transpose(1, 0, 2)
    picture.save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png", SIDE)
    assert numpy.array_equal((image * 255).round().byte().permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (501, 333)])
def test_any_size_becomes_the_side_that_is_asked_for(tmp_path: Path, size: tuple[int, int]) -> None:
    noise(*size).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png", SIDE)
    assert image.shape == (3, SIDE, SIDE)
    assert image.min() >= 0
    assert image.max() <= 1


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_more_than_8_bits_are_refused(tmp_path: Path, mode: str) -> None:
    Image.new(mode, (SIDE, SIDE), 40).save(tmp_path / "a.tiff")
    assert_refused(tmp_path / "a.tiff", "8-bit")


@pytest.mark.parametrize(("colour", "channels"), [(0, 1), (2, 3), (6, 4)])
def test_16_bit_png_is_refused(tmp_path: Path, colour: int, channels: int) -> None:
    row = b"\0" + struct.pack(">H", 1000) * channels * SIDE
    (tmp_path / "a.png").write_bytes(png(SIDE, SIDE, 16, colour, row * SIDE))
    assert_refused(tmp_path / "a.png", "8-bit")


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp"])
def test_truncated(tmp_path: Path, name: str) -> None:
    noise(64, 64).save(tmp_path / name)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    assert_refused(tmp_path / name)


@pytest.mark.parametrize("content", [b"", b"not an image\n", b"\x89PNG\r\n\x1a\n"])
def test_something_else_named_png(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.png").write_bytes(content)
    assert_refused(tmp_path / "a.png", "not a readable image")


def test_missing(tmp_path: Path) -> None:
    assert_refused(tmp_path / "a.png", "no such file")


def test_directory(tmp_path: Path) -> None:
    assert_refused(tmp_path)


@pytest.mark.parametrize("side", [9_000, 10_000, 20_000])
def test_too_many_pixels_are_refused_before_they_are_decoded(tmp_path: Path, side: int) -> None:
    """Around Pillow's own two thresholds, whose warning would be a second line."""
    (tmp_path / "a.png").write_bytes(png(side, side, 8, 2, b""))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_refused(tmp_path / "a.png")


def test_the_limit_is_counted_in_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise(10, 10).save(tmp_path / "a.png")
    monkeypatch.setattr(images_module, "LARGEST", 100)
    read_image(tmp_path / "a.png", SIDE)
    monkeypatch.setattr(images_module, "LARGEST", 99)
    assert_refused(tmp_path / "a.png", "10x10", "99")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP"])
def test_damage_is_an_image_error_and_nothing_else(tmp_path: Path, kind: str) -> None:
    """Flipped bytes and cuts at 150 seeded places: read after all, or refused in one line."""
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 3
    noise(24, 16).save(buffer, kind, **({"exif": exif} if kind in ("PNG", "JPEG", "WEBP", "TIFF") else {}))
    whole = buffer.getvalue()
    draw = numpy.random.default_rng(1)
    path = tmp_path / "damaged"
    complaints: list[str] = []
    for _ in range(150):
        content = bytearray(whole)
        for place in draw.integers(len(content), size=draw.integers(1, 6)):
            content[place] = draw.integers(256)
        cut = draw.integers(len(content)) if draw.random() < 0.3 else len(content)
        path.write_bytes(content[:cut])
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                image = read_image(path, SIDE)
        except ImageError as error:
            complaints.append(str(error))
        else:
            assert image.shape == (3, SIDE, SIDE)
    assert complaints, "some of the damage must have been noticed"
    assert all(len(complaint.splitlines()) == 1 for complaint in complaints)
