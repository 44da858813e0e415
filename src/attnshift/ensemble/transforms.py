"""Random differentiable image transforms, for expectation over transformation (Athalye et al., ICML
2018).

A transform maps images in [0,1] to images of the same shape, dtype and device, clamped to [0,1].
Image i takes its random parameters from generator i alone, in the order that the transform names
and always equally many of them, whatever the size: neither batch mates nor the resolution change
what an image undergoes. Only ``Noise`` and ``Spectrum`` draw per pixel, and ``BlockShuffle`` draws
as its number of blocks asks. Neutral options give the identity, except that ``Jpeg`` has none.
Where clamping cuts a pixel off, that pixel has no gradient.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Protocol, runtime_checkable

import numpy
import torch
from jaxtyping import Float
from pydantic import AfterValidator, Field
from torch import Tensor

from attnshift.data.images import into_range
from attnshift.registry import STRICT

__all__ = [
    "BlockShuffle",
    "Colour",
    "Jpeg",
    "Noise",
    "ResizeAndPad",
    "Rotate",
    "ScaleAndShift",
    "Spectrum",
    "Transform",
]


@runtime_checkable
class Transform(Protocol):
    """Images in [0,1] and one generator per image, to images of the same kind."""

    def __call__(
        self, images: Float[Tensor, "batch 3 height width"], generators: Sequence[numpy.random.Generator]
    ) -> Float[Tensor, "batch 3 height width"]: ...


def _ordered(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] > bounds[1]:
        raise ValueError("the first number must not exceed the second")
    return bounds


_Factor = Annotated[float, Field(ge=0.1, le=10)]
_Quality = Annotated[float, Field(ge=1, le=100)]
_Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class Rotate:
    """Turns about the image's centre by an angle uniform in [-``degrees``, ``degrees``], positive
    counter-clockwise.

    Bilinear. Corners that open are filled by reflection: black ones would be a cue that no
    photograph has, and repeated border pixels would collect the gradient of whole corners.
    """

    __pydantic_config__ = STRICT
    degrees: Annotated[float, Field(ge=0, le=180)] = 10.0

    def __call__(
        self, images: Float[Tensor, "batch 3 height width"], generators: Sequence[numpy.random.Generator]
    ) -> Float[Tensor, "batch 3 height width"]:
        from kornia.geometry.transform import get_rotation_matrix2d

        (angles,) = _uniform(images, generators, (-self.degrees, self.degrees))
        height, width = images.shape[-2:]
        centre = angles.new_tensor([(width - 1) / 2, (height - 1) / 2]).expand(len(angles), 2)
        return _warp(images, get_rotation_matrix2d(centre, angles, torch.ones_like(centre)), "reflection")


@dataclass(frozen=True)
class ScaleAndShift:
    """Enlarges about the image's centre by a factor uniform in ``scale``, then shifts.

    Draws the factor, the shift to the right and the shift down, each uniform in [-``shift``,
    ``shift``], a share of the width or the height. Bilinear, filled by reflection as in ``Rotate``.
    """

    __pydantic_config__ = STRICT
    scale: Annotated[tuple[_Factor, _Factor], AfterValidator(_ordered)] = (0.9, 1.1)
    shift: _Share = 0.1

    def __call__(
        self, images: Float[Tensor, "batch 3 height width"], generators: Sequence[numpy.random.Generator]
    ) -> Float[Tensor, "batch 3 height width"]:
        around = (-self.shift, self.shift)
        scale, right, down = _uniform(images, generators, self.scale, around, around)
        height, width = images.shape[-2:]
        x_offset = (1 - scale) * (width - 1) / 2 + right * width
        y_offset = (1 - scale) * (height - 1) / 2 + down * height
        return _warp(images, _matrices(scale, x_offset, scale, y_offset), "reflection")


@dataclass(frozen=True)
class ResizeAndPad:
    """Shrinks the image and places it on black: the input diversity of Xie et al., CVPR 2019.

    Draws a share uniform in [``smallest``, 1] of either side, rounded up to whole pixels, and a
    position from the left and from the top, uniform over all that fit. Bilinear without
    anti-aliasing, and sharp at the content's edge. The authors enlarge to a random size and pad to
    a larger one, in half of the iterations; here the padded image has the size of the input, and
    ``Expectation`` decides when.
    """

    __pydantic_config__ = STRICT
    smallest: Annotated[float, Field(ge=0.1, le=1)] = 0.8

    def __call__(
        self, images: Float[Tensor, "batch 3 height width"], generators: Sequence[numpy.random.Generator]
    ) -> Float[Tensor, "batch 3 height width"]:
        share, *places = _uniform(images, generators, (self.smallest, 1.0), (0.0, 1.0), (0.0, 1.0))
        placed = []
        for side, place in zip((images.shape[-1], images.shape[-2]), places, strict=True):
            length = (share * side).ceil()
            before = (place * (side - length + 1)).floor()
            # From edges, between which an image is ``side`` long, to centres of pixels, which lie
            # half a pixel inside.
            placed += [length / side, (length / side - 1) / 2 + before]
        return _warp(images, _matrices(*placed), "zeros")


@dataclass(frozen=True)
class Colour:
    """Brightness, contrast and saturation by factors uniform in [1 - option, 1 + option], and a
    shift of hue.

    The shift is uniform in [-``hue``, ``hue``], in turns: 0.5 is the complementary colour. Draws in
    the order of the options. Brightness multiplies the image, contrast its difference from the mean
    luma, saturation each pixel's difference from its luma. All of it is linear and commutes, so
    that there is no order of application, and only the result is clamped.

    Hue turns the U-V plane at constant luma, and not kornia's HSV cone: there grey, black and white
    pixels, whose channels tie, pass on only a gradient that is the same for all channels, and so
    none that could colour them.
    """

    __pydantic_config__ = STRICT
    brightness: _Share = 0.1
    """Factor on the image, in [1 - option, 1 + option]."""
    contrast: _Share = 0.1
    """Factor on the difference from the mean luma."""
    saturation: _Share = 0.1
    """Factor on each pixel's difference from its luma."""
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.02

    def __call__(
        self, images: Float[Tensor, "batch 3 height width"], generators: Sequence[numpy.random.Generator]
    ) -> Float[Tensor, "batch 3 height width"]:
        factors = [(1 - each, 1 + each) for each in (self.brightness, self.contrast, self.saturation)]
        brightness, contrast, saturation, hue = _uniform(images, generators, *factors, (-self.hue, self.hue))
        brightness, contrast = (each.to(images).view(-1, 1, 1, 1) for each in (brightness, contrast))
        images = _turned(images, saturation, hue)
        mean = _luma(images).mean((2, 3), keepdim=True)
        return into_range(brightness * torch.lerp(mean, images, contrast))


