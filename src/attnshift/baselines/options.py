"""Options that every attack of the table has in common."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self

from attnshift.registry import STRICT

__all__ = ["ScaledOptions"]


@dataclass(frozen=True)
class ScaledOptions:
    """Options as fields; ``lengths`` names those that are as long as the change, which the strength
    of an attack is a factor on."""

    __pydantic_config__ = STRICT
    lengths: ClassVar[tuple[str, ...]] = ()

    def scaled(self, strength: float) -> Self:
        """The same attack with ``strength`` times its lengths; one that is None stays so."""
        lengths = {name: getattr(self, name) for name in self.lengths}
        return replace(self, **{name: strength * each for name, each in lengths.items() if each is not None})
