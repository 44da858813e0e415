"""The rate of storing is measured with the files of a real run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import storing

from attnshift.results.rows import ResultRow


def test_files_like_those_of_a_run_are_stored_and_removed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, disk = tmp_path / "run", tmp_path / "disk"
    row = ResultRow("x", "x.png", 1, "mug", losses={"a": (1.0, 0.5)}, margins={"attack": (0.5, 1.5)})
    for path, content in {"items/x.json": json.dumps(row.to_record()), "images/x.attack.png": "1234"}.items():
        (run / path).parent.mkdir(parents=True)
        (run / path).write_text(content)
    disk.mkdir()
    storing.main([str(run), "--on", str(disk), "--count", "10"])
    assert "1 PNGs of 4 bytes and " in capsys.readouterr().out
    assert not list(disk.iterdir())
