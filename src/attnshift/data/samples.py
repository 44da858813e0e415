"""Samples of a source: its unchecked statements about images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from attnshift.data.references import Reference
from attnshift.errors import UserError

__all__ = ["IMAGE_SUFFIXES", "Sample", "Samples"]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".jp2", ".avif")
"""Suffixes by which image files are recognised in class subfolders."""


@dataclass(frozen=True)
class Sample:
    """One image of a source, unchecked.

    ``where`` is its place, for messages. ``content`` is its encoded bytes, if they are already
    read. Of ``values``, ``label``, ``class_name``, ``caption`` and ``target`` are used. ``typed``
    is true for sources that distinguish numbers from text (JSON, parquet); there, a label written
    as text is an error.
    """

    where: str
    file: str
    image: Reference
    values: Mapping[str, object]
    mask: Reference | None = None
    content: bytes | None = None
    typed: bool = False
    first: int = 0
    """Number of the source's first class: 1 in layouts whose labels and targets count from 1."""
    own_names: tuple[str, ...] = ()
    """Names of the classes in the order of the source's numbers, if it states them."""
    stated: str = ""
    """Name of the class that the source states beside ``values``; only checked."""


Samples = Iterator[Sample | UserError]
"""Iterator over a source.

It yields an error in place of a sample that cannot be used, and goes on.
"""
