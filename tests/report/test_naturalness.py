"""What the tables say that older versions did not write, or that could not be measured."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from attnshift.metrics import METRICS
from attnshift.metrics.statistics import Estimate
from attnshift.report.naturalness import naturalness, read_sets, sets_of, short, unavailable
from attnshift.report.outdated import outdated
from attnshift.report.page import write_report
from attnshift.report.run_tables import run_data
from attnshift.report.summary import summarise_run
from attnshift.results.rows import QualityRow, ResultRow, SetRow, UnavailableRow, VisibilityRow, images_digest
from report.made_up import made_up_run, quality, results, verdicts
from report.seen import Seen
from tables import summarise, typed, write_records

OLD = {"ssim", "psnr", "l2", "linf"}


def row(metric: str, arm: str, value: float | None, reason: str = "", low: float = 0.5) -> dict[str, Any]:
    figures = {"value": value, "low": low, "high": 2.0, "reason": reason}
    return {"metric": metric, "arm": arm, "features": "lab:resnet", "usual": False, "images": 200} | figures


def test_a_run_that_was_judged_before_there_were_these_metrics(tmp_path: Path) -> None:
    store = made_up_run(tmp_path / "run")
    assert set(summarise(results(), verdicts(), quality()).quality["attack"]) == OLD
    missing = unavailable(store.table(QualityRow), store.table(UnavailableRow))
    assert missing.keys() == METRICS.keys() - OLD
    page = Seen(write_report(store).read_text(encoding="utf-8")).text
    for name in missing:
        assert f"{name} : unavailable: not measured when this run was judged; `attnshift evaluate` measures it" in page


def test_columns_of_nothing_are_as_good_as_none(tmp_path: Path) -> None:
    rows = [each | {"lpips-alex": None, "dists": None} for each in quality()]
    assert set(summarise(results(), verdicts(), rows).quality["attack"]) == OLD
    reasons = unavailable(typed(QualityRow, rows), [UnavailableRow("lpips-alex", "needs this")])
    assert reasons["lpips-alex"] == "needs this"
    assert reasons["dists"].startswith("not measured")
    store = made_up_run(tmp_path / "run")
    write_records(store, "quality", rows)
    assert "lpips-alex : unavailable" in Seen(write_report(store).read_text(encoding="utf-8")).text


def test_a_metric_that_was_measured_on_some_images_is_their_mean() -> None:
    rows = [each | {"lpips-alex": 0.5 if each["id"] == "a" else None} for each in quality()]
    figures = summarise(results(), verdicts(), rows).quality["attack"]["lpips-alex"]
    assert (figures.value, figures.count) == (0.5, 1)
    assert "lpips-alex" not in unavailable(typed(QualityRow, rows), [])


def test_a_run_that_is_not_judged_lacks_nothing(tmp_path: Path) -> None:
    assert unavailable([], []) == {}
    store = made_up_run(tmp_path / "run", judged=False)
    assert naturalness(store) == []
    assert "unavailable" not in write_report(store).read_text(encoding="utf-8")


def test_sets_are_read_by_metric_in_the_order_of_the_arms() -> None:
    rows = [row("kid", "attack", 1.0), row("fid", "attack", None, "needs more"), row("kid", "round_trip", 0.25)]
    kid, fid = read_sets(typed(SetRow, rows))
    assert (kid.metric, kid.images, kid.reason, kid.features) == ("kid", 200, "", "lab:resnet")
    assert list(kid.arms) == ["round_trip", "attack"]
    assert kid.arms["attack"] == Estimate(1.0, 0.5, 2.0, 200)
    assert (fid.arms, fid.reason) == ({}, "needs more")


def test_sets_on_the_page_and_on_the_screen(tmp_path: Path) -> None:
    store = made_up_run(tmp_path / "run")
    rows = [row("kid", arm, 1.0) for arm in ("round_trip", "reconstruction", "attack")]
    rows += [row("fid", "attack", 12.4, low=math.nan), row("cmmd", "attack", None, "needs <i>more</i>")]
    write_records(store, "sets", rows)
    html = write_report(store).read_text(encoding="utf-8")
    page = Seen(html).text
    one = "1.00 [0.50, 2.00]"
    assert f"kid lab:resnet 200 {one} {one} – {one} fid lab:resnet 200 – – – 12.4" in page
    assert "cmmd : unavailable: needs <i>more</i>" in page
    assert "needs <i>" not in html
    lines = naturalness(store)
    assert "cmmd: unavailable: needs <i>more</i>" in lines
    assert lines[-1] == (
        "fid to the clean set, 200 images, features of lab:resnet: attack 12.4; "
        "comparable with nothing but figures on the same features"
    )


def test_features_as_published_compare_with_others(tmp_path: Path) -> None:
    store = made_up_run(tmp_path / "run")
    write_records(store, "sets", [row("kid", "attack", 1.0) | {"usual": True, "features": "Inception-v3"}])
    (line,) = (line for line in naturalness(store) if line.startswith("kid"))
    assert line == "kid to the clean set, 200 images, features of Inception-v3: attack 1.00 [0.50, 2.00]"
    assert "comparable" not in write_report(store).read_text(encoding="utf-8")


def test_tables_of_an_earlier_list_of_images_are_said_and_not_counted(tmp_path: Path) -> None:
    store = made_up_run(tmp_path / "run")
    ids = [each.id for each in store.table(ResultRow)]
    seen = [VisibilityRow(id, "attack", {"object_ssim": 0.5}) for id in ids]
    measured = SetRow("kid", "attack", "lab:resnet", False, len(ids), 1.0, 0.5, 2.0, "", images_digest(ids[::-1]))
    store.write_table(VisibilityRow, seen)
    store.write_table(SetRow, [measured])
    assert outdated(store) == []
    assert sets_of(store)
    assert summarise_run(store).visibility["attack"]["object_ssim"].value == 0.5
    store.write_table(VisibilityRow, seen[1:])
    store.write_table(SetRow, [replace(measured, digest=images_digest([*ids[1:], "other"]))])
    of_visibility, of_sets = outdated(store)
    assert of_visibility.startswith(f"visibility.parquet lacks 1 of {len(ids)} images, and no figure counts it; ")
    assert of_sets.startswith("sets.parquet is of an earlier list of images, and no figure counts it; ")
    assert (sets_of(store), summarise_run(store).visibility) == ((), {})
    data, page = run_data(store), write_report(store).read_text(encoding="utf-8")
    assert (data["sets"], data["visibility"], data["outdated"]) == ([], {}, [of_visibility, of_sets])
    assert "sets.parquet is of an earlier list of images" in page


def test_three_digits_of_the_largest_number() -> None:
    assert short(Estimate(0.013219, 0.0101234, 0.0163, 5)) == "0.0132 [0.0101, 0.0163]"
    assert short(Estimate(0.00001, -0.3, 0.25, 5)) == "0.000 [-0.300, 0.250]"
    assert short(Estimate(1234.5, 1100.4, 1400.4, 5)) == "1234 [1100, 1400]"
    assert short(Estimate(12.44, math.nan, math.nan, 5)) == "12.4"
    assert short(Estimate(0.0, 0.0, 0.0, 5)) == "0 [0, 0]"
