"""Encoded bytes that mean harm, or only look odd: each has its line or its pixels."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import warnings
import zlib
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image, ImageFile

from attnshift.data.images import decode_image, decode_mask, read_image, read_mask
from attnshift.data.references import Reference
from attnshift.errors import ImageError
from data.sources import one_line, picture, write_parquet, write_tar

SIDE = 8
RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, *chunks: bytes, depth: int = 8, colour: int = 2) -> bytes:
    """A PNG from its parts, for what Pillow does not write."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IEND", b"")


def rows(width: int, height: int, channels: int = 3) -> bytes:
    """Image data of black rows, compressed as they are made."""
    press = zlib.compressobj(9)
    return chunk(b"IDAT", b"".join(press.compress(bytes(1 + channels * width)) for _ in range(height)) + press.flush())


def saved(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def plain(colour: tuple[int, ...] | int | float, mode: str = "RGB") -> Image.Image:
    return Image.new(mode, (SIDE, SIDE), colour)


def refusal(content: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        decode_image(content, SIDE, "strange.png")
    message = one_line(caught.value)
    assert message.startswith("strange.png: ")
    assert " object at 0x" not in message, "the same words every time"
    return message


ZEROS = zlib.compress(bytes(10**7), 1)
"""Ten megabytes of zeros, in a fraction of one."""
TEXT_BOMB = chunk(b"zTXt", b"Comment\0\0" + ZEROS)
HTML = b"<!DOCTYPE html><html><body>404 Not Found</body></html>"
BAD_CHECKSUM = bytearray(picture(3))
BAD_CHECKSUM[-20] ^= 255


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not a readable image (it is empty)"),
        (HTML, "not a readable image (it is none of PNG, JPEG"),
        (picture(3)[:100], "not a readable image"),
        (bytes(BAD_CHECKSUM), "not a readable image"),
        (png(65500, 65500), "too many pixels; at most 64000000 are read; scale it down first"),
        (png(65500, 1000), "65500x1000 pixels; at most 64000000 are read; scale it down first"),
        (png(2**31 - 1, 2**31 - 1), "too many pixels"),
        (png(8, 8, TEXT_BOMB, rows(8, 8)), "not a readable image (Decompressed data too large"),
        (png(8, 8, chunk(b"iTXt", b"x\0\1\0\0\0" + ZEROS)), "not a readable image"),
        (png(8, 8, chunk(b"IDAT", zlib.compress(bytes(200 * 8), 9)), depth=16), "is not 8-bit"),
        (saved(plain(0.5, "F"), "TIFF"), "pixel format F is not 8-bit"),
        (saved(plain(40, "I;16"), "TIFF"), "pixel format I;16 is not 8-bit"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n", "it is none of"),
        (saved(plain(RED), "GIF")[:6] + b"\xff" * 4 + saved(plain(RED), "GIF")[10:], "too many pixels; at most"),
        (b"BM" + bytes(60), "not a readable image"),
    ],
    ids=["zero bytes", "HTML", "truncated", "bad CRC", "65500x65500", "65500x1000", "2**62",
         "zTXt bomb", "iTXt bomb", "16-bit PNG", "float TIFF", "16-bit TIFF", "EPS", "GIF bomb", "BMP of zeros"],
)  # fmt: skip
def test_refused_in_one_line(content: bytes, words: str) -> None:
    assert words in refusal(content)


def test_144_megapixels_are_refused_before_they_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of less than half a megabyte that would become as much memory as a thousand of them."""

    def decoded(image: Image.Image) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", decoded)
    content = png(12_000, 12_000, rows(12_000, 12_000, 1), colour=0)
    assert len(content) < 500_000
    assert "12000x12000 pixels; at most 64000000 are read; scale it down first" in refusal(content)


@pytest.mark.parametrize(
    ("content", "pixel"),
    [
        (png(1, 1, rows(1, 1)), (0, 0, 0)),
        (saved(plain(RED)), RED),
        (saved(plain(77, "L")), (77, 77, 77)),
        (saved(plain(1, "1")), WHITE),
        (saved(plain(RED).quantize(2)), RED),
        (saved(plain((255, 0, 255, 0), "CMYK"), "TIFF"), (0, 255, 0)),
        (saved(plain((255, 0, 0, 0), "RGBA")), WHITE),
        (saved(plain((77, 0), "LA")), WHITE),
        (saved(plain(RED), "GIF", save_all=True, append_images=[plain(BLUE)]), RED),
        (saved(plain(RED), "WEBP", save_all=True, append_images=[plain(BLUE)], lossless=True), RED),
        (saved(plain(RED), "PNG", save_all=True, append_images=[plain(BLUE)]), RED),
        (saved(plain(RED), "TIFF", save_all=True, append_images=[plain(BLUE)]), RED),
    ],
    ids=["1x1", "RGB", "grey", "two colours", "palette", "CMYK", "alpha", "grey and alpha", "animated GIF",
         "animated WebP", "animated PNG", "pages of TIFF"],
)  # fmt: skip
def test_read_as_it_looks(content: bytes, pixel: tuple[int, int, int]) -> None:
    expected = torch.tensor(pixel).view(3, 1, 1).expand(3, SIDE, SIDE) / 255
    assert torch.equal(decode_image(content, SIDE, "odd.png"), expected)


@pytest.mark.parametrize("size", [(20_000, 1), (1, 20_000)])
def test_an_image_of_one_row_is_its_middle(size: tuple[int, int]) -> None:
    image = Image.new("RGB", size, RED)
    image.paste(BLUE, (size[0] // 2 - 20, size[1] // 2 - 20, size[0] // 2 + 20, size[1] // 2 + 20))
    assert decode_image(saved(image), SIDE, "thin.png")[:, 4, 4].tolist() == [0, 0, 1]


@pytest.mark.parametrize(("turn", "corner"), [(1, RED), (3, BLUE), (6, BLUE), (8, RED)])
def test_turned_as_exif_says(turn: int, corner: tuple[int, int, int]) -> None:
    """The left half of the stored pixels is red.

    The tested pixel is at the top, left of the middle.
    """
    image = plain(BLUE)
    image.paste(RED, (0, 0, SIDE // 2, SIDE))
    exif = Image.Exif()
    exif[0x0112] = turn
    seen = decode_image(saved(image, exif=exif), SIDE, "turned.png")
    place = {1: (0, 0), 3: (0, 0), 6: (SIDE - 1, 0), 8: (SIDE - 1, 0)}[turn]
    assert tuple(round(float(each) * 255) for each in seen[:, place[0], place[1]]) == corner


def test_what_is_no_file_is_named_and_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.png")
    (tmp_path / "folder.png").mkdir()
    for name in ("fifo.png", "folder.png"):
        with pytest.raises(ImageError, match=f"{name}: no such file, or not a regular one"):
            read_image(tmp_path / name, SIDE)


def test_the_same_pixels_from_every_place(tmp_path: Path) -> None:
    content = picture(5)
    (tmp_path / "a.png").write_bytes(content)
    shard = write_tar(tmp_path / "a.tar", {"a.png": content})
    table = write_parquet(tmp_path / "a.parquet", {"image": [content], "label": [1]})
    expected = decode_image(content, SIDE, "a.png")
    places = (
        tmp_path / "a.png", Reference("file", str(tmp_path / "a.png")), Reference("row", str(table), 0),
        Reference("member", str(shard), 512, len(content)), Reference("url", f"file://{tmp_path}/a.png"),
    )  # fmt: skip
    for place in places:
        assert torch.equal(read_image(place, SIDE), expected)
        assert torch.equal(read_mask(place, SIDE), decode_mask(content, SIDE, "a.png"))
    assert torch.equal(decode_mask(content, SIDE, "a.png"), expected.mean(0, keepdim=True))


def test_damage_in_a_shard_names_the_shard_and_the_place(tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "a.tar", {"a.png": b"nothing"})
    with pytest.raises(ImageError, match=r"a\.tar at byte 512: not a readable image"):
        read_image(Reference("member", str(shard), 512, 7), SIDE)


def test_no_format_that_starts_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def started(*_: object, **__: object) -> None:
        raise AssertionError("a program was started")

    monkeypatch.setattr(subprocess, "Popen", started)
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n(x) print\n"
    assert "none of" in refusal(script)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "JPEG2000"])
def test_random_damage_is_read_or_refused(kind: str) -> None:
    whole, draw, refused = saved(plain(RED).resize((24, 16)), kind), numpy.random.default_rng(4), 0
    for _ in range(200):
        content = bytearray(whole)
        for place in draw.integers(min(len(content), 300), size=draw.integers(1, 4)):
            content[place] = draw.integers(256)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                decode_image(bytes(content), SIDE, "damaged")
        except ImageError as error:
            one_line(error)
            refused += 1
    assert refused