@dataclass(frozen=True)
class Noise:
    """Adds Gaussian noise of standard deviation ``std``, independent for every pixel and
    channel."""

    __pydantic_config__ = STRICT
    std: _Share = 0.02

    def __call__(
        self, images: Float[Tensor, "batch 3 height width"], generators: Sequence[numpy.random.Generator]
    ) -> Float[Tensor, "batch 3 height width"]:
        drawn = [each.standard_normal(image.shape) for image, each in zip(images, generators, strict=True)]
        return into_range(images + self.std * torch.from_numpy(numpy.stack(drawn)).to(images))


@dataclass(frozen=True)
class Jpeg:
    """Compression at a quality uniform in ``quality`` (1 to 100, not only whole numbers), with
    4:2:0 chroma.

    Kornia's codec (Reich et al., WACV 2024) rounds by round(x) + (x - round(x))^3 (Shin and Song,
    2017). A coefficient therefore passes gradient in so far as it is far from a multiple of its
    step: a flat block hardly passes any but its mean's, and where it is decoded to black or white,
    none. Above quality 97 it quantises less than a JPEG file does.
    """

    __pydantic_config__ = STRICT
    quality: Annotated[tuple[_Quality, _Quality], AfterValidator(_ordered)] = (50.0, 95.0)

    def __call__(
        self, images: Float[Tensor, "batch 3 height width"], generators: Sequence[numpy.random.Generator]
    ) -> Float[Tensor, "batch 3 height width"]:
        from kornia.enhance import jpeg_codec_differentiable

        (qualities,) = _uniform(images, generators, self.quality)
        # One by one: where rounding is near a tie, the last bit, which may depend on the batch's
        # size, is visible.
        pairs = zip(images.split(1), qualities.split(1), strict=True)
        return torch.cat([jpeg_codec_differentiable(image, quality) for image, quality in pairs])


