"""What all tests share: one thread, and small networks with random weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from attnshift.classifiers import load_classifier
from attnshift.classifiers.classifier import Classifier
from attnshift.diffusion.stable_diffusion import StableDiffusion
from attnshift.results.store import Store
from pipelines import tiny_pipeline
from small_runs import run_small, small_settings, write_photos

# Small convolutions on a shared machine are far slower with two threads than with one.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def pipeline_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline folder on disk for 64 px images, f = 8: grids 8, 4 and 2."""
    folder = tmp_path_factory.mktemp("pipeline")
    tiny_pipeline(size=64).save_pretrained(folder, safe_serialization=True)
    return folder


@pytest.fixture(scope="session")
def backbone() -> StableDiffusion:
    """The same pipeline as a backbone."""
    return StableDiffusion(tiny_pipeline(size=64), "tiny")


@pytest.fixture(scope="session")
def classifiers() -> list[Classifier]:
    """Three untrained classifiers of different families, with 1000 classes."""
    return [load_classifier(f"random:{name}") for name in ("test_resnet", "test_convnext", "test_efficientnet")]


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
