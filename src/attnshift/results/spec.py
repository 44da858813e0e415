"""Identity of a run: everything that decides its result, written beside it."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pydantic import BaseModel, Field, field_validator

from attnshift.diffusion import Precision
from attnshift.errors import UserError
from attnshift.recipes.schema import AnyRecipe, Recipe
from attnshift.registry import STRICT
from attnshift.results.arms import ARMS
from attnshift.sizes import KEEP, Size, read_size

__all__ = ["FORMAT", "RunSpec"]

FORMAT = 6
"""Version of the run folder; part of a run's identity."""

_ASIDE = {"images", "labels", "admitted"}
"""Fields that are no part of the identity: the same images from elsewhere continue a run."""
_NAMES = {"name", "summary", "tuned_on"}
"""Fields of a recipe that change no image."""


class RunSpec(BaseModel):
    """Everything that changes the output of a run; ``device``,
    ``threads`` and ``batch`` change its last bits."""

    model_config = STRICT

    format: int = FORMAT
    images: str
    labels: str | None
    items: str
    """Digest over the ids of the items that the run began with, in order."""
    pipeline: str
    surrogates: tuple[str, ...] = Field(min_length=1)
    weights: dict[str, str] = {}
    """Fingerprints of the pipeline and of the surrogates, by their names."""
    size: int | str
    """Side of the square images, WIDTHxHEIGHT, or "keep", all in pixels."""
    batch: int = Field(ge=1, le=4096)
    device: str
    precision: Precision = "float32"
    threads: int = Field(ge=1)
    software: dict[str, str] = {}
    recipe: AnyRecipe
    admitted: tuple[str, ...] = ()
    """Complaints about the labels and the pipeline that somebody admitted when the run began."""

    @field_validator("format")
    @classmethod
    def _is_the_one_we_read(cls, number: int) -> int:
        if number != FORMAT:
            raise ValueError(f"this version of attnshift reads format {FORMAT}; make the run again with another `out`")
        return number

    @field_validator("size")
    @classmethod
    def _is_a_size(cls, given: int | str) -> int | str:
        try:
            size = read_size(given)
        except UserError as error:
            raise ValueError(str(error)) from None
        return KEEP if size is None else size.plain

    @property
    def common_size(self) -> Size | None:
        """The size of all images; None where each is attacked near its own."""
        return read_size(self.size)

    @property
    def shown_size(self) -> str:
        """The size in words."""
        return "each image near its own size" if self.common_size is None else f"{self.size} px"

    @property
    def arms(self) -> tuple[str, ...]:
        """Arms of the run; an attack on pixels has no round trip and no reconstruction, nor has one
        that generates images."""
        missing = () if self.recipe.uses_pipeline and not self.recipe.generates else ("round_trip", "reconstruction")
        return tuple(arm for arm in ARMS if arm not in missing)

    def stopped(self, updates: int) -> RunSpec:
        """The run whose attack on latents ends after so many ``updates``."""
        assert isinstance(self.recipe, Recipe)
        return self.model_copy(update={"recipe": self.recipe.ended_after(updates)})

    @property
    def digest(self) -> str:
        """Name of exactly this attack, begun with exactly these images,
        in every PNG that it writes."""
        return _hashed(self.model_dump(mode="json", exclude=_ASIDE))

    def key(self, id: str) -> str:
        """Name of the work on one item. It is equal in two runs that would do the same to it, up to
        the last bits, which its batch mates decide."""
        decisive = self.model_dump(mode="json", exclude=_ASIDE | {"items"})
        decisive["recipe"] = {key: each for key, each in decisive["recipe"].items() if key not in _NAMES}
        return _hashed({"item": id, **decisive})

    def differences(self, other: RunSpec) -> list[str]:
        """``key: ours, not theirs`` for everything that differs and changes the output, but for the
        items: a run takes in other ones (``generations``)."""
        mine, theirs = _flat(self.model_dump(mode="json")), _flat(other.model_dump(mode="json"))
        return [
            f"{key}: {mine.get(key)!r}, not {theirs.get(key)!r}"
            for key in sorted(mine.keys() | theirs.keys())
            if key not in _ASIDE | {"items"} and mine.get(key) != theirs.get(key)
        ]


def _hashed(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