@dataclass(frozen=True)
class BlockShuffle:
    """Cuts the image into blocks, changes their places and turns each a little: BSR, Wang et al.,
    CVPR 2024.

    The image is cut into ``blocks`` strips, upright or lying with equal chance, and each strip into
    as many blocks. Strips change places with each other, and blocks within their strip. Lengths are
    in proportion to numbers uniform in [1,2]. A block turns about its own centre by an angle
    uniform in [-``degrees``, ``degrees``]; it stays as large, and its corners show what lies beside
    it in the image. Bilinear, filled by reflection as in ``Rotate``.

    The authors turn whole strips, and fill what opens with black.
    """

    __pydantic_config__ = STRICT
    blocks: Annotated[int, Field(ge=1, le=16)] = 2
    degrees: Annotated[float, Field(ge=0, le=180)] = 24.0

    def __call__(
        self, images: Float[Tensor, "batch 3 height width"], generators: Sequence[numpy.random.Generator]
    ) -> Float[Tensor, "batch 3 height width"]:
        height, width = images.shape[-2:]
        sources = [self._sources(height, width, each) for _, each in zip(images, generators, strict=True)]
        exact = images.to(torch.promote_types(images.dtype, torch.float32))
        grids = torch.from_numpy(numpy.stack(sources)).to(exact)
        seen = torch.nn.functional.grid_sample(exact, grids, padding_mode="reflection", align_corners=True)
        return into_range(seen).to(images.dtype)

    def _sources(self, height: int, width: int, drawn: numpy.random.Generator) -> numpy.ndarray:
        """Place [height,width,2] that each pixel shows, x and y from -1 to 1 between the centres of
        the outer pixels."""
        lying = drawn.uniform() < 0.5
        long, wide = (height, width) if lying else (width, height)
        strips = self._shuffled(long, drawn)
        inside = numpy.stack([self._shuffled(wide, drawn) for _ in range(self.blocks)])[strips[2].astype(int)]
        angles = numpy.deg2rad(drawn.uniform(-self.degrees, self.degrees, (self.blocks, self.blocks)))
        turn = angles[strips[2].astype(int)[:, None], inside[:, 2].astype(int)]
        across, along = (strips[0] - strips[1])[:, None], inside[:, 0] - inside[:, 1]
        first = strips[1][:, None] + numpy.cos(turn) * across - numpy.sin(turn) * along
        second = inside[:, 1] + numpy.sin(turn) * across + numpy.cos(turn) * along
        places = [2 * first / max(long - 1, 1) - 1, 2 * second / max(wide - 1, 1) - 1]
        return numpy.stack(places[::-1], 2) if lying else numpy.stack(places, 2).swapaxes(0, 1)

    def _shuffled(self, length: int, drawn: numpy.random.Generator) -> numpy.ndarray:
        """For each place [3,length] after the shuffle: the place before it, the centre of its block
        then, and the block's number."""
        shares = drawn.uniform(1, 2, self.blocks).cumsum()
        edges = [0, *(int(each) for each in (shares / shares[-1] * length).round())]
        order = [int(each) for each in drawn.uniform(size=self.blocks).argsort()]
        before = numpy.concatenate([numpy.arange(edges[block], edges[block + 1]) for block in order])
        lengths = [edges[block + 1] - edges[block] for block in order]
        centres = [(edges[block] + edges[block + 1] - 1) / 2 for block in order]
        return numpy.stack([before, numpy.repeat(centres, lengths), numpy.repeat(order, lengths)])


