"""A run folder as files: whole or not at all, and clear about what it is not."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from attnshift.attack.recipe import load_recipe
from attnshift.errors import RunError
from attnshift.runs.spec import FORMAT, RunSpec
from attnshift.runs.store import Store, atomic_write


@pytest.fixture
def spec() -> RunSpec:
    return RunSpec(
        images="images",
        labels="labels.csv",
        items="0" * 16,
        pipeline="lab",
        surrogates=("random:test_resnet",),
        size=64,
        batch=2,
        device="cpu",
        threads=1,
        recipe=load_recipe("fast"),
    )


def test_a_started_run_can_be_opened(tmp_path: Path, spec: RunSpec) -> None:
    Store.start(tmp_path / "deep" / "run", spec)
    assert Store.open(tmp_path / "deep" / "run").spec() == spec
    assert Store.start(tmp_path / "deep" / "run", spec).spec() == spec


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
    with pytest.raises(RunError, match="choose another --out"):
        Store.start(out[place], spec)
    assert (tmp_path / "file").read_text() == "precious"


@pytest.mark.parametrize("damage", ["cut", "unknown key", "binary"])
def test_a_damaged_run_file_is_one_line(tmp_path: Path, spec: RunSpec, damage: str) -> None:
    store = Store.start(tmp_path / "run", spec)
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
    store = Store.start(tmp_path / "run", spec)
    path = store.folder / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": FORMAT - 1}))
    for use in (lambda: Store.open(store.folder), lambda: Store.start(store.folder, spec)):
        with pytest.raises(RunError, match=f"run.json: format: .*reads format {FORMAT}; make the run anew") as caught:
            use()
        assert len(str(caught.value).splitlines()) == 1


def test_differences_are_shown_by_key(spec: RunSpec) -> None:
    other = spec.model_copy(update={"batch": 3, "recipe": load_recipe("fast", ["terms.variance.weight=1.0"])})
    assert other.differences(spec) == ["batch: 3, not 2", "recipe.terms.variance.weight: 1.0, not 30.0"]
    assert spec.differences(spec) == []


def test_half_written_items_do_not_count(tmp_path: Path, spec: RunSpec) -> None:
    store = Store.start(tmp_path / "run", spec)
    store.finish("a", {"id": "a", "n": 1})
    (store.folder / "items" / ".b.json.partial").write_text('{"id": ')
    assert store.finished() == {"a"}
    assert store.compact(["b", "a"]) == 1
    assert store.table("results") == [{"id": "a", "n": 1}]


def test_rows_are_in_the_order_of_the_plan(tmp_path: Path, spec: RunSpec) -> None:
    store = Store.start(tmp_path / "run", spec)
    for name in ("b", "c", "a"):
        store.finish(name, {"id": name})
    assert store.compact(["c", "a", "b"]) == 3
    assert [row["id"] for row in store.table("results")] == ["c", "a", "b"]


def test_a_failed_write_keeps_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.json"
    atomic_write(path, b"old")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        atomic_write(path, b"new")
    assert path.read_bytes() == b"old"


def test_a_table_that_was_not_written_is_empty(tmp_path: Path, spec: RunSpec) -> None:
    assert Store.start(tmp_path / "run", spec).table("verdicts") == []
