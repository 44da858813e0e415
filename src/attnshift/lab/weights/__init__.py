"""Trained networks of the lab, and their folders inside the package."""

from __future__ import annotations

from pathlib import Path

from attnshift.errors import ModelError
from attnshift.registry import suggest

__all__ = ["classifier_folder", "classifier_names", "flow_folder", "pipeline_folder"]

_HERE = Path(__file__).parent


def pipeline_folder() -> Path:
    """Folder of the lab's pipeline."""
    return _HERE / "pipeline"


def flow_folder() -> Path:
    """Folder of the lab's flow, a pipeline in the layout of Stable Diffusion 3."""
    return _HERE / "flow"


def classifier_names() -> list[str]:
    """Sorted names of the lab's classifiers."""
    return sorted(each.name for each in (_HERE / "classifiers").iterdir() if (each / "config.json").is_file())


def classifier_folder(name: str) -> Path:
    """Folder of the lab's classifier ``name``. Raises ``ModelError`` for an unknown name."""
    known = classifier_names()
    if name not in known:
        raise ModelError(f"unknown lab classifier '{name}'{suggest(name, known)}; known: {', '.join(known)}")
    return _HERE / "classifiers" / name
