"""The examples run as they stand."""

from __future__ import annotations

import runpy
import subprocess
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from attnshift.attack.method import Method
from attnshift.cli import app
from attnshift.recipes.reading import load_recipe
from attnshift.studies.tuning.search import read_search

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.mark.heavy
def test_quickstart(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLES / "quickstart.py"))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert all("the judge sees a" in line for line in lines)


@pytest.mark.heavy
def test_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["folder.py", str(tmp_path)])
    runpy.run_path(str(EXAMPLES / "folder.py"))
    *verdicts, page = capsys.readouterr().out.splitlines()
    assert len(verdicts) == 8
    assert any("True" in line for line in verdicts)
    assert page == f"open {tmp_path / 'run' / 'report.html'}"


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_examples_stay_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 30


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("recipes/*.toml")), ids=lambda path: path.name)
def test_recipes_can_be_carried_out(path: Path) -> None:
    assert Method.of(load_recipe(str(path))).recipe.name == path.stem


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("search/*.toml")), ids=lambda path: path.name)
def test_searches_can_be_read(path: Path) -> None:
    assert read_search(path)


def test_a_task_of_slurm_gives_its_arguments_to_one_attack_in_the_shared_folder(tmp_path: Path) -> None:
    told = tmp_path / "attnshift"
    told.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    told.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_CPUS_PER_TASK": "4", "SLURM_ARRAY_TASK_ID": "7"}
    arguments = ["/shared/my run", "photos", "--surrogate", "lab:resnet"]
    script = EXAMPLES / "slurm" / "attack.sh"
    done = subprocess.run(["bash", script, *arguments], env=environment, capture_output=True, text=True, check=True)
    given = done.stdout.splitlines()
    assert given[:4] == ["attack", *arguments[1:]]
    assert given[given.index("--out") + 1] == "/shared/my run"
    assert given[given.index("--log") + 1] == "/shared/my run-events/7.jsonl"
    attack = get_command(app).commands["attack"]  # type: ignore[attr-defined]
    options = {flag for parameter in attack.params for flag in parameter.opts}
    assert {each for each in given if each.startswith("--")} <= options


def test_a_table_names_who_does_more_with_the_same_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLES / "pages")
    beaten_by = runpy.run_path(str(EXAMPLES / "pages" / "comparisons.py"))["beaten_by"]

    def line(name: str, success: float, gradients: float | None, evaluations: float) -> dict[str, Any]:
        costs = {"surrogate_gradients": {"value": gradients}, "denoiser_evaluations": {"value": evaluations}}
        return {"name": name, "success": {"value": success}, "costs": costs}

    lines = [
        line("strong", 0.9, 96, 64), line("fast", 0.8, 48, 40), line("pixels", 0.6, 96, 0), line("weak", 0.5, 96, 0),
        line("long", 0.5, 200, 0), line("wide", 0.7, 96, 64), line("old", 0.1, None, 0),
    ]  # fmt: skip
    assert [beaten_by(each, lines) for each in lines] == ["–", "–", "–", "pixels", "pixels", "strong", "–"]
