"""What a source says about an image, before any of it is checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from attnshift.data.references import Reference
from attnshift.errors import UserError

__all__ = ["IMAGE_SUFFIXES", "Entries", "Entry"]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".jp2", ".avif")
"""Names by which an image is known where nothing lists it."""


@dataclass(frozen=True)
class Entry:
    """One image of a source. ``where`` names its place in messages; ``content`` are its bytes, if they are at hand.

    Of ``values`` only ``label``, ``class_name`` and ``target`` count. ``typed`` says that the source tells numbers from
    text, so that a label written as text is a mistake.
    """

    where: str
    file: str
    image: Reference
    values: Mapping[str, object]
    mask: Reference | None = None
    content: bytes | None = None
    typed: bool = False


Entries = Iterator[Entry | UserError]
"""What a source yields: an error in place of an entry that cannot be used, after which it goes on."""
