"""Files and weights of others: read as data only, and refused in one line if they are damaged."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from attnshift.errors import ModelError

__all__ = ["UNUSABLE", "check_finite", "read_json", "read_object", "reason", "safetensors_shapes"]

UNUSABLE = (
    OSError, RuntimeError, ValueError, LookupError, TypeError, AttributeError, AssertionError, ArithmeticError,
    ImportError, MemoryError, EOFError, UnpicklingError, SafetensorError,
    StrictDataclassError,
)  # fmt: skip
"""Exceptions of libraries for a model that cannot be found, read or understood.

A damaged or hostile configuration can lead to any of them.
"""

_LARGEST = 2**22
"""Largest size of a configuration, in bytes."""


def reason(error: BaseException) -> str:
    r"""First line of a library's message.

    If that line ends with a colon, the second line follows it.

    >>> reason(RuntimeError("cannot load:\n\tbias is missing\n\tweight too")), reason(MemoryError())
    ('cannot load: bias is missing', 'MemoryError')
    """
    first, *rest = (str(error).strip() or type(error).__name__).splitlines()
    return f"{first} {rest[0].strip()}" if first.endswith(":") and rest else first


def read_json(path: Path) -> Any:
    """Content of the JSON file ``path``. Raises ``ModelError`` if it cannot be read."""
    try:
        # Reading from a device might never end.
        if not path.is_file():
            raise FileNotFoundError
        if path.stat().st_size > _LARGEST:
            raise ModelError(f"{path} holds more than {_LARGEST} bytes; it should be a small JSON file")
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"there is no file {path}; is the model's folder complete?") from None
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not a JSON file: {reason(error)}") from None


def read_object(path: Path) -> dict[str, Any]:
    """JSON object in the file ``path``. Raises ``ModelError`` if there is none."""
    values = read_json(path)
    if not isinstance(values, dict):
        raise ModelError(f"{path} holds a {type(values).__name__}; expected a JSON object")
    return values


def safetensors_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes in the header of a safetensors file. No tensor is read.

    Raises ``ModelError`` for any other file. safetensors compares the header with the file's
    length: a header that declares more bytes than the file has is refused before memory is
    allocated.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise ModelError(f"there is no file {path}") from None
    except UNUSABLE as error:
        raise ModelError(f"{path} is not a safetensors file, or is cut off ({reason(error)})") from None


def check_finite(weights: Mapping[str, Tensor], where: object) -> None:
    """Raise ``ModelError`` if any of the ``weights`` is infinite or not a number.

    The message starts with ``where``, the place of the weights.
    """
    broken = sorted(key for key, value in weights.items() if value.is_floating_point() and not _finite(value))
    if broken:
        raise ModelError(
            f"{where}: {broken[0]} has values that are not finite ({len(broken)} such entries); take undamaged weights"
        )


def _finite(value: Tensor) -> bool:
    # A value that is not finite makes an extreme that is not finite. Finding the extremes is many
    # times faster than testing each value.
    return value.numel() == 0 or all(bool(extreme.isfinite()) for extreme in torch.aminmax(value))
