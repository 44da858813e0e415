"""The notebooks of the documents: they run as they stand, and hold outputs that anybody may see."""

from __future__ import annotations

import json
import os
import re
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
LARGEST = 600_000
"""Bytes of a notebook."""
PRIVATE = re.compile(r"/(?:root|home|Users|tmp|work)/|Warning\b|Traceback|seconds")
"""What tells of one machine, or of something that went wrong."""


def outputs(notebook: Any) -> list[list[dict[str, Any]]]:
    """Outputs of each cell of code."""
    return [cell["outputs"] for cell in notebook["cells"] if cell["cell_type"] == "code"]


def kinds(notebook: Any) -> list[list[tuple[str, ...]]]:
    """Stream or kinds of data of each output, cell by cell; which picture is the smaller one may change."""
    return [
        [(each.get("name", ""), *sorted({kind.split("/")[0] for kind in each.get("data", {})})) for each in cell]
        for cell in outputs(notebook)
    ]


def test_there_are_three() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["first-attack", "own-term", "reading-attention"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_is_kept_is_one_clean_run(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    notebook = json.loads(text)
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == [*range(1, len(cells) + 1)]
    said = [each for cell in outputs(notebook) for each in cell]
    assert all(each["output_type"] != "error" and each.get("name") != "stderr" for each in said)
    assert not PRIVATE.search(json.dumps([each.get("text") or each["data"].get("text/plain") for each in said]))
    assert len(text) < LARGEST


@pytest.mark.heavy
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_as_it_stands(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    executed = runpy.run_path(str(ROOT / "examples" / "pages" / "notebooks.py"))["executed"]
    assert kinds(executed(path, tmp_path)) == kinds(json.loads(path.read_text(encoding="utf-8")))
