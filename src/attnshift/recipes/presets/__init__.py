"""Recipes of latent attacks that ship with the package, by name."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from typing import Any

__all__ = ["preset_names", "preset_summary", "preset_text"]


def preset_names() -> list[str]:
    return sorted(each.name.removesuffix(".toml") for each in _folder().iterdir() if each.name.endswith(".toml"))


def preset_summary(name: str) -> str:
    return tomllib.loads(preset_text(name))["summary"]


def preset_text(name: str) -> str:
    """The TOML of preset ``name``."""
    return (_folder() / f"{name}.toml").read_text(encoding="utf-8")


def _folder() -> Any:
    return files("attnshift.recipes.presets")
