"""A defence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor

from attnshift import STRICT


@dataclass(frozen=True)
class Grey:
    """Fades colours: ``amount`` 0 leaves the image as it is, and 1 makes it grey (luma of ITU-R BT.601)."""

    __pydantic_config__ = STRICT
    differentiable: ClassVar[bool] = True
    amount: Annotated[float, Field(ge=0, le=1)] = 1.0

    def __call__(self, images: Tensor) -> Tensor:
        luma = (images * images.new_tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1, keepdim=True)
        return images.lerp(luma.expand_as(images), self.amount).clamp(0, 1)
