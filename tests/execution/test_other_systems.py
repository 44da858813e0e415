"""Runs on a system that has no fcntl, no limits on memory and no folders to open, as Windows is."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import attnshift
from attnshift import files
from attnshift.data.references import scheme_of
from attnshift.files import atomic_write
from attnshift.results.rows import ResultRow, VerdictRow
from attnshift.results.store import Store
from small_runs import SURROGATE, write_photos

COMMANDS = """
import os, sys
for name in ("fcntl", "resource"):
    sys.modules[name] = None
for name in ("O_DIRECTORY", "O_CLOEXEC"):
    delattr(os, name)
from attnshift.cli import main
images, labels, pipeline, out = sys.argv[1:]
surrogate, judge = "random:test_resnet", "random:test_convnext"
attack = ["attack", images, "--labels", labels, "--pipeline", pipeline, "--surrogate", surrogate, "--out", out]
for command in (
    [*attack, "--preset", "pgd", "--set", "baseline.steps=1", "--batch", "1", "--threads", "1"],
    ["evaluate", out, "--judge", judge],
    ["report", out],
):
    sys.argv = ["attnshift", *command]
    try:
        main()
    except SystemExit as end:
        assert not end.code, (command, end.code)
"""


def unix_at_module_level(path: Path) -> list[str]:
    """Modules of Unix alone that the file imports without being asked."""
    found = []
    for statement in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.Import):
            found += [name.name for name in statement.names]
        if isinstance(statement, ast.ImportFrom):
            found.append(statement.module or "")
    return [name for name in found if name in {"fcntl", "resource", "grp", "pwd", "termios"}]


def test_no_module_asks_for_unix(tmp_path: Path) -> None:
    (tmp_path / "locks.py").write_text("import fcntl", encoding="utf-8")
    assert unix_at_module_level(tmp_path / "locks.py") == ["fcntl"]
    sources = list(Path(attnshift.__path__[0]).rglob("*.py"))
    assert len(sources) > 100
    assert [path for path in sources if unix_at_module_level(path)] == []


@pytest.mark.heavy
def test_attack_evaluate_and_report_need_no_part_of_unix(pipeline_folder: Path, tmp_path: Path) -> None:
    write_photos(tmp_path, 2)
    out, program = tmp_path / "run", ["-W", "ignore", "-c", COMMANDS]
    arguments = [tmp_path / "images", tmp_path / "labels.csv", pipeline_folder, out]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *program, *map(str, arguments)], capture_output=True, text=True, timeout=120, env=environment
    )
    assert done.returncode == 0, done.stderr
    store = Store.open(out)
    assert len(store.table(ResultRow)) == 2
    assert {row.classifier for row in store.table(VerdictRow)} == {SURROGATE, "random:test_convnext"}
    assert (out / "report.html").is_file()
    assert list((out / "locks").iterdir()) == []


def test_a_file_that_another_process_reads_is_replaced_once_it_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows refuses until then."""
    replace, refusals = os.replace, [PermissionError(13, "Permission denied")] * 3

    def busy(*arguments: Path) -> None:
        if refusals:
            raise refusals.pop()
        replace(*arguments)

    monkeypatch.setattr(os, "replace", busy)
    monkeypatch.setattr(files, "_PATIENCE", 10.0)
    atomic_write(tmp_path / "table", b"new")
    assert (tmp_path / "table").read_bytes() == b"new"
    assert refusals == []


def test_a_drive_is_no_scheme() -> None:
    assert scheme_of(r"C:\photos\a.png") == ""
