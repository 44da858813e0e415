"""The page, the data and the Markdown of a comparison."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from attnshift.metrics.curves import Reading
from attnshift.metrics.statistics import Estimate
from attnshift.report.curve_page import comparison_tables, write_comparison
from attnshift.report.curves import Comparison, ComparisonFailure
from attnshift.report.tables import write_tables
from report.made_up_comparison import HOSTILE, MADE_UP, around, made_up_comparison
from report.seen import Seen


def markdown(comparison: Comparison) -> str:
    return write_tables(comparison_tables(comparison), "markdown")


def page(folder: Path, comparison: Comparison | None = None) -> str:
    return write_comparison(folder, comparison or made_up_comparison(folder)).read_text(encoding="utf-8")


def with_reading(comparison: Comparison, reading: Reading) -> Comparison:
    """Every line reads ``reading`` at the second SSIM."""
    lines = tuple(replace(line, readings=(line.readings[0], reading)) for line in comparison.lines)
    return replace(comparison, lines=lines)


def test_user_text_stays_text(tmp_path: Path) -> None:
    html = page(tmp_path)
    assert "<script>alert" not in html
    seen = Seen(html)
    assert not [each for each in seen.attributes if each[1].startswith("on")]
    assert seen.text.count(HOSTILE) >= 2 + 3, "in the header, and in its rows"


def test_nothing_is_loaded_from_anywhere(tmp_path: Path) -> None:
    seen = Seen(page(tmp_path))
    assert {"link", "iframe", "img"}.isdisjoint(seen.tags)
    assert seen.tags.count("script") == 1, "of the page, which looks after its tables"
    assert not [each for each in seen.attributes if each[1] in ("src", "srcset", "data", "xlink:href")]
    assert ("meta", "http-equiv", "Content-Security-Policy") in seen.attributes


def test_the_page_holds_every_figure(tmp_path: Path) -> None:
    seen = Seen(page(tmp_path))
    for text in ("62 % [54, 70]", "0.869 [0.859, 0.879]", "24.5 [24.4, 24.6]", "lab:second"):
        assert text in seen.text
    assert seen.text.count("not reached: stays below") == len(MADE_UP)
    assert seen.text.count("10 % [2, 18]") == len(MADE_UP) - 1, "the first recipe has no difference to itself"
    assert seen.tags.count("polyline") == len(MADE_UP)
    assert seen.tags.count("tr") == 2 + len(MADE_UP) + 3 * len(MADE_UP)
    assert "nan" not in seen.text.split()


def test_a_single_recipe_has_no_differences(tmp_path: Path) -> None:
    comparison = made_up_comparison(tmp_path, {"fast": MADE_UP["fast"]})
    assert "difference" not in Seen(page(tmp_path, comparison)).text.partition("Every run")[0].partition("Beyond")[0]
    assert "difference" not in markdown(comparison)


def test_a_run_links_to_its_report_where_there_is_one(tmp_path: Path) -> None:
    comparison = made_up_comparison(tmp_path, {"fast": MADE_UP["fast"], "odd #1": MADE_UP["diffattack"]})
    for line in comparison.lines:
        folder = line.points[1].run.folder
        folder.mkdir(parents=True)
        (folder / "report.html").write_text("a report")
    links = [value for tag, name, value in Seen(page(tmp_path, comparison)).attributes if (tag, name) == ("a", "href")]
    links = [each for each in links if not each.startswith("#word-")]
    assert links == ["runs/fast%401/report.html", "runs/odd%20%231%401/report.html"]


def test_a_value_without_an_interval_says_why(tmp_path: Path) -> None:
    comparison = made_up_comparison(tmp_path)
    assert "no interval where" not in Seen(page(tmp_path, comparison)).text
    no_interval = Reading(0.95, Estimate(0.31, math.nan, math.nan, 64), None)
    seen = Seen(page(tmp_path, with_reading(comparison, no_interval)))
    assert "31 % –" in seen.text
    assert "no interval where" in seen.text


def test_the_data_are_those_of_the_page(tmp_path: Path) -> None:
    page(
        tmp_path, with_reading(made_up_comparison(tmp_path), Reading(0.95, Estimate(0.3, math.nan, math.nan, 9), None))
    )

    def refuse(name: str) -> float:
        raise AssertionError(f"{name} is no JSON")

    data = json.loads((tmp_path / "compare.json").read_text(encoding="utf-8"), parse_constant=refuse)
    assert (data["images"], data["judges"]) == (64, ["lab:first", "lab:second"])
    assert [each["name"] for each in data["recipes"]] == list(MADE_UP)
    fast = data["recipes"][0]
    strongest = fast["strengths"][-1]
    assert (strongest["strength"], strongest["run"]) == (2.0, "runs/fast@2")
    assert strongest["success"] == {"value": 0.62, "low": 0.62 - 0.08, "high": 0.62 + 0.08, "count": 64}
    assert [each["ssim"] for each in fast["at"]] == [0.9, 0.95]
    assert fast["at"][1] == {
        "ssim": 0.95,
        "success": {"value": 0.3, "low": None, "high": None, "count": 9},
        "gap": None,
    }


def test_what_is_not_reached_is_null_with_its_reason(tmp_path: Path) -> None:
    page(tmp_path)
    data = json.loads((tmp_path / "compare.json").read_text(encoding="utf-8"))
    assert data["recipes"][0]["at"][1] == {"ssim": 0.95, "success": None, "gap": None, "reason": "stays below"}


def test_markdown_has_the_same_rows_and_keeps_its_columns(tmp_path: Path) -> None:
    fixed, runs = (table.splitlines() for table in markdown(made_up_comparison(tmp_path)).split("\n\n"))
    assert fixed[0] == (
        "| recipe | success at SSIM 0.90 | difference to fast | success at SSIM 0.95 | difference to fast |"
    )
    assert fixed[3] == "| diffattack | 50 % [42, 58] | 10 % [2, 18] | not reached: stays below | – |"
    assert runs[2] == "| fast | 0.5 | 19 % [11, 27] | 0.968 [0.958, 0.978] | 24.5 [24.4, 24.6] | 0.75 |"
    for table in (fixed, runs):
        assert len({line.replace("\\|", "").count("|") for line in table}) == 1
    assert (len(fixed), len(runs)) == (2 + 3, 2 + 9)


def test_twice_the_same(tmp_path: Path) -> None:
    assert page(tmp_path) == page(tmp_path)


def test_a_failed_page_leaves_nothing_half(tmp_path: Path) -> None:
    before = page(tmp_path), (tmp_path / "compare.json").read_bytes()
    broken = made_up_comparison(tmp_path)
    broken = replace(broken, lines=(replace(broken.lines[0], readings=(None, around(1.0))), *broken.lines[1:]))  # type: ignore[arg-type]
    with pytest.raises(AttributeError):
        write_comparison(tmp_path, broken)
    assert ((tmp_path / "compare.html").read_text(encoding="utf-8"), (tmp_path / "compare.json").read_bytes()) == before


def test_what_failed_is_said_with_its_run_and_reason(tmp_path: Path) -> None:
    whole = Seen(page(tmp_path)).text
    assert "failed" not in whole
    failure = ComparisonFailure("fast", 0.5, "<b>a</b>.png", "its gradient is NaN")
    lacking = replace(made_up_comparison(tmp_path), planned=42, images=40, failures=(failure,))
    html = page(tmp_path, lacking)
    assert "<b>a" not in html
    text = Seen(html).text
    assert "2 of 42 images failed in at least one run and are in no figure." in text
    assert "recipe strength image reason fast 0.5 <b>a</b>.png its gradient is NaN" in text
    data = json.loads((tmp_path / "compare.json").read_text(encoding="utf-8"))
    assert (data["planned"], data["images"]) == (42, 40)
    assert data["failures"] == [
        {"name": "fast", "strength": 0.5, "file": "<b>a</b>.png", "reason": "its gradient is NaN"}
    ]
