"""What all sections of a recipe obey."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from attnshift.registry import STRICT

__all__ = ["OpenSection", "Section"]


class Section(BaseModel):
    model_config = STRICT


class OpenSection(BaseModel):
    """A section whose remaining keys are the options of what it names, checked by that."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False, frozen=True)

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})
