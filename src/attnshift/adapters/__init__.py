"""Adapters of the attack to torchattacks, foolbox and the Adversarial Robustness Toolbox (ART)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attnshift.lazy import lazy_names

if TYPE_CHECKING:
    from attnshift.adapters.art_adapter import ArtAdapter
    from attnshift.adapters.foolbox_adapter import FoolboxAdapter
    from attnshift.adapters.torchattacks_adapter import TorchattacksAdapter

__all__ = ["ArtAdapter", "FoolboxAdapter", "TorchattacksAdapter"]

_HOMES = {
    "ArtAdapter": "attnshift.adapters.art_adapter",
    "FoolboxAdapter": "attnshift.adapters.foolbox_adapter",
    "TorchattacksAdapter": "attnshift.adapters.torchattacks_adapter",
}

# Each adapter imports only the library that it needs.
__getattr__, __dir__ = lazy_names(__name__, _HOMES)
