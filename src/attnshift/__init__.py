"""Natural-looking adversarial images by steering a diffusion model's attention."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attnshift._version import __version__

if TYPE_CHECKING:
    from attnshift.attack.latent_attack import AttackResult, LatentAttack
    from attnshift.classifiers import load_classifier
    from attnshift.classifiers.classifier import Classifier
    from attnshift.defences.defended import Defended
    from attnshift.defences.names import load_defended
    from attnshift.diffusion import load_pipeline
    from attnshift.recipes.reading import load_recipe
    from attnshift.recipes.schema import Recipe

__all__ = [
    "AttackResult",
    "Classifier",
    "Defended",
    "LatentAttack",
    "Recipe",
    "__version__",
    "load_classifier",
    "load_defended",
    "load_pipeline",
    "load_recipe",
]

_HOMES = {
    "AttackResult": "attnshift.attack.latent_attack",
    "Classifier": "attnshift.classifiers.classifier",
    "Defended": "attnshift.defences.defended",
    "LatentAttack": "attnshift.attack.latent_attack",
    "Recipe": "attnshift.recipes.schema",
    "load_classifier": "attnshift.classifiers",
    "load_defended": "attnshift.defences.names",
    "load_pipeline": "attnshift.diffusion",
    "load_recipe": "attnshift.recipes.reading",
}


def __getattr__(name: str) -> Any:
    """Import public names when they are first used, so that the command line starts without torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'attnshift' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
