"""Records of a batch of images, and the selection of some of their images.

Every field of such a record says whether it has an entry for each image. A field that does not say
so is an error when the class is defined, so no field can keep images that have left the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar, dataclass_transform

import torch
from torch import Tensor

__all__ = ["batch_record", "concatenated", "constant", "image_norms", "per_image", "select_rows", "spread"]

_LAYOUT = "attnshift.batching"
"""Key of a field's metadata: a ``_PerImage``, or None for a constant."""

Record = TypeVar("Record")


@dataclass(frozen=True)
class _PerImage:
    axis: int
    depth: int


def per_image(*, axis: int = 0, depth: int = 0, **options: Any) -> Any:
    """Declare a field of a batch record that has one entry for each image, or is None.

    The entries are rows of a tensor along ``axis``, items of a tuple, or belong to a batch record.
    ``depth`` counts the tuples or mappings around that: 1 for a tuple of tensors [batch,...] over
    steps. ``options`` are those of ``dataclasses.field``.
    """
    return field(metadata={_LAYOUT: _PerImage(axis, depth)}, **options)


def constant(**options: Any) -> Any:
    """Declare a field of a batch record that is the same for all images."""
    return field(metadata={_LAYOUT: None}, **options)


@dataclass_transform(frozen_default=True, field_specifiers=(per_image, constant))
def batch_record(cls: type[Record]) -> type[Record]:
    """Make ``cls`` a frozen dataclass; ``TypeError`` if a field is neither per image nor
    constant."""
    made = dataclass(frozen=True)(cls)
    for each in fields(made):  # type: ignore[arg-type]
        if _LAYOUT not in each.metadata:
            raise TypeError(f"{cls.__qualname__}.{each.name} is declared neither per_image() nor constant()")
    return made


def select_rows(record: Record, keep: Tensor | slice) -> Record:
    """The same batch record with the images at ``keep`` alone, in that order.

    ``keep`` holds indices, [kept], or is a slice. ``TypeError`` if ``record`` is not a batch
    record.
    """
    kept = {}
    for each in fields(record):  # type: ignore[arg-type]
        if _LAYOUT not in each.metadata:
            raise TypeError(f"{type(record).__qualname__}.{each.name} is declared neither per_image() nor constant()")
        layout = each.metadata[_LAYOUT]
        if layout is not None:
            kept[each.name] = _selected(getattr(record, each.name), layout.depth, _selector(layout.axis, keep))
    return replace(record, **kept)  # type: ignore[type-var]


def _selector(axis: int, keep: Tensor | slice) -> Callable[[Any], Any]:
    def select(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value[(slice(None),) * axis + (keep,)]
        if isinstance(value, tuple):
            return value[keep] if isinstance(keep, slice) else tuple(value[row] for row in keep.tolist())
        return select_rows(value, keep)

    return select


def _selected(value: Any, depth: int, select: Callable[[Any], Any]) -> Any:
    if value is None:
        return None
    if not depth:
        return select(value)
    if isinstance(value, Mapping):
        return {name: _selected(each, depth - 1, select) for name, each in value.items()}
    return tuple(_selected(each, depth - 1, select) for each in value)


def concatenated(records: Sequence[Record]) -> Record:
    """One batch record with the images of all ``records``, in their order.

    Their per-image fields are tensors, or absent in all; constants are the first one's.
    """
    joined = {}
    for each in fields(records[0]):  # type: ignore[arg-type]
        layout, values = each.metadata[_LAYOUT], [getattr(record, each.name) for record in records]
        if layout is not None and values[0] is not None:
            joined[each.name] = torch.cat(values, layout.axis)
    return replace(records[0], **joined)  # type: ignore[type-var]


def image_norms(values: Tensor) -> Tensor:
    """Euclidean norm [batch] of what each image has in ``values`` [batch,...]."""
    return values.flatten(1).norm(dim=1)


def image_units(values: Tensor) -> Tensor:
    """``values`` [batch,...], each image's with a Euclidean norm of 1; zeros stay zeros."""
    return values / spread(image_norms(values).clamp(min=1e-30), values)


def spread(values: Tensor, like: Tensor) -> Tensor:
    """``values`` [batch] with the rank of ``like`` [batch,...], so that each image's meets all of
    its own."""
    return values.view(-1, *[1] * (like.ndim - 1))
