"""Folders of pipelines: the parts that a family has, and the classes that they may be of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Layout"]


def _nothing(folder: Path) -> None:
    pass


@dataclass(frozen=True)
class Layout:
    """The parts of a family's pipelines, as model_index.json names them.

    ``networks``, the denoiser first, and ``tokenizers`` give the classes that each part may be of;
    every family has a ``vae`` and a ``scheduler`` as well. An ``optional`` part may be absent.
    ``check`` reads configurations as data and raises ``ModelError``. The pipeline is made by
    ``pipeline``, a class of diffusers, with the arguments ``left_out``. A ``flow`` has sigmas in
    the place of betas.
    """

    family: str
    """Name of the family in messages, a plural."""
    pipeline: Any
    networks: Mapping[str, tuple[str, ...]]
    tokenizers: Mapping[str, tuple[str, ...]]
    optional: tuple[str, ...] = ()
    flow: bool = False
    check: Callable[[Path], None] = _nothing
    left_out: Mapping[str, Any] = field(default_factory=dict)

    @property
    def denoiser(self) -> str:
        """Its denoiser: "unet" or "transformer"."""
        return next(iter(self.networks))

    @property
    def encoders(self) -> tuple[str, ...]:
        """Its text encoders."""
        return tuple(part for part in self.networks if part.startswith("text_encoder"))
