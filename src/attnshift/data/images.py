"""Decoding of images to tensors in [0,1], and encoding to PNG files with text chunks."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy
import torch
from PIL import ExifTags, Image, ImageOps, PngImagePlugin, UnidentifiedImageError
from torch import Tensor

from attnshift.data.references import Reference, fetch
from attnshift.errors import ImageError
from attnshift.files import atomic_write
from attnshift.sizes import LARGEST_SIDE, SMALLEST_SIDE, Sides, Size, size_of

__all__ = [
    "FORMATS",
    "LARGEST",
    "Framing",
    "as_pixels",
    "decode_image",
    "decode_mask",
    "encode_png",
    "into_range",
    "quantise",
    "read_image",
    "read_mask",
    "size_in",
    "uncropped_size",
    "write_png",
]

LARGEST = 64_000_000
"""Largest number of pixels of an image, checked before it is decoded."""

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "MPO", "JPEG2000", "AVIF")
"""Formats that are tried, for any file name.

Other readers of Pillow are left out: some start programs (EPS), others have no signature.
"""

_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "La", "RGBa", "RGBX", "LAB"}

# Pillow documents the first three. On damaged files it raises the others too.
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    EOFError,
    struct.error,
    zlib.error,
)


@dataclass(frozen=True)
class Framing:
    """How images come to the size at which they are attacked.

    All come to one ``size``, for which their centre is cropped. Without it each is resized as a
    whole to the size that ``nearest`` finds for its own.
    """

    size: Size | None
    nearest: Callable[[Size], Size] = lambda size: size

    def own_size(self, content: bytes, name: str) -> Size | None:
        """The size of an encoded image that is resized as a whole; None where all come to one.

        Raises ``ImageError`` for one that cannot be read, or whose sides are out of bounds.
        """
        if self.size is not None:
            return None
        # Decoding says why bytes cannot be read.
        size = self.nearest(size_in(content) or size_of(decode_image(content, None, name)))
        if not SMALLEST_SIDE <= min(size) <= max(size) <= LARGEST_SIDE:
            bounds = f"whole images have sides of {SMALLEST_SIDE} to {LARGEST_SIDE} px"
            raise ImageError(f"{name}: {size} pixels; {bounds}; scale it first, or give a `size` in pixels")
        return size

    def decode(self, content: bytes, name: str) -> Tensor:
        """The image [3,height,width], as it is attacked."""
        own = self.own_size(content, name)
        return decode_image(content, own or self.size, name, whole=own is not None)


def read_image(where: Path | Reference, size: Sides | None, whole: bool = False) -> Tensor:
    """Image at ``where``, decoded as by ``decode_image``. Every error is an ``ImageError``."""
    reference = Reference("file", str(where)) if isinstance(where, Path) else where
    return decode_image(fetch(reference), size, reference.name, whole)


def read_mask(where: Path | Reference, size: Sides, whole: bool = False) -> Tensor:
    """Mask at ``where``, decoded as by ``decode_mask``."""
    return _brightness(read_image(where, size, whole))


def decode_image(content: bytes, size: Sides | None, name: str, whole: bool = False) -> Tensor:
    """RGB image [3,height,width] in [0,1], of ``size``, or of its own.

    The image is rotated as its EXIF tag says, resized until it covers ``size``, and its centre is
    cropped. ``whole``, it is resized to ``size`` and nothing is cropped. CIE L*a*b* becomes sRGB.
    An animation gives its first frame. Transparent pixels are laid on white. Messages call the
    image ``name``. Raises ``ImageError`` unless ``content`` is an 8-bit image of at most
    ``LARGEST`` pixels in one of ``FORMATS``.
    """
    try:
        with warnings.catch_warnings():
            # Pillow warns of damage that it can read past, and of images above its own limit of
            # pixels. Our limit is lower and raises.
            warnings.simplefilter("ignore")
            image = _decoded(content, None if size is None else Size.of(size), name, whole)
    except UnidentifiedImageError:
        reason = f"it is none of {', '.join(FORMATS)}" if content else "it is empty"
        raise ImageError(f"{name}: not a readable image ({reason}); replace or remove it") from None
    except Image.DecompressionBombError:
        raise ImageError(f"{name}: too many pixels; at most {LARGEST} are read; scale it down first") from None
    except _DAMAGE as error:
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise ImageError(f"{name}: not a readable image ({reason}); replace or remove it") from None
    pixels = numpy.asarray(image, dtype=numpy.uint8).copy()
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255


def decode_mask(content: bytes, size: Sides, name: str, whole: bool = False) -> Tensor:
    """Mask [1,height,width] in [0,1]: the brightness of the image that ``decode_image`` reads."""
    return _brightness(decode_image(content, size, name, whole))


def uncropped_size(content: bytes, size: Sides) -> Size | None:
    """Size of an encoded image of which ``decode_image`` crops the centre for ``size``.

    None for one that loses less than a pixel, and for bytes that cannot be read.
    """
    given, size = size_in(content), Size.of(size)
    if given is None:
        return None
    covered = Size(*(min(side, -(-size[at] * given[1 - at] // size[1 - at])) for at, side in enumerate(given)))
    return None if covered == given else given


def size_in(content: bytes) -> Size | None:
    """Size of an encoded image, rotated as its EXIF tag says; None for bytes that cannot be read.

    The pixels are not decoded.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content), formats=_formats()) as opened:
                width, height = opened.size
                turned = opened.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
    except (*_DAMAGE, Image.DecompressionBombError):
        return None
    return Size(width, height) if turned else Size(height, width)


