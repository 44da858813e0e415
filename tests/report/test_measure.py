"""What a comparison says of runs that are written by hand."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pytest

from attnshift.errors import RunError
from attnshift.report.curve_page import write_comparison
from attnshift.report.curves import ComparisonFailure, measure_comparison
from report.made_up import FIRST, SECOND, fail, made_up_run, quality, results
from report.seen import Seen
from tables import records, write_records

if TYPE_CHECKING:
    from attnshift.results.store import Store

JUDGES = (FIRST, SECOND)


def run(folder: Path, ssim: float, spared: bool = False) -> Store:
    """The made-up run with one SSIM for all images; ``spared``: a fools none of its judges."""
    store = made_up_run(folder)
    write_records(store, "quality", [row | ({"ssim": ssim} if row["arm"] == "attack" else {}) for row in quality()])
    if spared:
        verdicts = [
            row | ({"correct": True, "success": False} if (row["id"], row["arm"]) == ("a", "attack") else {})
            for row in records(store, "verdicts")
        ]
        write_records(store, "verdicts", verdicts)
    return store


def test_points_and_readings(tmp_path: Path) -> None:
    """Attributable success is 1/4 where a fools one of its two judges, and 0 where it is spared: b counts 0, c not."""
    runs = {
        "one": {1.0: run(tmp_path / "one", 0.96, spared=True), 2.0: run(tmp_path / "one 2", 0.86)},
        "two": {1.0: run(tmp_path / "two", 0.9)},
    }
    comparison = measure_comparison(runs, JUDGES, [0.9, 0.95])
    one, two = comparison.lines
    assert [(point.strength, point.success.value, point.ssim.value) for point in one.points] == [
        (1.0, 0.0, pytest.approx(0.96)),
        (2.0, 0.25, pytest.approx(0.86)),
    ]
    assert (one.points[0].success.count, one.points[0].seconds.value, one.points[0].psnr.value) == (2, 2.0, 31.0)
    at_90, at_95 = one.readings
    assert at_90.success is not None
    assert at_90.success.value == pytest.approx(0.25 * 0.6)
    assert at_95.success is not None
    assert at_95.success.value == pytest.approx(0.25 * 0.1)
    assert two.readings[0].gap is not None
    assert two.readings[0].gap.value == pytest.approx(0.25 * 0.4)
    assert two.readings[1].reason == "stays below"
    assert (comparison.images, comparison.judges, comparison.at, comparison.aim) == (3, JUDGES, (0.9, 0.95), "")


def test_images_are_shown_at_the_nearest_ssim_and_are_there(tmp_path: Path) -> None:
    """Of the first line the strength 2 lies nearest to the SSIM of 0.9."""
    runs = {
        "one": {1.0: run(tmp_path / "one", 0.96), 2.0: run(tmp_path / "one 2", 0.88)},
        "<b>two</b>": {1.0: run(tmp_path / "two", 0.9, spared=True)},
    }
    comparison = measure_comparison(runs, JUDGES, [0.9])
    first, *_, last = comparison.shown
    assert (first.file, first.name, last.file) == ("a.png", "mug", "c.png")
    one, two = first.changed.values()
    assert (one.fooled, one.known, one.seen, one.ssim) == (1, 2, "donut", 0.88)
    assert (two.fooled, two.known, two.seen) == (0, 2, "")
    assert last.changed["one"].known == 0
    html = write_comparison(tmp_path, comparison).read_text(encoding="utf-8")
    assert "<b>two" not in html
    seen = Seen(html)
    sources = [value for tag, name, value in seen.attributes if (tag, name) == ("img", "src")]
    assert sources[:3] == ["one%202/images/a.clean.png", "one%202/images/a.attack.png", "two/images/a.attack.png"]
    assert len(sources) == 3 * 3
    assert all((tmp_path / unquote(each)).is_file() for each in sources)
    assert "one at 2 <b>two</b> at 1 mug a.png 1 of 2 fooled, donut SSIM 0.880 0 of 2 fooled" in seen.text


def test_only_the_judges_that_are_asked_for_count(tmp_path: Path) -> None:
    runs = {"one": {1.0: run(tmp_path / "one", 0.9)}}
    (line,) = measure_comparison(runs, [FIRST], [0.9]).lines
    assert line.points[0].success.value == 0.5, "a and not b, which the reconstruction lost; SECOND is not asked"
    assert line.readings[0].success is not None
    assert line.readings[0].success.value == 0.5


def test_who_has_not_judged_is_missed(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not judged by all of"):
        measure_comparison({"one": {1.0: run(tmp_path / "one", 0.9)}}, [FIRST, "lab:third"], [0.9])


def test_other_images_cannot_be_paired(tmp_path: Path) -> None:
    one, other = run(tmp_path / "one", 0.9), run(tmp_path / "other", 0.9)
    write_records(other, "results", [row | {"file": "other.png"} for row in results()])
    with pytest.raises(RunError, match="no image was attacked by all of"):
        measure_comparison({"one": {1.0: one}, "other": {1.0: other}}, JUDGES, [0.9])


def test_an_image_that_failed_in_one_run_is_in_no_figure_of_any(tmp_path: Path) -> None:
    """Without a and c only b is left, which the reconstruction lost already: 0 in both."""
    runs = {name: {1.0: run(tmp_path / name, 0.9)} for name in ("one", "two", "three")}
    whole = measure_comparison(runs, JUDGES, [0.9])
    assert (whole.images, whole.planned, whole.missing, whole.failures) == (3, 3, "", ())
    for name, lost in (("one", "a"), ("three", "c")):
        fail(runs[name][1.0], lost)
    comparison = measure_comparison(runs, JUDGES, [0.9])
    assert (comparison.images, comparison.planned) == (1, 3)
    assert comparison.missing == "2 of 3 images failed in at least one run and are in no figure"
    assert comparison.failures == (
        ComparisonFailure("one", 1.0, "a.png", "its gradient is NaN"),
        ComparisonFailure("three", 1.0, "c.png", "its gradient is NaN"),
    )
    assert [line.points[0].success.count for line in comparison.lines] == [1, 1, 1]
    assert [line.points[0].success.value for line in comparison.lines] == [0.0, 0.0, 0.0]


def test_runs_without_an_image_in_common_are_refused(tmp_path: Path) -> None:
    one, two = run(tmp_path / "one", 0.9), run(tmp_path / "two", 0.9)
    fail(one, "a", "b")
    fail(two, "c")
    with pytest.raises(RunError, match="no image was attacked by all of"):
        measure_comparison({"one": {1.0: one}, "two": {1.0: two}}, JUDGES, [0.9])


def test_images_are_paired_by_place_and_not_by_name(tmp_path: Path) -> None:
    """A recipe that is given masks has other ids for the same images."""
    one, other = run(tmp_path / "one", 0.9), run(tmp_path / "other", 0.9)
    for name in ("results", "verdicts", "quality"):
        write_records(other, name, [row | {"id": f"{row['id']}+mask"} for row in records(other, name)])
    first, second = measure_comparison({"one": {1.0: one}, "other": {1.0: other}}, JUDGES, [0.9]).lines
    assert second.readings[0].success == first.readings[0].success
    assert second.readings[0].gap is not None
    assert second.readings[0].gap.value == 0.0
