"""Images in and out: files to tensors in [0,1], and PNGs that say what they are."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy
import torch
from PIL import Image, ImageOps, PngImagePlugin, UnidentifiedImageError
from torch import Tensor

from attnshift.errors import ImageError

__all__ = ["LARGEST", "into_range", "quantise", "read_image", "read_mask", "write_png"]

LARGEST = 64_000_000
"""Pixels that an image may declare before it is decoded."""

_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "La", "RGBa", "RGBX"}


def read_image(path: Path, side: int) -> Tensor:
    """RGB image [3,side,side] in [0,1]: turned as its EXIF says, shorter side resized, centre cropped to a square.

    Transparent pixels are laid on white. Raises ``ImageError`` for what is not an 8-bit image of at most ``LARGEST``
    pixels.
    """
    if not path.is_file():
        raise ImageError(f"{path}: no such file, or not a regular one; correct the file column or the folder")
    try:
        with warnings.catch_warnings():
            # Pillow warns between one and two times its own limit; ours is lower and refuses.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            opened = Image.open(path)
        with opened:
            width, height = opened.size
            if width * height > LARGEST:
                raise ImageError(f"{path}: {width}x{height} pixels; at most {LARGEST} are read; scale it down first")
            # Pillow opens 16-bit colour PNGs as 8-bit modes and drops the low bits; only the decoder's name tells.
            if opened.mode not in _MODES or any(";16" in str(tile.args) for tile in opened.tile):
                raise ImageError(f"{path}: pixel format {opened.mode} is not 8-bit; convert it to 8-bit RGB first")
            image = ImageOps.exif_transpose(opened)
            if image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
                image = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
            image = ImageOps.fit(image.convert("RGB"), (side, side), Image.Resampling.BICUBIC)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ImageError(f"{path}: not a readable image ({str(error).splitlines()[0]}); replace or remove it") from None
    pixels = numpy.asarray(image, dtype=numpy.uint8).copy()
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255


def into_range(images: Tensor) -> Tensor:
    """Images clamped to [0,1], with a gradient for all values in it, the bounds included, up to rounding.

    torch's clamp passes nothing on at the bounds themselves (2.14; earlier versions did): a pixel that is black or
    white in the image to attack could not leave its place.
    """
    clamped = images.clamp(0, 1)
    inside = (images - clamped).abs() < 1e-6
    return torch.where(inside, images + (clamped - images).detach(), clamped.detach())


def read_mask(path: Path, side: int) -> Tensor:
    """Mask [1,side,side] in [0,1] from the brightness of an image that is read as ``read_image`` reads it."""
    return read_image(path, side).mean(0, keepdim=True)


def quantise(images: Tensor) -> Tensor:
    """Round images in [0,1] to the values that 8 bits can hold."""
    return (images * 255).round() / 255


def write_png(path: Path, image: Tensor, text: Mapping[str, str]) -> None:
    """Write ``image`` [3,height,width] in [0,1] with ``text`` chunks; the file appears whole or not at all."""
    pixels = (image.detach().cpu() * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    chunks = PngImagePlugin.PngInfo()
    for key, value in text.items():
        chunks.add_itxt(key, value)
    temporary = path.with_name(f".{path.name}.partial")
    try:
        with temporary.open("wb") as file:
            Image.fromarray(pixels).save(file, "PNG", pnginfo=chunks)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
