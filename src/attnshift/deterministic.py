"""Kernels with a fixed order of sums on a GPU, for gradients whose own kernels have none.

torch adds the gradient of a resized, padded, pooled or sampled image with atomic operations on a
GPU, in an order that changes from call to call. Here such a gradient is a product with the matrices
of the operation, or a sum over sorted positions, and each call gives the same bytes.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from functools import cache, lru_cache, partial
from typing import Any

import torch
from torch import Tensor

__all__ = ["ALLOWED", "KERNELS", "only_deterministic", "settle_device"]

ALLOWED = "ATTNSHIFT_NONDETERMINISTIC"
"""Environment variable; 1 admits operations without a deterministic kernel on a GPU."""

_aten = torch.ops.aten


def settle_device(device: str) -> None:
    """Have torch compute on ``device`` as a run promises, for the whole process.

    On a GPU only deterministic kernels run, and fp32 is fp32: TF32 is off, in products and in
    convolutions. A CPU needs nothing. ``ALLOWED`` in the environment leaves out the former.
    """
    if not device.startswith("cuda"):
        return
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    if os.environ.get(ALLOWED) != "1":
        only_deterministic()


@cache
def only_deterministic(device: str = "CUDA") -> None:
    """Take the kernels of this module for gradients on ``device``, torch's name of it, and have
    torch refuse operations that have no deterministic one."""
    # cuBLAS reads it when the first product is computed.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    # Memory that is read is written first; filling it before that costs time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # pyright: ignore[reportAttributeAccessIssue]
    with warnings.catch_warnings():
        # torch 2.11 warns that a kernel takes another's place.
        warnings.filterwarnings("ignore", "Warning only once for all operators")
        for name, kernel in KERNELS.items():
            _library().impl(name, kernel, device)


@cache
def _library() -> torch.library.Library:
    """The registrations, which end with the object that holds them."""
    return torch.library.Library("aten", "IMPL")


_Sides = Sequence[int]
_Factor = float | None


def _resized_back(
    forward: Callable[..., Tensor],
    grad: Tensor,
    output_size: _Sides,
    input_size: _Sides,
    align_corners: bool,
    scales_h: _Factor = None,
    scales_w: _Factor = None,
) -> Tensor:
    """Gradient of a resized image at the image, [batch,channels,height,width]."""
    tall, wide = (
        _matrix(_resize, (forward, output_size[axis], align_corners, scale), input_size[axis + 2], grad)
        for axis, scale in enumerate((scales_h, scales_w))
    )
    return tall @ grad @ wide.T


def _resize(lines: Tensor, forward: Callable[..., Tensor], target: int, align_corners: bool, scale: _Factor) -> Tensor:
    return forward(lines, [target, lines.shape[-1]], align_corners, scale, None)


def _reflected_back(grad: Tensor, image: Tensor, padding: _Sides) -> Tensor:
    """Gradient of an image padded by reflection; ``padding`` is left, right, top, bottom."""
    left, right, top, bottom = padding
    tall = _matrix(_pad, (top, bottom), image.shape[-2], grad)
    wide = _matrix(_pad, (left, right), image.shape[-1], grad)
    return tall @ grad @ wide.T


def _pad(lines: Tensor, before: int, after: int) -> Tensor:
    return _aten.reflection_pad2d(lines, [0, 0, before, after])


def _pooled_back(grad: Tensor, image: Tensor) -> Tensor:
    """Gradient of an image whose adaptive means were taken."""
    tall, wide = (_matrix(_pool, (grad.shape[axis],), image.shape[axis], grad) for axis in (-2, -1))
    return tall @ grad @ wide.T


def _pool(lines: Tensor, target: int) -> Tensor:
    return _aten._adaptive_avg_pool2d(lines, [target, lines.shape[-1]])


def _matrix(forward: Callable[..., Tensor], options: tuple[Any, ...], length: int, like: Tensor) -> Tensor:
    """Matrix [length,results] of what ``forward`` with ``options`` does to the height of an image,
    as ``like``.

    ``forward`` is linear, and keeps the width. Row i is its answer to a column that is 1 at i.
    """
    exact = _exact_matrix(forward, options, length, like.device, torch.promote_types(like.dtype, torch.float32))
    return exact.to(like.dtype)


@lru_cache(maxsize=64)
def _exact_matrix(
    forward: Callable[..., Tensor], options: tuple[Any, ...], length: int, device: torch.device, dtype: torch.dtype
) -> Tensor:
    lines = torch.eye(length, device=device, dtype=dtype)
    return forward(lines[None, None], *options)[0, 0].T


def _sampled_back(
    grad: Tensor,
    image: Tensor,
    grid: Tensor,
    interpolation_mode: int,
    padding_mode: int,
    align_corners: bool,
    output_mask: Sequence[bool],
) -> tuple[Tensor | None, Tensor | None]:
    """Gradient of a sampled image at the image; bilinear alone, and none at the positions."""
    if interpolation_mode != 0 or output_mask[1]:
        raise RuntimeError(
            "grid_sampler_2d_backward has a deterministic kernel on a GPU for bilinear sampling at fixed positions only"
        )
    batch, channels, height, width = image.shape
    with torch.no_grad():
        x, y = (
            _places(grid[..., axis], side, padding_mode, align_corners) for axis, side in enumerate((width, height))
        )
    left, top = x.floor(), y.floor()
    lines = image.new_zeros(batch * height * width, channels)
    offset = (torch.arange(batch, device=image.device) * (height * width)).view(-1, 1, 1)
    values = grad.permute(0, 2, 3, 1)
    for column, row in ((left, top), (left + 1, top), (left, top + 1), (left + 1, top + 1)):
        share = (1 - (x - column).abs()) * (1 - (y - row).abs())
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        place = offset + row.clamp(0, height - 1).long() * width + column.clamp(0, width - 1).long()
        pushed = values * (share * inside)[..., None]
        lines.index_put_((place.flatten(),), pushed.reshape(-1, channels), accumulate=True)
    return lines.view(batch, height, width, channels).permute(0, 3, 1, 2).contiguous(), None


def _places(positions: Tensor, side: int, padding_mode: int, align_corners: bool) -> Tensor:
    """Pixels from 0 that positions in [-1,1] stand for; outside them as the padding says: 0 zeros,
    1 border, 2 reflection."""
    pixels = (positions + 1) / 2 * (side - 1) if align_corners else ((positions + 1) * side - 1) / 2
    if padding_mode == 0:
        return pixels
    if padding_mode == 2:
        low, span = (0.0, side - 1.0) if align_corners else (-0.5, float(side))
        if span == 0:
            return torch.zeros_like(pixels)
        away = (pixels - low).abs() % (2 * span)
        pixels = torch.where(away > span, 2 * span - away, away) + low
    return pixels.clamp(0, side - 1)


KERNELS: dict[str, Callable[..., object]] = {
    "upsample_bilinear2d_backward": partial(_resized_back, _aten.upsample_bilinear2d),
    "upsample_bicubic2d_backward": partial(_resized_back, _aten.upsample_bicubic2d),
    "_upsample_bilinear2d_aa_backward": partial(_resized_back, _aten._upsample_bilinear2d_aa),
    "_upsample_bicubic2d_aa_backward": partial(_resized_back, _aten._upsample_bicubic2d_aa),
    "reflection_pad2d_backward": _reflected_back,
    "_adaptive_avg_pool2d_backward": _pooled_back,
    "grid_sampler_2d_backward": _sampled_back,
}
"""Gradients by the name of torch's own, with its arguments."""
