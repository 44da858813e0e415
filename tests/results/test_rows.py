"""Typed rows: what goes into a table comes out of it, and tables of earlier versions are read."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from attnshift.errors import RunError
from attnshift.results.format import format_page
from attnshift.results.rows import (
    ROW_TYPES,
    FailedRow,
    GradCamRow,
    QualityRow,
    ResultRow,
    Row,
    SetRow,
    UnavailableRow,
    VerdictRow,
    VisibilityRow,
    columns_of,
)
from attnshift.results.store import Store

PAGE = Path(__file__).parents[2] / "docs" / "results-format.md"
LATENTS = ResultRow(
    id="a",
    file="a.png",
    label=1,
    class_name="mug",
    target=2,
    target_name="ball",
    key="k",
    run="r",
    surrogates=("lab:resnet", "lab:nfnet"),
    seconds=1.5,
    batch=2,
    iteration=3,
    evaluated=5,
    losses={"classification": (1.0, 0.5), "variance": (0.25, 0.125)},
    shares={"lab:resnet": (0.5, 0.25), "lab:nfnet": (0.5, 0.75)},
    effective_models=1.75,
    attention_clean=(0.0, 0.5, 0.25, 0.25),
    attention_attack=(0.25, 0.25, 0.25, 0.25),
    attention_side=2,
    interference="cup",
    margins={"clean": (0.5, 1.5), "attack": (-0.5, 0.25)},
)
PIXELS = ResultRow("b", "b.png", 1, "mug", margins={"clean": (0.5,), "attack": (-0.5,)})
ROWS: dict[str, list[Row]] = {
    "results": [LATENTS, PIXELS],
    "failed": [FailedRow("c", "c.png", 1, "it cannot be read")],
    "verdicts": [
        VerdictRow("a", "attack", "lab:resnet", "surrogate", 2, "ball", False, True, 0.25, 0.5),
        VerdictRow("b", "attack", "lab:resnet", "surrogate", 2, "ball", False, None, 0.25, 0.5),
    ],
    "quality": [QualityRow("a", "attack", {"ssim": 0.9, "psnr": math.inf}), QualityRow("b", "noise", {"ssim": 0.5})],
    "unavailable": [UnavailableRow("lpips-alex", "needs weights")],
    "visibility": [VisibilityRow("a", "attack", {"object_ssim": 0.5})],
    "sets": [
        SetRow("kid", "attack", "lab:resnet", False, 200, 1.0, 0.5, 2.0, ""),
        SetRow("fid", "attack", "lab:resnet", False, 200, None, None, None, "needs more images"),
    ],
    "grad_cam": [GradCamRow("a", "attack", "lab:resnet", 2, (0.0, 1.0, 0.5, 0.25))],
}


def test_every_table_has_an_example_here() -> None:
    assert ROWS.keys() == ROW_TYPES.keys()
    assert all(type(row) is ROW_TYPES[name] for name, rows in ROWS.items() for row in rows)


@pytest.mark.parametrize("name", ROW_TYPES)
def test_rows_go_into_a_file_and_come_back(tmp_path: Path, name: str) -> None:
    store = Store(tmp_path)
    store.write_table(ROW_TYPES[name], ROWS[name])
    assert store.table(ROW_TYPES[name]) == ROWS[name]


@pytest.mark.parametrize("name", ROW_TYPES)
def test_a_table_has_the_types_of_its_fields_also_where_it_holds_no_value(tmp_path: Path, name: str) -> None:
    store = Store(tmp_path)
    store.write_table(ROW_TYPES[name], [])
    assert store.table(ROW_TYPES[name]) == []
    kept = pyarrow.parquet.read_schema(store.table_path(ROW_TYPES[name]))
    expected = [(column.name, column.kind) for column in columns_of(ROW_TYPES[name]) if column.wide is None]
    assert [(each.name, each.type) for each in kept] == expected


def test_an_attack_on_pixels_leaves_the_defaults(tmp_path: Path) -> None:
    """They take the types that values of an attack on latents have."""
    store = Store(tmp_path)
    store.write_table(ResultRow, [PIXELS])
    alone = pyarrow.parquet.read_schema(store.table_path(ResultRow))
    store.write_table(ResultRow, [LATENTS, PIXELS])
    assert pyarrow.parquet.read_schema(store.table_path(ResultRow)) == alone


def test_a_column_of_nothing_is_no_value(tmp_path: Path) -> None:
    """As earlier versions wrote it, in types that they took from the values."""
    record = QualityRow("a", "attack", {"ssim": 0.5}).to_record() | {"lpips-alex": None}
    store = Store(tmp_path)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([record]), store.table_path(QualityRow))
    assert store.table(QualityRow) == [QualityRow("a", "attack", {"ssim": 0.5})]


def test_a_column_that_an_earlier_version_did_not_write_has_its_default(tmp_path: Path) -> None:
    record = LATENTS.to_record()
    del record["key"], record["effective_models"]
    store = Store(tmp_path)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([record]), store.table_path(ResultRow))
    assert store.table(ResultRow) == [replace(LATENTS, key="", effective_models=None)]


def test_a_column_without_a_default_must_be_there(tmp_path: Path) -> None:
    record = LATENTS.to_record()
    del record["label"]
    store = Store(tmp_path)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([record]), store.table_path(ResultRow))
    with pytest.raises(RunError, match=r"results\.parquet: there is no column label; make the run again") as caught:
        store.table(ResultRow)
    assert len(str(caught.value).splitlines()) == 1


def test_a_damaged_table_is_one_line(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.table_path(ResultRow).write_bytes(b"PAR1 and no more")
    with pytest.raises(RunError, match=r"results\.parquet is no parquet file") as caught:
        store.table(ResultRow)
    assert len(str(caught.value).splitlines()) == 1


def test_the_page_on_the_format_is_the_one_that_the_rows_make() -> None:
    renew = "run: python -m attnshift.results.format > docs/results-format.md"
    assert PAGE.read_text(encoding="utf-8") == format_page(), renew


def test_every_column_is_on_the_page() -> None:
    page = format_page()
    for kind in ROW_TYPES.values():
        for column in columns_of(kind):
            assert f"`{column.name}`" in page
            assert column.about in page
