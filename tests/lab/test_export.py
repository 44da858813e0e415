"""Lab images in a folder: they grow, and never take the place of something else."""

from __future__ import annotations

from pathlib import Path

import pytest

from attnshift.cli.lab import random_pipeline_command
from attnshift.errors import UserError
from attnshift.lab.export import export_images
from small_runs import contents


def test_a_folder_of_images_grows_and_shrinks(tmp_path: Path) -> None:
    one, two = (export_images(tmp_path / str(count), 0, "test", count).read_bytes() for count in (1, 2))
    assert two.startswith(one)
    assert export_images(tmp_path / "1", 0, "test", 2).read_bytes() == two
    grown = contents(tmp_path / "1")
    assert grown == contents(tmp_path / "2")
    assert export_images(tmp_path / "1", 0, "test", 1).read_bytes() == one
    assert contents(tmp_path / "1").keys() == grown.keys(), "images are kept"


def test_other_labels_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("file,label\nmine.png,3\n")
    with pytest.raises(UserError, match=r"labels\.csv holds other labels; choose another folder"):
        export_images(tmp_path, 0, "test", 1)
    assert [path.name for path in tmp_path.iterdir()] == ["labels.csv"]


def test_a_random_pipeline_takes_no_others_place(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text("{}")
    with pytest.raises(UserError, match="exists and is not an empty folder; choose another one"):
        random_pipeline_command(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["model_index.json"]
