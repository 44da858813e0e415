"""Recipes within a budget, from runs that are written by hand: figures that can be counted on fingers."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from attnshift.errors import RunError
from attnshift.metrics.statistics import Change, bootstrap
from attnshift.report.budget_page import budget_tables, write_budgets
from attnshift.report.budgets import BudgetComparison, measure_budgets
from attnshift.report.tables import write_tables
from report.made_up import FIRST, SECOND, fail, made_up_run, results
from report.test_label import with_reference
from report.test_rivals import spared
from tables import write_records

if TYPE_CHECKING:
    from attnshift.results.store import Store

BUDGET = "ssim=0.9"


def costly(store: Store) -> Store:
    """The same run with its costs, and with shares of a budget."""
    costs = {"cpu_seconds": 3.0, "surrogate_gradients": 20.0, "denoiser_evaluations": 80.0, "spent": 0.75}
    write_records(store, "results", [row | costs for row in results()])
    return store


@pytest.fixture
def compared(tmp_path: Path) -> BudgetComparison:
    ours, theirs = costly(made_up_run(tmp_path / "runs" / "ours@ssim=0.9")), spared(tmp_path / "runs" / "theirs")
    return measure_budgets({"ours": {BUDGET: [ours]}, "theirs": {BUDGET: [theirs]}}, [FIRST, SECOND])


def test_success_is_attributable_and_paired_with_the_first_recipes(compared: BudgetComparison) -> None:
    """FIRST knows a and b, SECOND a; the reconstruction alone fools FIRST on b."""
    ((ours, theirs),) = (table.lines for table in compared.tables)
    assert (ours.success.value, ours.success.count) == (0.25, 2)
    assert {name: each.value for name, each in ours.judges.items()} == {FIRST: 0.5, SECOND: 0.0}
    assert theirs.success.value == 0
    assert theirs.gap is not None
    assert theirs.gap.value == -0.25
    assert theirs.change == Change(won=0, lost=1, p=1.0, count=2)
    assert (ours.gap, ours.change, theirs.corrected) == (None, None, 1.0)


def test_naturalness_and_costs_are_means_and_what_was_not_measured_is_no_figure(compared: BudgetComparison) -> None:
    ((ours, theirs),) = (table.lines for table in compared.tables)
    assert ours.quality["ssim"].value == pytest.approx(0.92)
    assert (ours.spent.value, theirs.spent.count) == (0.75, 0)
    assert {name: each.value for name, each in ours.costs.items()} == {
        "surrogate_gradients": 20.0,
        "denoiser_evaluations": 80.0,
        "cpu_seconds": 3.0,
    }
    text = write_tables(budget_tables(compared), "markdown")
    assert "| recipe, ssim=0.9 | success | difference to ours | won | lost | p (Holm) |" in text
    assert "| theirs | – | 0.920 | 31.0 | 2.00 | 0.250 | – | – | – |" in text


def test_the_references_answer_stands_beside_success(tmp_path: Path) -> None:
    """It knows a and b when clean, and loses a."""
    ours, theirs = made_up_run(tmp_path / "runs" / "ours"), spared(tmp_path / "runs" / "theirs")
    write_records(ours, "verdicts", with_reference())
    compared = measure_budgets({"ours": {BUDGET: [ours]}, "theirs": {BUDGET: [theirs]}}, [FIRST, SECOND])
    ((first, second),) = (table.lines for table in compared.tables)
    assert (first.label_kept.value, first.label_kept.count) == (0.5, 2)
    assert second.label_kept.count == 0
    text = write_tables(budget_tables(compared), "markdown")
    assert "| recipe, ssim=0.9 | success | label kept | difference to ours |" in text
    assert "| theirs | 0 % [0, 0] | – | -25 %" in text


def test_page_and_data_hold_the_same_figures(compared: BudgetComparison, tmp_path: Path) -> None:
    page = write_budgets(tmp_path, compared).read_text()
    (table,) = json.loads((tmp_path / "compare.json").read_text())["budgets"]
    assert [line["name"] for line in table["recipes"]] == ["ours", "theirs"]
    assert table["recipes"][0]["runs"] == ["runs/ours@ssim=0.9"]
    assert table["recipes"][1]["change"] == {"won": 0, "lost": 1, "p": 1.0, "count": 2, "p_holm": 1.0}
    assert table["recipes"][1]["spent"]["value"] is None
    assert table["recipes"][0]["label_kept"] is None
    assert "25 % [0, 50]" in page
    assert "<td>theirs</td>" not in page, "the name of a recipe can be read whole"


def test_seeds_are_averaged_and_widen_the_interval(tmp_path: Path) -> None:
    seeds = [made_up_run(tmp_path / "first"), spared(tmp_path / "second")]
    ((line,),) = (table.lines for table in measure_budgets({"ours": {BUDGET: seeds}}, [FIRST, SECOND]).tables)
    assert line.success.value == 0.125
    both = [[1.0, 0.0, 1.0, 1.0]] * 2
    apart = [[1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]]
    alike, different = bootstrap(both), bootstrap(apart)
    assert (alike.value, alike.count) == (0.75, 4)
    assert (different.low, different.value, different.high) == (0, 0.5, 1)
    assert bootstrap([[1.0, math.nan], [0.0, 1.0]]).count == 1, "an image without a value in one seed counts in none"


def test_an_image_that_failed_in_one_run_is_in_no_figure(tmp_path: Path) -> None:
    ours, theirs = made_up_run(tmp_path / "ours"), made_up_run(tmp_path / "theirs")
    fail(theirs, "b")
    compared = measure_budgets({"ours": {BUDGET: [ours]}, "theirs": {BUDGET: [theirs]}}, [FIRST, SECOND])
    assert (compared.images, compared.planned) == (2, 3)
    assert compared.missing == "1 of 3 images failed in at least one run and is in no figure"
    with pytest.raises(RunError, match="is not judged by all of"):
        measure_budgets({"ours": {BUDGET: [ours]}}, ["lab:third"])
