"""The attack behind the interfaces of torchattacks, foolbox and the Adversarial Robustness Toolbox (ART)."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

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


def __getattr__(name: str) -> Any:
    """Import an adapter when it is first used, and with it the one library that it needs."""
    if name not in _HOMES:
        raise AttributeError(f"module 'attnshift.adapters' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
