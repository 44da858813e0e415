"""Parts that the files of all comparisons share, those of strengths and those within budgets."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import quote

from attnshift._version import __version__
from attnshift.files import atomic_write
from attnshift.report.budgets import BudgetComparison
from attnshift.report.curves import Comparison

__all__ = ["address", "comparison_facts", "relative", "write_files"]


def comparison_facts(comparison: Comparison | BudgetComparison) -> dict[str, Any]:
    """What was compared, as data: the head of compare.json."""
    spec = comparison.spec
    return {
        "attnshift": __version__,
        "images": comparison.images,
        "planned": comparison.planned,
        "failures": [asdict(failure) for failure in comparison.failures],
        "pipeline": spec.pipeline,
        "size": spec.size,
        "surrogates": list(spec.surrogates),
        "judges": list(comparison.judges),
        "judges_aside": list(comparison.aside),
    }


def write_files(folder: Path, data: Mapping[str, Any], page: bytes) -> Path:
    """Write compare.json and compare.html into ``folder`` and return the path of the page."""
    atomic_write(folder / "compare.json", (json.dumps(data, indent=1) + "\n").encode())
    atomic_write(folder / "compare.html", page)
    return folder / "compare.html"


def relative(folder: Path, path: Path) -> str:
    """``path`` as seen from ``folder``, with slashes."""
    return Path(os.path.relpath(path, folder)).as_posix()


def address(folder: Path, path: Path) -> str:
    """Address of ``path`` in a page that lies in ``folder``."""
    return quote(relative(folder, path))
