"""Figures of an inspection, from rows written by hand."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy
import pytest

from attnshift.metrics.statistics import student
from attnshift.recipes.reading import load_recipe
from attnshift.report.inspection import InspectionSummary, summarise_inspection
from attnshift.report.inspection_page import inspection_tables
from attnshift.report.inspection_pictures import alignment_picture, map_picture
from attnshift.report.tables import write_tables
from attnshift.results.inspection import AlignmentRow, InspectionSpec, InspectionStore, MapRow, PictureRow
from attnshift.results.spec import RunSpec
from later import later

if TYPE_CHECKING:
    from collections.abc import Sequence

stats = later("scipy.stats")

COSINES: dict[str, Sequence[float | None]] = {
    "good": (0.2, 0.3, 0.25, 0.22),
    "bad": (-0.2, -0.1, -0.15, -0.12),
    "idle": (0.2, -0.2, 0.1, -0.11),
    "dead": (None, None, None, None),
    "partly": (0.1, None, 0.3, 0.2),
}


@pytest.fixture
def summary(tmp_path: Path) -> InspectionSummary:
    """Four images at two points of the path, the second with half of each cosine."""
    spec = RunSpec(
        images="", labels=None, items="", pipeline="lab", surrogates=("lab:resnet",), size=16, batch=1, device="cpu",
        threads=1, recipe=load_recipe("fast"),
    )  # fmt: skip
    store = InspectionStore(tmp_path)
    store.open(InspectionSpec(run=spec, tuning=("lab:mobilenet",), points=(0, 30), terms=tuple(COSINES)))
    usual: dict[str, Any] = {"place": "up", "side": 8, "head": -1, "step": -1}
    rows = [
        AlignmentRow(f"{image}", f"{image}.png", point, "term", name, cosine=_scaled(value, point), ratio=0.5, **usual)
        for name, values in COSINES.items()
        for image, value in enumerate(values)
        for point in (0, 30)
    ]
    rows.append(AlignmentRow("0", "0.png", 0, "random", "random direction", "", 0, -1, -1, 0.01))
    store.write_table(AlignmentRow, rows)
    maps = [
        MapRow(f"{image}", f"{image}.png", 0, mass=0.1, entropy=0.5, peak_inside=image > 0, share_inside=0.6, area=0.3,
               **usual)
        for image in range(4)
    ]  # fmt: skip
    store.write_table(MapRow, maps)
    shown = (
        PictureRow("0", "0.png", "mug", 0, "image", 2, (0.5,) * 12),
        PictureRow("0", "0.png", "mug", 0, "up 8 x 8", 2, (1.0, 0.0, 0.0, 0.0)),
    )
    store.write_table(PictureRow, shown)
    return summarise_inspection(store)


def _scaled(value: float | None, point: int) -> float | None:
    return value if value is None or not point else value / 2


def test_best_first_and_those_without_a_gradient_last(summary: InspectionSummary) -> None:
    assert [(line.name, line.verdict) for line in summary.lines] == [
        ("good", "aligned"), ("partly", "aligned"), ("idle", "zero"), ("bad", "against"), ("dead", "no gradient"),
    ]  # fmt: skip


def test_a_line_is_the_mean_over_the_path(summary: InspectionSummary) -> None:
    good, partly = summary.lines[:2]
    assert good.path.value == pytest.approx(0.75 * 0.2425)
    assert [each.value for each in good.points] == pytest.approx([0.2425, 0.12125])
    assert (partly.path.count, partly.dead) == (3, 0.25)
    assert partly.path.value == pytest.approx(0.75 * 0.2)
    assert good.read == "up 8 x 8"


def test_p_is_corrected_for_all_tests(summary: InspectionSummary) -> None:
    good = next(line for line in summary.lines if line.name == "good")
    assert good.p == pytest.approx(4 * stats.ttest_1samp([0.15, 0.225, 0.1875, 0.165], 0).pvalue, rel=1e-4)
    assert [line.p for line in summary.yardsticks] == [None]
    assert summary.lines[-1].p is None


def test_pointing(summary: InspectionSummary) -> None:
    (line,) = summary.maps
    assert line.peak.value == 0.75
    assert line.gain.value == pytest.approx(2.0)


def test_tables_say_what_is_zero(summary: InspectionSummary) -> None:
    table = write_tables(inspection_tables(summary), "csv")
    assert "idle,up 8 x 8,0," in table
    assert "dead,up 8 x 8,none,,," in table
    assert "good,up 8 x 8,+,0.18" in table


def test_pictures_show_terms_and_images(summary: InspectionSummary) -> None:
    pixels = alignment_picture(summary)
    assert pixels is not None
    assert pixels.shape[2] == 3
    blue = (pixels[..., 2].astype(int) - pixels[..., 0] > 60).any()
    red = (pixels[..., 0].astype(int) - pixels[..., 2] > 60).any()
    assert blue
    assert red
    maps = map_picture(summary)
    assert maps is not None
    assert maps.shape[1] == 2 * 132


@pytest.mark.parametrize("count", [2, 3, 24])
def test_student_is_scipys(count: int) -> None:
    values = numpy.random.default_rng(count).normal(0.5, 1, count)
    assert student([*values, float("nan")]) == pytest.approx(stats.ttest_1samp(values, 0).pvalue, rel=1e-5)


def test_student_without_spread() -> None:
    assert student([0.0, 0.0]) == 1.0
    assert student([0.5, 0.5]) == 0.0
