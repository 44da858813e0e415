"""Saved images of a run, read back to be judged and measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

import torch
from torch import Tensor

from attnshift.data.images import read_image, size_in
from attnshift.results.plan import parts
from attnshift.results.rows import ResultRow
from attnshift.results.store import Store, finished_rows
from attnshift.sizes import Size

__all__ = ["read_arm"]


def read_arm(store: Store, ids: Sequence[str], arm: str) -> Tensor:
    """Saved images of ``arm``, with these ``ids`` and of one size: [images,3,height,width] in
    [0,1]."""
    return torch.stack([read_image(store.image_path(id, arm), None) for id in ids])


def by_size(store: Store) -> list[ResultRow]:
    """Rows of the finished images, those of one size one after the other, else in their order."""
    rows = finished_rows(store)
    sizes = _sizes(store, rows)
    first = {size: at for at, size in reversed([*enumerate(sizes)])}
    ordered = sorted(zip(sizes, rows, strict=True), key=lambda pair: first[pair[0]])
    return [row for _, row in ordered]


def parts_of_one_size(store: Store, rows: Sequence[ResultRow], batch: int) -> Iterator[list[ResultRow]]:
    """Neighbours among ``rows`` whose images have one size, at most ``batch`` at a time."""
    for _, group in groupby(zip(_sizes(store, rows), rows, strict=True), key=lambda pair: pair[0]):
        yield from ([*part] for part in parts((row for _, row in group), batch))


def smallest_size(store: Store) -> Size:
    """The least rows and the least columns of a finished image."""
    sizes = set(_sizes(store, finished_rows(store)))
    return Size(min(size.rows for size in sizes), min(size.columns for size in sizes))


def _sizes(store: Store, rows: Sequence[ResultRow]) -> list[Size]:
    common = store.spec().common_size
    if common is not None:
        return [common] * len(rows)
    # Only the head of a file is read.
    return [size_in(store.image_path(row.id, "clean").read_bytes()) or Size.of(0) for row in rows]
