"""Failed images that a command tolerates: a number of them, or a share of all images."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Self

import typer

from attnshift.errors import UserError

__all__ = ["MaxFailed", "Tolerance"]

MaxFailed = Annotated[
    str, typer.Option(metavar="N|N%", help="Failed images, a number or a share, that leave the exit status at 0.")
]


@dataclass(frozen=True)
class Tolerance:
    """The option ``max_failed``, read: a number of images, or with ``is_share`` a share of them."""

    given: str
    number: Fraction
    is_share: bool

    @classmethod
    def read(cls, given: str) -> Self:
        """Read a number such as 20 or a share such as 1%; anything else is a ``UserError``."""
        found = re.fullmatch(r"(\d+)|(\d+(?:\.\d+)?)%", given, re.ASCII)
        if found is None or (found[1] is None and Fraction(found[2]) > 100):
            raise UserError(f"`max_failed` is {given}; expected a number of images, such as 20, or a share, such as 1%")
        return cls(given, Fraction(found[1] or found[2]), found[1] is None)

    def exceeded(self, failed: int, images: int) -> bool:
        """True if ``failed`` of ``images`` are more than is tolerated."""
        return failed > (self.number * images / 100 if self.is_share else self.number)

    def line(self, failed: int, images: int) -> str:
        """Comparison of ``failed`` with the option, as the end of a sentence;
        nothing where none is tolerated."""
        if self.given == "0":
            return ""
        return f", {'more than' if self.exceeded(failed, images) else 'within'} `max_failed`, {self.given}"
