"""Requirements of a contract: an ``AssertionError`` with a sentence where one does not hold."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

__all__ = ["in_double", "require", "require_close", "require_finite", "require_shape"]


def require(holds: object, sentence: str) -> None:
    """Raise unless ``holds`` is true."""
    if not bool(holds):
        raise AssertionError(sentence)


def require_shape(values: Tensor, shape: tuple[int, ...], name: str) -> None:
    require(isinstance(values, Tensor), f"{name} is a {type(values).__name__}, and a tensor is expected")
    require(tuple(values.shape) == shape, f"{name} has shape {tuple(values.shape)}, and {shape} is expected")


def require_finite(values: Tensor, name: str) -> None:
    require(values.isfinite().all(), f"{name} has values that are not finite")


def require_close(found: Tensor, expected: Tensor, sentence: str, rtol: float = 1e-5, atol: float = 1e-6) -> None:
    """Raise unless ``found`` is ``expected`` within rounding; nan equals nan."""
    require_shape(found, tuple(expected.shape), "the result")
    distance = float((found - expected).abs().nan_to_num().max())
    close = found.isclose(expected, rtol=rtol, atol=atol, equal_nan=True).all()
    require(close, f"{sentence}; largest difference {distance:.2g}")


@contextmanager
def in_double() -> Iterator[None]:
    """Terms and losses compute in fp32, which is too coarse for finite differences:
    here their casts go to float64, and new values and networks are of float64."""
    usual, default = Tensor.float, torch.get_default_dtype()
    Tensor.float = Tensor.double  # type: ignore[method-assign, assignment]
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        Tensor.float = usual  # type: ignore[method-assign]
        torch.set_default_dtype(default)
