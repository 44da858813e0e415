"""Figures on standard output, as `attnshift report` prints them: JSON or tables, and nothing else."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from attnshift.cli import app
from attnshift.errors import UserError
from attnshift.report.run_tables import run_data
from report.made_up import made_up_run

if TYPE_CHECKING:
    from attnshift.results.store import Store


@pytest.fixture
def run(tmp_path: Path) -> Store:
    return made_up_run(tmp_path / "run")


def test_json_alone_on_standard_output(run: Store) -> None:
    done = CliRunner().invoke(app, ["report", str(run.folder), "--json"])
    assert json.loads(done.stdout) == run_data(run) | {"page": str(run.folder / "report.html")}
    assert done.stderr == f"attnshift: wrote {run.folder / 'report.html'}\n"


@pytest.mark.parametrize(
    ("form", "start"), [("markdown", "| classifier |"), ("csv", "classifier,"), ("latex", "\\begin{tabular}")]
)
def test_tables_alone_on_standard_output(run: Store, form: str, start: str) -> None:
    done = CliRunner().invoke(app, ["report", str(run.folder), "--table", form])
    assert done.exit_code == 0
    tables = done.stdout.split("\n\n")
    assert [table.startswith(start) for table in tables] == [True, form == "latex", form == "latex"]
    if form == "csv":
        assert len({len(row) for row in csv.reader(tables[0].splitlines())}) == 1


def test_the_path_of_the_page_where_nothing_is_asked_for(run: Store) -> None:
    assert CliRunner().invoke(app, ["report", str(run.folder)]).stdout == f"{run.folder / 'report.html'}\n"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--table", "html"], "`table` is html; known are markdown, csv and latex"),
        (["--table", "csv", "--json"], "`as_json` prints no tables"),
    ],
)
def test_forms_that_there_are_not(run: Store, more: list[str], message: str) -> None:
    done = CliRunner().invoke(app, ["report", str(run.folder), *more])
    assert isinstance(done.exception, UserError)
    assert message in str(done.exception)
    assert done.stdout == ""
