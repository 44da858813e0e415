"""One finished run for all that only read it."""

from __future__ import annotations

from pathlib import Path

import pytest

from attnshift.runs.store import Store
from runs.small_runs import run_small, small_settings, write_photos


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images/ and labels.csv."""
    folder = tmp_path_factory.mktemp("photos")
    write_photos(folder)
    return folder


@pytest.fixture(scope="session")
def finished(photos: Path, pipeline_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """An undisturbed run, in batches of two. Not to be written to."""
    return run_small(small_settings(photos, pipeline_folder, tmp_path_factory.mktemp("finished") / "run"))


@pytest.fixture(scope="session")
def finished_singly(photos: Path, pipeline_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The same in batches of one."""
    return run_small(small_settings(photos, pipeline_folder, tmp_path_factory.mktemp("singly") / "run", batch=1))
