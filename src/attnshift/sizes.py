"""Sizes of images, latents and attention grids, and how options state them. Needs no torch."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from attnshift.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["KEEP", "LARGEST_SIDE", "SMALLEST_SIDE", "Sides", "Size", "read_size", "size_of"]

KEEP = "keep"
"""Size of a run whose images are attacked whole, each near its own size."""

SMALLEST_SIDE, LARGEST_SIDE = 8, 4096
"""Bounds of an image's sides in a run, in pixels."""

_PAIR = re.compile(r"(\d{1,9})x(\d{1,9})", re.ASCII | re.IGNORECASE)


class Size(NamedTuple):
    """Rows and columns, in the order of tensors: pixels of an image, values of latents, positions
    of an attention grid.

    Its text states the width first, as files of images and programs for them do.

    >>> str(Size(512, 768)), str(Size(64, 64)), Size(7, 10).shrunk(4)
    ('768x512', '64', Size(rows=2, columns=3))
    """

    rows: int
    columns: int

    @classmethod
    def of(cls, given: Sides) -> Size:
        """``given``, where a number is the side of a square."""
        return given if isinstance(given, Size) else cls(given, given)

    @property
    def area(self) -> int:
        return self.rows * self.columns

    @property
    def plain(self) -> int | str:
        """The side of a square, else the text: what ``read_size`` reads."""
        return self.rows if self.rows == self.columns else str(self)

    def shrunk(self, factor: int) -> Size:
        """The size of every ``factor``-th value; what is left over counts as one more."""
        return Size(-(-self.rows // factor), -(-self.columns // factor))

    def within(self, most: int) -> Size:
        """The same shape, as far as whole numbers allow, with at most so many rows and columns."""
        longest = max(self)
        return self if longest <= most else Size(*(max(1, round(side * most / longest)) for side in self))

    def __str__(self) -> str:
        return str(self.rows) if self.rows == self.columns else f"{self.columns}x{self.rows}"


Sides = Size | int
"""A size, or the side of a square."""


def size_of(images: Tensor) -> Size:
    """Rows and columns of images or latents [...,rows,columns]."""
    return Size(*images.shape[-2:])


def read_size(given: int | str) -> Size | None:
    """The size that the option ``size`` states: a side, or WIDTHxHEIGHT; None for "keep".

    Raises ``UserError`` for anything else, and for sides that are out of bounds.

    >>> read_size("768x512"), read_size("64"), read_size("keep")
    (Size(rows=512, columns=768), Size(rows=64, columns=64), None)
    """
    text = str(given).strip()
    if text == KEEP:
        return None
    pair = _PAIR.fullmatch(text if "x" in text.lower() else f"{text}x{text}")
    if pair is None and not re.fullmatch(r"[+-]?\d+", text):
        what = "give a side in pixels such as 512, width and height such as 768x512, or keep"
        raise UserError(f"`size` is {text!r:.80}; {what}")
    size = Size(int(pair[2]), int(pair[1])) if pair else Size.of(int(text))
    if not all(SMALLEST_SIDE <= side <= LARGEST_SIDE for side in size):
        raise UserError(f"`size` is {text:.80}; it must lie between {SMALLEST_SIDE} and {LARGEST_SIDE}")
    return size
