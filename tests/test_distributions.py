"""The sdist and the wheel: small enough, whole, and enough without a checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from attnshift import __version__

ROOT = Path(__file__).parent.parent
LARGEST = 35_000_000
"""Bytes of a wheel: what installs anywhere within seconds."""
PART = (
    "tests/test_documents.py",
    "tests/test_site.py",
    "tests/test_notebooks.py",
    "tests/test_registry.py",
    "tests/recipes",
)
"""Tests that read what stands beside the package, and some that attack nothing."""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that is built from it."""
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("dist")
    make = [sys.executable, "-m", "hatchling", "build", "--directory", str(folder), "--target"]
    subprocess.run([*make, "sdist"], cwd=ROOT, check=True, capture_output=True)
    with tarfile.open(folder / f"attnshift-{__version__}.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    subprocess.run([*make, "wheel"], cwd=folder / f"attnshift-{__version__}", check=True, capture_output=True)
    return folder


@pytest.mark.heavy
def test_the_wheel_is_small_and_leads_to_the_demo(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    assert wheel.stat().st_size < LARGEST
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "installed")}
    demo = [sys.executable, "-m", "attnshift", "demo", "--images", "2", "--preset", "fast"]
    said = subprocess.run(demo, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True).stdout
    assert "runs/demo/report.html" in said
    assert (tmp_path / "runs" / "demo" / "report.html").stat().st_size > 10_000


@pytest.mark.heavy
def test_the_sdist_passes_its_tests(built: Path) -> None:
    folder = built / f"attnshift-{__version__}"
    environment = os.environ | {"PYTHONPATH": str(folder / "src")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-m", "not heavy", *PART], cwd=folder, env=environment, capture_output=True
    )
    assert done.returncode == 0, done.stdout.decode()[-2000:]
