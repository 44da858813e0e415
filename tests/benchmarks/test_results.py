"""How figures are taken, kept and shown."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import table
from timing import ratio_of_medians, take_turns

import results

if TYPE_CHECKING:
    import pytest


def test_pieces_of_work_take_turns() -> None:
    done: list[str] = []
    seconds = take_turns({name: lambda name=name: done.append(name) for name in "ab"}, rounds=2)
    assert done == ["a", "b"] * 3
    assert [len(taken) for taken in seconds.values()] == [2, 2]


def test_a_ratio_is_that_of_the_seconds_beside_it() -> None:
    assert ratio_of_medians({"a": [2.0, 30.0, 8.0], "b": [1.0, 10.0, 2.0]}, "a", "b") == 4


def test_a_part_leaves_the_others_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "FOLDER", tmp_path / "results")
    assert results.read("cpu") == {}
    results.record("cpu", "lab", {"batch": {}, "bytes": {"naive": 5}}, "memory", {"threads": 1})
    results.record("cpu", "lab", {"bytes": {"naive": 4}}, "iterations", {"threads": 2})
    results.record("cpu", "mini", {"batch": {}}, "batch", {})
    results.record("cuda", "lab", {"batch": {}}, "batch", {})
    assert results.read("cpu")["lab"] == {
        "batch": {},
        "bytes": {"naive": 4},
        "measured": {"memory": {"threads": 1}, "iterations": {"threads": 2}},
    }
    assert set(results.read("cpu")) == {"lab", "mini"}
    assert set(results.read("cuda")) == {"lab"}


def test_the_pages_show_what_was_measured() -> None:
    """If not, `python benchmarks/table.py --write` mends them."""
    for page in table.PAGES:
        assert table.written(page) == page.read_text(encoding="utf-8")


def test_tables_hold_every_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = {"processor": "a processor", "device": "cpu", "cores": 2, "torch": "2", "threads": 1, "rounds": 3}
    variants = ("naive", "floor", "exact", "checkpointed", "bf16", "quick")
    seconds = {name: float(at) for at, name in enumerate(variants, 1)} | {"without_terms": 2.5, "bf16_pair": 8.0}
    images = ("naive", "exact", "fast", "quick")
    figures = {
        "seconds_iteration": seconds,
        "seconds_image": {"published": 86.0, "naive": 43.0, "exact": 21.5, "fast": 8.6, "quick": 10.0},
        "images": 8,
        "judged": {name: {"attacked": 0.25, "others": 0.125, "ssim": 0.875} for name in images},
        "profile": {"exact": {"denoising": 0.7, "bookkeeping_in_iterations": 0.021}},
        "bytes": {name: 1e6 * at for at, name in enumerate((*variants, "checkpointed_floor"), 51)}
        | {"published_image": 4e8, "exact_image": 1e8},
        "batch": {"quick": {"16": 9.25, "2": 7.5}},
        "large_images": {
            "512": {"bfloat16": {"exact": 11.14e9, "exact_without_terms": 10e9, "weights": 2e9}},
            "64": {"float32": {"checkpointed": 3e9, "checkpointed_without_terms": 2e9, "weights": 1e9}},
        },
        "measured": dict.fromkeys(("iterations", "images", "memory", "batch"), facts),
    }
    monkeypatch.setattr(table, "read", lambda device: {"lab": figures} if device == "cpu" else {})
    shown = "\n".join(map(table.markdown, table.PAGES))
    assert "| lab | 1 | 2 | 3 | 5 | 6 | **0.33** | 1.50 | 1.25 | 0.20 | 0.25 | 0.17 |" in shown
    assert "| lab | published | 86 | **0.5** |  |  |  |  |" in shown
    assert "|  | naive | 43 |  | **2.0** | 25% | 12% | 0.875 |" in shown
    assert "|  | quick | 10 | **4.3** | **8.6** | 25% | 12% | 0.875 |" in shown
    assert "| lab | 400 | 100 | **0.25** |" in shown
    assert "|  |  | denoising | bookkeeping in iterations |" in shown
    assert "| lab | exact | 70.0% | 2.1% |" in shown
    assert "| lab | 51 | 52 | 53 | 57 | 54 | 55 | 56 | **1.02** | **0.95** | **1.04** | **1.06** |" in shown
    assert "|  | preset | 2 | 16 |\n|---|---|---|---|\n| lab | `quick` | 7.50 | 9.25 |" in shown
    large = [
        "| lab | 64 | float32 | checkpointed | 3.0 | 2.0 | 1.50 | 1.0 |",
        "| lab | 512 | bfloat16 | exact | 11.1 | 10.0 | 1.11 | 2.0 |",
    ]
    assert "\n".join(large) in shown
    assert "a processor, 2 cores, torch 2. lab: threads 1, rounds 3" in shown
    assert "GPU" not in shown
