"""Figures by model in benchmarks/results; each script keeps the figures of the others."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["FOLDER", "read", "record"]

FOLDER = Path(__file__).parent / "results"


def read(device: str) -> dict[str, dict[str, Any]]:
    """Return figures by model; none if nothing was measured on ``device``, cpu or cuda."""
    path = _path(device)
    return json.loads(path.read_text()) if path.exists() else {}


def record(device: str, model: str, figures: Mapping[str, Any], part: str, circumstances: Mapping[str, Any]) -> None:
    """Write ``figures`` and ``circumstances`` of ``model``; other parts stay as they are.

    ``part`` names what was measured.
    """
    results = read(device)
    before = results.get(model, {})
    measured = before.get("measured", {}) | {part: dict(circumstances)}
    results[model] = before | dict(figures) | {"measured": measured}
    FOLDER.mkdir(exist_ok=True)
    _path(device).write_text(json.dumps(results, indent=1) + "\n")


def _path(device: str) -> Path:
    return FOLDER / f"{'gpu' if device == 'cuda' else 'cpu'}.json"
