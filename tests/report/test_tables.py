"""Tables as Markdown, CSV and LaTeX, and the figures of a run as data."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from attnshift.metrics.statistics import Estimate
from attnshift.report.curve_page import comparison_tables
from attnshift.report.run_tables import run_data, run_tables
from attnshift.report.tables import TABLE_FORMATS, Cell, FigureTable, estimate_data, write_tables
from attnshift.results.rows import SetRow
from report.made_up import FIRST, HOSTILE_NAME, IDS, SURROGATE, fail, made_up_run
from report.made_up_comparison import HOSTILE, made_up_comparison
from report.test_label import REFERENCE, VISIBLE, with_reference
from tables import write_records

if TYPE_CHECKING:
    from attnshift.results.store import Store

SUCCESS = Estimate(0.625, 0.5, 0.75, 8)
TABLE = FigureTable(
    ("recipe", "success", "images"),
    (
        ("a|b_c & 100 %", Cell("62 % [50, 75]", SUCCESS), Cell("8", 8)),
        ("plain", Cell("not reached: stays below"), Cell("0", 0)),
    ),
)


def read_csv(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text)))


def test_markdown() -> None:
    assert write_tables([TABLE], "markdown").splitlines() == [
        "| recipe | success | images |",
        "|---|---|---|",
        "| a\\|b_c & 100 % | 62 % [50, 75] | 8 |",
        "| plain | not reached: stays below | 0 |",
    ]


def test_csv_has_all_digits_and_the_ends_of_intervals() -> None:
    assert read_csv(write_tables([TABLE], "csv")) == [
        ["recipe", "success", "success low", "success high", "images"],
        ["a|b_c & 100 %", "0.625", "0.5", "0.75", "8"],
        ["plain", "not reached: stays below", "", "", "0"],
    ]


@pytest.mark.parametrize(
    ("estimate", "expected"),
    [
        (Estimate(math.nan, 0.0, 1.0, 0), ["", "", ""]),
        (Estimate(0.5, math.nan, math.nan, 3), ["0.5", "", ""]),
        (Estimate(math.inf, math.inf, math.inf, 0), ["inf", "inf", "inf"]),
    ],
)
def test_csv_leaves_a_cell_empty_where_there_is_no_figure(estimate: Estimate, expected: list[str]) -> None:
    assert read_csv(write_tables([FigureTable(("x",), ((Cell("–", estimate),),))], "csv"))[1] == expected


def test_latex_in_the_style_of_booktabs() -> None:
    assert write_tables([TABLE], "latex").splitlines() == [
        r"\begin{tabular}{lrr}",
        r"\toprule",
        r"recipe & success & images \\",
        r"\midrule",
        r"a\textbar{}b\_c \& 100 \% & 62 \% {[}50, 75{]} & 8 \\",
        r"plain & not reached: stays below & 0 \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_latex_runs_no_command_of_a_user() -> None:
    hostile = "\\input{x} $x$ 5% #1 {a}~^_ a\nb"
    (row,) = (line for line in write_tables([FigureTable((hostile,), ())], "latex").splitlines() if "input" in line)
    assert row.startswith(r"\textbackslash{}input\{x\} \$x\$ 5\% \#1 \{a\}\textasciitilde{}\textasciicircum{}\_ ")
    assert "\\input" not in row.replace("\\textbackslash{}input", "")


@pytest.mark.parametrize("form", TABLE_FORMATS)
def test_tables_stand_apart(form: str) -> None:
    assert write_tables([TABLE, TABLE], form) == "\n\n".join([write_tables([TABLE], form)] * 2)


@pytest.mark.parametrize("form", ["markdown", "latex"])
def test_no_name_steers_a_terminal(form: str) -> None:
    assert "\x1b" not in write_tables([FigureTable(("a\x1b[1m",), ())], form)


def test_tables_of_a_comparison(tmp_path: Path) -> None:
    fixed, runs = comparison_tables(made_up_comparison(tmp_path))
    header, *lines = read_csv(write_tables([fixed], "csv"))
    assert header[:4] == ["recipe", "success at SSIM 0.90", "success at SSIM 0.90 low", "success at SSIM 0.90 high"]
    assert lines[0][:5] == ["fast", "0.5", "0.42", "0.58", "–"]
    assert lines[2][0] == HOSTILE
    assert len(runs.rows) == 9


@pytest.fixture
def run(tmp_path: Path) -> Store:
    return made_up_run(tmp_path / "run")


def test_tables_of_a_run(run: Store) -> None:
    success, naturalness, attention = run_tables(run)
    assert attention.rows[0][0] == "class, saved file"
    assert success.columns[:3] == ("classifier", "role", "clean accuracy")
    assert [row[0] for row in success.rows][-2:] == [FIRST, "mean of 2 judges"]
    header, *rows = read_csv(write_tables([naturalness], "csv"))
    assert header[:4] == ["arm", "ssim", "ssim low", "ssim high"]
    assert [row[0] for row in rows] == ["round trip", "reconstruction", "noise", "attack"]
    assert rows[0][4] == "inf", "every round trip is equal to its image"


def test_labels_visibility_and_sets_have_tables_of_their_own(run: Store) -> None:
    write_records(run, "verdicts", with_reference())
    write_records(run, "visibility", VISIBLE)
    run.write_table(SetRow, [SetRow("kid", "attack", "lab:resnet", False, 200, 1.0, 0.5, 2.0, "")])
    _, _, kept, with_label, visibility, _, sets = run_tables(run)
    assert kept.columns == ("arm", f"label kept, says {REFERENCE}")
    assert [row[0] for row in with_label.rows][-1] == "mean of 2 judges"
    assert visibility.columns == ("arm", "object_ssim", "contrast_kept")
    assert sets.rows == (("kid", "lab:resnet", "attack", Cell("1.00 [0.50, 2.00]", Estimate(1.0, 0.5, 2.0, 200))),)
    data = run_data(run)
    assert [(each["name"], each["images"], each["success"]["value"]) for each in data["classes"]] == [("mug", 3, 0.75)]
    assert data["confusion"] == [{"class": "mug", "seen": "donut", "verdicts": 2}]
    assert data["label"]["reference"] == REFERENCE
    assert data["visibility"]["attack"]["object_ssim"]["value"] == pytest.approx(0.6)
    assert data["sets"][0]["value"] == 1.0


def test_data_of_a_run_is_json_without_values_that_are_not_finite(run: Store) -> None:
    fail(run, "b")
    data = run_data(run)
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert (data["images"], data["planned"], data["left"]) == (len(IDS) - 1, 3, 0)
    assert data["failed"] == [{"id": "b", "file": "b.png", "label": 1, "reason": "its gradient is NaN"}]
    (surrogate,) = (each for each in data["classifiers"] if each["name"] == SURROGATE)
    assert surrogate["success"]["attack"]["value"] == 0.5
    assert data["quality"]["round_trip"]["psnr"]["value"] is None
    assert data["unavailable"].keys() >= {"lpips-alex"}


def test_data_of_a_run_that_is_not_judged(tmp_path: Path) -> None:
    data = run_data(made_up_run(tmp_path / "run", judged=False, hostile=True))
    assert (data["classifiers"], data["means"], data["label"], data["quality"]) == ([], [], None, {})
    assert HOSTILE_NAME not in json.dumps(data)


def test_an_estimate_as_data() -> None:
    assert estimate_data(Estimate(0.5, math.nan, math.inf, 2)) == {"value": 0.5, "low": None, "high": None, "count": 2}
    assert estimate_data(None) is None
