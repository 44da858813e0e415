"""JPEG compression as a defence (Dziugaite et al., 2016; Guo et al., ICLR 2018)."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy
import torch
from PIL import Image
from pydantic import Field
from torch import Tensor

from attnshift.defences.straight_through import straight_through, wants_gradient
from attnshift.registry import STRICT

__all__ = ["JpegCompression"]


@dataclass(frozen=True)
class JpegCompression:
    """JPEG compression at ``quality`` (1 to 100): the 8-bit image is written and read by Pillow.

    Chroma is 4:2:0. Values are those of the file. The ``gradient`` is that of kornia's
    differentiable ``codec`` (Reich et al., WACV 2024) at the same quality, or with ``bpda`` that of
    the identity (Athalye et al., ICML 2018, section 4).
    """

    __pydantic_config__ = STRICT
    differentiable: ClassVar[bool] = True
    quality: Annotated[int, Field(ge=1, le=100)] = 75
    gradient: Literal["codec", "bpda"] = "codec"

    def __call__(self, images: Tensor) -> Tensor:
        exact = torch.stack([self._through_a_file(image) for image in images])
        if not wants_gradient(images):
            return exact
        if self.gradient == "bpda":
            return straight_through(exact, images)
        from kornia.enhance import jpeg_codec_differentiable

        smooth = jpeg_codec_differentiable(images.float(), torch.tensor([float(self.quality)], device=images.device))
        return straight_through(exact, smooth.to(images.dtype))

    def _through_a_file(self, image: Tensor) -> Tensor:
        pixels = (image.detach().cpu().float().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).contiguous()
        file = io.BytesIO()
        Image.fromarray(pixels.numpy()).save(file, "JPEG", quality=self.quality)
        with Image.open(file) as read:
            decoded = torch.from_numpy(numpy.array(read))
        return (decoded.permute(2, 0, 1).float() / 255).to(image)