def into_range(images: Tensor) -> Tensor:
    """Images clamped to [0,1], with a gradient for all values in it, bounds included.

    torch's clamp passes no gradient at the bounds themselves (since 2.14). With it, a pixel that is
    black or white in the image to attack could never change.
    """
    clamped = images.clamp(0, 1)
    inside = (images - clamped).abs() < 1e-6
    return torch.where(inside, images + (clamped - images).detach(), clamped.detach())


def quantise(images: Tensor) -> Tensor:
    """Round images in [0,1] to the values that 8 bits can hold."""
    return (images * 255).round() / 255


def as_pixels(image: Tensor) -> numpy.ndarray:
    """``image`` [3,height,width] in [0,1] as 8-bit pixels [height,width,3]."""
    return (image.detach().cpu() * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()


def encode_png(image: Tensor, text: Mapping[str, str]) -> bytes:
    """PNG file of ``image`` [3,height,width] in [0,1] with ``text`` chunks."""
    chunks = PngImagePlugin.PngInfo()
    for key, value in text.items():
        chunks.add_itxt(key, value)
    encoded = io.BytesIO()
    Image.fromarray(as_pixels(image)).save(encoded, "PNG", pnginfo=chunks)
    return encoded.getvalue()


def write_png(path: Path, image: Tensor, text: Mapping[str, str]) -> None:
    """Write ``encode_png(image, text)``. The file appears whole or not at all."""
    atomic_write(path, encode_png(image, text))


def _decoded(content: bytes, size: Size | None, name: str, whole: bool) -> Image.Image:
    with Image.open(io.BytesIO(content), formats=_formats()) as opened:
        width, height = opened.size
        if width * height > LARGEST:
            raise ImageError(f"{name}: {width}x{height} pixels; at most {LARGEST} are read; scale it down first")
        # Pillow opens 16-bit colour PNGs in 8-bit modes and drops the low bits. The arguments of
        # the decoder are the only sign of it.
        if opened.mode not in _MODES or any(";16" in str(tile.args) for tile in opened.tile):
            raise ImageError(f"{name}: pixel format {opened.mode} is not 8-bit; convert it to 8-bit RGB first")
        image = ImageOps.exif_transpose(opened)
        if image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        image = image.convert("RGB")
        if size is None:
            return image
        bring = Image.Image.resize if whole else ImageOps.fit
        return bring(image, (size.columns, size.rows), Image.Resampling.BICUBIC)


def _brightness(image: Tensor) -> Tensor:
    return image.mean(0, keepdim=True)


@cache
def _formats() -> list[str]:
    """Names in ``FORMATS`` that the installed Pillow can read."""
    Image.init()
    return [each for each in FORMATS if each in Image.OPEN]
