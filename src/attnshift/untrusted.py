"""Files and weights of others: read as data, and refused in one line where they are not what they should be."""

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
"""What libraries raise where a model cannot be found, read or understood: configurations that nobody wrote by hand
end in any of these."""

_LARGEST = 2**22
"""Bytes of a configuration."""


def reason(error: BaseException) -> str:
    r"""The first line of what a library says, and the second one where the first only announces it.

    >>> reason(RuntimeError("cannot load:\n\tbias is missing\n\tweight too")), reason(MemoryError())
    ('cannot load: bias is missing', 'MemoryError')
    """
    first, *rest = (str(error).strip() or type(error).__name__).splitlines()
    return f"{first} {rest[0].strip()}" if first.endswith(":") and rest else first


def read_json(path: Path) -> Any:
    """What the JSON file ``path`` holds, or a ModelError."""
    try:
        # A device would be read for ever.
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
        raise ModelError(f"{path} is no JSON file: {reason(error)}") from None


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in the file ``path``, or a ModelError."""
    values = read_json(path)
    if not isinstance(values, dict):
        raise ModelError(f"{path} holds a {type(values).__name__}; expected a JSON object")
    return values


def safetensors_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes that the header of a safetensors file declares; no tensor is read.

    Raises ModelError for a file that is none: safetensors holds the header against the file's length, so that one
    which declares more than is there is refused before anything is allocated.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise ModelError(f"there is no file {path}") from None
    except UNUSABLE as error:
        raise ModelError(f"{path} is no safetensors file, or is cut off ({reason(error)})") from None


def check_finite(weights: Mapping[str, Tensor], where: object) -> None:
    """Raise ModelError, which says ``where``, if one of the ``weights`` is infinite or not a number."""
    broken = sorted(key for key, value in weights.items() if value.is_floating_point() and not _finite(value))
    if broken:
        raise ModelError(
            f"{where}: {broken[0]} has values that are not finite ({len(broken)} such entries); take undamaged weights"
        )


def _finite(value: Tensor) -> bool:
    # The extremes are not finite where any value is not, and are found many times faster than by asking each.
    return value.numel() == 0 or all(bool(extreme.isfinite()) for extreme in torch.aminmax(value))
