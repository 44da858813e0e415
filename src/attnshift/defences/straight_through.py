"""Straight-through gradients, for functions without a useful gradient of their own.

The backward pass is that of a differentiable approximation (BPDA, Athalye et al., ICML 2018,
section 4.1).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["straight_through", "wants_gradient"]


def wants_gradient(images: Tensor) -> bool:
    """True if results computed from ``images`` will have a gradient."""
    return torch.is_grad_enabled() and images.requires_grad


def straight_through(exact: Tensor, smooth: Tensor) -> Tensor:
    """Values of ``exact``, to the bit, with the gradient of ``smooth``; their shape is the same."""
    return _StraightThrough.apply(exact.detach(), smooth)  # type: ignore[return-value]


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, exact: Tensor, smooth: Tensor) -> Tensor:
        return exact.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor]:  # type: ignore[override]
        return None, gradient
