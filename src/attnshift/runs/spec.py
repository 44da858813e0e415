"""What a run is: everything that decides its result, written beside it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, Field, field_validator

from attnshift.data.datasets import Item
from attnshift.evaluation import ARMS
from attnshift.peers.recipe import AnyRecipe, PeerRecipe
from attnshift.tables import STRICT

__all__ = ["FORMAT", "RunSpec", "batches", "items_digest"]

FORMAT = 3
"""Version of the run folder; part of a run's identity."""


class RunSpec(BaseModel):
    """All that changes a run's output. ``device``, ``threads`` and ``batch`` are in it: they change the last bits."""

    model_config = STRICT

    format: int = FORMAT
    images: str
    labels: str
    items: str
    """Digest over the identities of all items, in order."""
    pipeline: str
    surrogates: tuple[str, ...] = Field(min_length=1)
    size: int = Field(ge=8, le=4096)
    batch: int = Field(ge=1, le=4096)
    device: str
    threads: int = Field(ge=1)
    recipe: AnyRecipe

    @field_validator("format")
    @classmethod
    def _is_the_one_we_read(cls, number: int) -> int:
        if number != FORMAT:
            raise ValueError(f"this version of attnshift reads format {FORMAT}; make the run anew with another --out")
        return number

    @property
    def arms(self) -> tuple[str, ...]:
        """What is shown of every image; an attack on pixels reconstructs nothing."""
        missing = ("round_trip", "reconstruction") if isinstance(self.recipe, PeerRecipe) else ()
        return tuple(arm for arm in ARMS if arm not in missing)

    @property
    def digest(self) -> str:
        """Name of exactly this attack, in every PNG that it writes."""
        fixed = self.model_dump(mode="json", exclude={"images", "labels"})
        return hashlib.sha256(json.dumps(fixed, sort_keys=True).encode()).hexdigest()[:16]

    def differences(self, other: RunSpec) -> list[str]:
        """``key: ours, not theirs`` for everything that differs and changes the output."""
        mine, theirs = _flat(self.model_dump(mode="json")), _flat(other.model_dump(mode="json"))
        return [
            f"{key}: {mine.get(key)!r}, not {theirs.get(key)!r}"
            for key in sorted(mine.keys() | theirs.keys())
            if key not in ("images", "labels") and mine.get(key) != theirs.get(key)
        ]


def items_digest(items: Sequence[Item]) -> str:
    return hashlib.sha256("\n".join(item.identity for item in items).encode()).hexdigest()[:16]


def batches(items: Sequence[Item], size: int) -> list[list[Item]]:
    """The micro-batches of a run: consecutive items, fixed by the plan and by nothing that happens later."""
    return [list(items[start : start + size]) for start in range(0, len(items), size)]


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