@dataclass(frozen=True)
class Spectrum:
    """Noise, and then random factors on the image's frequencies: spectrum simulation, Long et al.,
    ECCV 2022.

    Adds Gaussian noise of standard deviation ``std``, and multiplies each coefficient of the
    discrete cosine transform of each channel by a number uniform in [1 - ``change``, 1 +
    ``change``]. Draws the noise first. The authors do not clamp the result.
    """

    __pydantic_config__ = STRICT
    std: _Share = 16 / 255
    change: _Share = 0.5

    def __call__(
        self, images: Float[Tensor, "batch 3 height width"], generators: Sequence[numpy.random.Generator]
    ) -> Float[Tensor, "batch 3 height width"]:
        drawn = [
            (each.standard_normal(image.shape), each.uniform(1 - self.change, 1 + self.change, image.shape))
            for image, each in zip(images, generators, strict=True)
        ]
        exact = images.to(torch.promote_types(images.dtype, torch.float32))
        noise, factors = (torch.from_numpy(numpy.stack(each)).to(exact) for each in zip(*drawn, strict=True))
        rows, columns = (_cosines(side, exact) for side in images.shape[-2:])
        spectrum = rows @ (exact + self.std * noise) @ columns.T
        return into_range(rows.T @ (factors * spectrum) @ columns).to(images.dtype)


def _cosines(side: int, like: Tensor) -> Float[Tensor, "side side"]:
    """Orthonormal discrete cosine transform of second kind, one frequency a row."""
    places = torch.arange(side, dtype=torch.float64)
    waves = (math.pi / side * places[:, None] * (places + 0.5)).cos() * math.sqrt(2 / side)
    waves[0] /= math.sqrt(2)
    return waves.to(like)


def _uniform(
    images: Float[Tensor, "batch 3 height width"],
    generators: Sequence[numpy.random.Generator],
    *ranges: tuple[float, float],
) -> tuple[Float[Tensor, "batch"], ...]:
    """One value per range and image, uniform in it, in fp64 on the CPU."""
    low, high = numpy.array(ranges).T
    drawn = [each.uniform(low, high) for _, each in zip(images, generators, strict=True)]
    return torch.from_numpy(numpy.stack(drawn)).unbind(1)


def _matrices(
    x_scale: Float[Tensor, "batch"],
    x_offset: Float[Tensor, "batch"],
    y_scale: Float[Tensor, "batch"],
    y_offset: Float[Tensor, "batch"],
) -> Float[Tensor, "batch 2 3"]:
    """Maps x to x_scale * x + x_offset and so y, in pixels."""
    zeros = torch.zeros_like(x_scale)
    return torch.stack([x_scale, zeros, x_offset, zeros, y_scale, y_offset], 1).unflatten(1, (2, 3))


def _warp(
    images: Float[Tensor, "batch 3 height width"],
    matrices: Float[Tensor, "batch 2 3"],
    padding: Literal["reflection", "zeros"],
) -> Float[Tensor, "batch 3 height width"]:
    """Moves what is at pixel p to matrix * (p, 1), with one matrix per image, bilinearly."""
    from kornia.geometry.transform import warp_affine

    height, width = images.shape[-2:]
    # Positions in half precision would be off by whole pixels.
    exact = images.to(torch.promote_types(images.dtype, torch.float32))
    return into_range(warp_affine(exact, matrices.to(exact), (height, width), padding_mode=padding)).to(images.dtype)


_RED, _GREEN, _BLUE = 0.299, 0.587, 0.114
"""Luma's weights: Rec. 601."""
_U_OVER_V = 0.492 / 0.877
"""U = 0.492 (blue - luma) and V = 0.877 (red - luma): Rec. 470."""


def _luma(images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 1 height width"]:
    """Luma, without rounding for greys."""
    red, green, blue = images.split(1, 1)
    return red + _GREEN * (green - red) + _BLUE * (blue - red)


def _turned(
    images: Float[Tensor, "batch 3 height width"], saturation: Float[Tensor, "batch"], hue: Float[Tensor, "batch"]
) -> Float[Tensor, "batch 3 height width"]:
    """Images whose chroma is turned by ``hue`` turns in the U-V plane and multiplied by
    ``saturation``.

    A change is added that is exactly 0 for greys, so that black and white stay inside [0,1] and
    keep their gradient.
    """
    angle = 2 * math.pi * hue
    along = (saturation * angle.cos() - 1).to(images).view(-1, 1, 1, 1)
    across = (saturation * angle.sin()).to(images).view(-1, 1, 1, 1)
    red, _, blue = (images - _luma(images)).split(1, 1)
    red_change = along * red + across * _U_OVER_V * blue
    blue_change = along * blue - across / _U_OVER_V * red
    green_change = -(_RED * red_change + _BLUE * blue_change) / _GREEN
    return images + torch.cat([red_change, green_change, blue_change], 1)
