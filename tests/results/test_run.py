"""A run read from Python: typed rows, maps, losses and data frames, without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy
import pytest

import attnshift
from attnshift.errors import RunError, UserError
from attnshift.results.arms import ARMS
from attnshift.results.rows import ROW_TYPES, FailedRow
from attnshift.results.run import Run, open_run
from report.made_up import FIRST, IDS, fail, made_up_run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return open_run(made_up_run(tmp_path / "run").folder)


def test_a_run_is_opened_from_the_package(run: Run) -> None:
    again = attnshift.open_run(str(run.folder))
    assert (again.spec, again.recipe.name) == (run.spec, "fast")


def test_tables_are_typed_rows(run: Run) -> None:
    assert [row.id for row in run.results] == list(IDS)
    assert run.results is run.results, "read once"
    assert len(run.verdicts) == 4 * len(ARMS) * len(IDS)
    assert {row.role for row in run.verdicts if row.classifier == FIRST} == {"judge"}
    assert run.quality[-1].values == {"ssim": pytest.approx(0.94), "psnr": 32.0, "l2": 2.0, "linf": 0.25}
    assert run.failed == run.sets == run.visibility == run.unavailable == []


def test_failed_images(run: Run) -> None:
    fail(run.store, "b")
    assert open_run(run.folder).failed == [FailedRow("b", "b.png", 1, "its gradient is NaN")]


def test_attention_is_two_maps_row_by_row(run: Run) -> None:
    clean, attacked = run.attention("a")
    assert clean.shape == attacked.shape == (4, 4)
    assert clean[1, 1] == 1.0
    assert clean.sum() == 1.0
    assert (attacked == 0.25).all()


def test_losses_are_values_by_iteration(run: Run) -> None:
    losses = run.losses("a")
    assert list(losses) == ["classification"]
    numpy.testing.assert_array_equal(losses["classification"], [1.0, 0.5])


def test_image_paths_by_arm(run: Run) -> None:
    paths = run.image_paths("a")
    assert list(paths) == list(ARMS)
    assert all(path.is_file() for path in paths.values())


def test_an_image_that_is_not_finished_is_one_line(run: Run) -> None:
    for ask in (run.attention, run.losses, run.image_paths):
        with pytest.raises(RunError, match="has no finished image x; take an id of its table results"):
            ask("x")


def test_a_data_frame_has_the_columns_of_the_table(run: Run) -> None:
    frame = run.to_pandas()
    assert list(frame["id"]) == list(IDS)
    assert {"attack_margins", "losses", "seconds"} <= set(frame.columns)
    assert list(run.to_pandas("quality").columns) == ["id", "arm", "ssim", "psnr", "l2", "linf"]


@pytest.mark.parametrize("table", ["failed", "sets"])
def test_a_data_frame_of_a_table_that_was_not_written_is_empty(run: Run, table: str) -> None:
    frame = run.to_pandas(table)
    assert len(frame) == 0
    assert list(frame.columns) == ROW_TYPES[table].schema().names


def test_a_table_that_does_not_exist_is_one_line(run: Run) -> None:
    with pytest.raises(UserError, match="`table` is verdict; did you mean 'verdicts'\\?; known: results, "):
        run.to_pandas("verdict")


def test_without_pandas_the_extra_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UserError, match=r"pip install 'attnshift\[pandas\]'"):
        run.to_pandas()


def test_a_folder_without_a_run_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is not a run"):
        open_run(tmp_path)


def test_a_run_of_the_former_section_peer_is_one_line(run: Run) -> None:
    path = run.folder / "run.json"
    spec = json.loads(path.read_text(encoding="utf-8"))
    spec["recipe"] = {"name": "pgd", "peer": {"attack": "pgd"}}
    path.write_text(json.dumps(spec), encoding="utf-8")
    with pytest.raises(RunError, match=r"run\.json: its recipe .*\[peer\].*make the run again") as caught:
        open_run(run.folder)
    assert len(str(caught.value).splitlines()) == 1


PROBE = """
import sys
from attnshift import open_run
from attnshift.results import arms, format, ledger, locks, plan, roles, rows, run, spec, status, store
read = open_run(sys.argv[1])
read.results, read.verdicts, read.quality, read.attention("a"), status.read_status(read.folder)
print(sorted({"torch", "torchvision", "diffusers", "transformers", "pandas"} & sys.modules.keys()))
"""


def test_reading_a_run_needs_no_torch(run: Run) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROBE, str(run.folder)], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.strip() == "[]"
