"""A run folder as files: whole or not at all, and clear about what it is not."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from attnshift.errors import RunError
from attnshift.files import atomic_write
from attnshift.recipes.reading import load_recipe
from attnshift.results.plan import Plan, read_plan
from attnshift.results.rows import ResultRow
from attnshift.results.spec import FORMAT, RunSpec
from attnshift.results.store import Store
from small_runs import planned
from tables import records

if TYPE_CHECKING:
    from attnshift.data.datasets import Item


@cache
def plan() -> Plan:
    return planned("b", "a")


@pytest.fixture
def spec() -> RunSpec:
    return RunSpec(
        images="images",
        labels="labels.csv",
        items=plan().digest,
        pipeline="lab",
        surrogates=("random:test_resnet",),
        size=64,
        batch=2,
        device="cpu",
        threads=1,
        recipe=load_recipe("quick"),
    )


def row(id: str, **others: Any) -> ResultRow:
    return ResultRow(id, f"{id}.png", 0, "mug", **others)


def test_a_started_run_can_be_opened(tmp_path: Path, spec: RunSpec) -> None:
    Store.start(tmp_path / "deep" / "run", spec, plan())
    assert Store.open(tmp_path / "deep" / "run").spec() == spec
    assert Store.start(tmp_path / "deep" / "run", spec, plan()).spec() == spec


@pytest.mark.parametrize("kind", ["missing", "file", "empty folder"])
def test_what_is_not_a_run_is_not_opened(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "run"
    if kind == "file":
        path.write_text("x")
    if kind == "empty folder":
        path.mkdir()
    with pytest.raises(RunError, match="is not a run"):
        Store.open(path)


@pytest.mark.parametrize("place", ["a file", "below a file", "below a device"])
def test_places_where_no_run_can_be(tmp_path: Path, spec: RunSpec, place: str) -> None:
    (tmp_path / "file").write_text("precious")
    out = {
        "a file": tmp_path / "file",
        "below a file": tmp_path / "file" / "run",
        "below a device": Path("/dev/null/x"),
    }
    with pytest.raises(RunError, match="choose another `out`"):
        Store.start(out[place], spec, plan())
    assert (tmp_path / "file").read_text() == "precious"


@pytest.mark.parametrize("damage", ["cut", "unknown key", "binary"])
def test_a_damaged_run_file_is_one_line(tmp_path: Path, spec: RunSpec, damage: str) -> None:
    store = Store.start(tmp_path / "run", spec, plan())
    path = store.folder / "run.json"
    values = json.loads(path.read_text())
    damaged = {
        "cut": path.read_bytes()[:50],
        "unknown key": json.dumps(values | {"colour": 1}).encode(),
        "binary": b"\xff\xfe",
    }
    path.write_bytes(damaged[damage])
    with pytest.raises(RunError) as caught:
        store.spec()
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_run_of_another_format_is_one_line(tmp_path: Path, spec: RunSpec) -> None:
    store = Store.start(tmp_path / "run", spec, plan())
    path = store.folder / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": FORMAT - 1}))
    for use in (lambda: Store.open(store.folder), lambda: Store.start(store.folder, spec, plan())):
        with pytest.raises(RunError, match=f"run.json: format: .*reads format {FORMAT}; make the run again") as caught:
            use()
        assert len(str(caught.value).splitlines()) == 1


def test_differences_are_shown_by_key(spec: RunSpec) -> None:
    other = spec.model_copy(update={"batch": 3, "recipe": load_recipe("quick", ["terms.variance.weight=1.0"])})
    assert other.differences(spec) == ["batch: 3, not 2", "recipe.terms.variance.weight: 1.0, not 30.0"]
    assert spec.differences(spec) == []


def test_half_written_items_do_not_count(tmp_path: Path, spec: RunSpec) -> None:
    store = Store.start(tmp_path / "run", spec, plan())
    store.finish(row("a"), {"attack": b"png"})
    (store.folder / "items" / ".b.json.1-abcdef.partial").write_text('{"id": ')
    assert (store.is_finished("a"), store.is_finished("b"), store.count()) == (True, False, 1)
    assert store.image_path("a", "attack").read_bytes() == b"png"
    assert store.compact({}) == 1
    assert store.table(ResultRow) == [row("a")]


def test_rows_are_in_the_order_of_the_plan(tmp_path: Path, spec: RunSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a table is made of several parts, and where a part alone holds nothing but nulls of a column."""
    monkeypatch.setattr("attnshift.results.row_files._ROWS", 2)
    store = Store.start(tmp_path / "run", spec, planned("c", "a", "b", "d", "e"))
    for name, value in (("b", 1.5), ("c", None), ("a", None)):
        store.finish(row(name, effective_models=value), {})
    assert store.compact({"d": "cut off", "b": "an earlier try"}) == 3
    found = [(each["id"], each["effective_models"]) for each in records(store, "results")]
    assert found == [("c", None), ("a", None), ("b", 1.5)]
    assert records(store, "failed") == [{"id": "d", "file": "d.png", "label": 0, "reason": "cut off"}]
    store.finish(row("d"), {})
    assert store.compact({}) == 4
    assert not (store.folder / "failed.parquet").exists()


def test_what_is_finished_while_a_table_is_written_waits_for_the_next(
    tmp_path: Path, spec: RunSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process may finish an item at any moment."""
    store = Store.start(tmp_path / "run", spec, plan())
    store.finish(row("a"), {})
    read: list[Path] = []

    def reading(path: Path) -> Iterator[Item]:
        read.append(path)
        if len(read) > 1:
            store.finish(row("b", losses={"x": (1.0,)}), {})
        return read_plan(path)

    monkeypatch.setattr("attnshift.results.store.read_plan", reading)
    assert store.compact({"b": "of an earlier try"}) == 1
    assert store.table(ResultRow) == [row("a")]
    assert store.compact({"b": "of an earlier try"}) == 2
    assert [row["id"] for row in records(store, "results")] == ["b", "a"]
    assert records(store, "failed") == []


def test_a_run_of_which_nothing_is_finished_has_no_table(tmp_path: Path, spec: RunSpec) -> None:
    store = Store.start(tmp_path / "run", spec, plan())
    assert store.compact({"a": "cut off"}) == 0
    assert not (store.folder / "results.parquet").exists()
    assert [row["id"] for row in records(store, "failed")] == ["a"]


def test_only_what_is_half_written_is_swept_away(tmp_path: Path, spec: RunSpec) -> None:
    store = Store.start(tmp_path / "run", spec, plan())
    store.finish(row("a"), {"attack": b"png"})
    before = set(store.folder.rglob("*"))
    for part in (".", "images", "items"):
        (store.folder / part / ".x.json.1-abcdef.partial").write_text("{")
    store.sweep()
    assert set(store.folder.rglob("*")) == before


def test_a_failed_write_keeps_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.json"
    atomic_write(path, b"old")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(RunError, match=r"cannot write to .*x.json: disk full"):
        atomic_write(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_table_that_was_not_written_is_empty(tmp_path: Path, spec: RunSpec) -> None:
    assert records(Store.start(tmp_path / "run", spec, plan()), "verdicts") == []
