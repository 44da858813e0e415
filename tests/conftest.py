"""What all tests share: one thread, small networks with random weights, and the budget of a fast test."""

from __future__ import annotations

# First: with SHAPES=1 it checks the shapes of modules that are imported after it.
import shapes  # noqa: F401

# isort: split
import gc
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

# Until the tests are collected: of what is imported nearly all stays.
gc.disable()
import torch  # noqa: E402

if TYPE_CHECKING:
    from attnshift.classifiers.classifier import Classifier
    from attnshift.diffusion.backbone import Backbone
    from attnshift.diffusion.stable_diffusion import StableDiffusion
    from attnshift.results.store import Store


BUDGET = "fast_test_seconds"
LOADED = pytest.StashKey[frozenset[str]]()
"""Modules that were imported when the tests had been collected."""
A_LIBRARY = 200
"""So many new modules are those of a library."""

# Small convolutions on a shared machine are far slower with two threads than with one.
torch.set_num_threads(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini(BUDGET, "CPU seconds that a test without the marker `heavy` may take", default="5")


def cpu_seconds() -> float:
    """CPU seconds of this process and of its children that have ended: a busy machine does not make them more."""
    spent = os.times()
    return time.process_time() + spent.children_user + spent.children_system


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Fail a fast test whose own call takes longer than the budget.

    Fixtures are not counted, nor is a call that is the first to need a library: each would pay for all others.
    """
    begun, known = cpu_seconds(), len(sys.modules)
    yield
    taken, budget = cpu_seconds() - begun, float(item.config.getini(BUDGET))
    imported = len(sys.modules) - known
    if taken > budget and imported < A_LIBRARY and item.get_closest_marker("heavy") is None:
        pytest.fail(f"took {taken:.1f} s of CPU, more than the {budget:g} s of a fast test; mark it heavy", False)


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Note what is imported by now, and let the collector of garbage leave alone what stays for the whole session."""
    session.config.stash[LOADED] = frozenset(sys.modules)
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def imported_by_collection(pytestconfig: pytest.Config) -> frozenset[str]:
    return pytestconfig.stash[LOADED]


@pytest.fixture(scope="session", autouse=True)
def _classifiers_once() -> Iterator[None]:
    from small_classifiers import loaded_once

    with loaded_once():
        yield


@pytest.fixture(scope="session", autouse=True)
def _commands_once() -> Iterator[None]:
    """The commands are put together once, and not for each of the many that the tests give."""
    import typer.main

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(typer.main, "get_command", cache(typer.main.get_command))
        yield


@pytest.fixture(scope="session")
def pipeline_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A pipeline folder on disk for 64 px images, f = 8: grids 8, 4 and 2.

    By its name it is loaded once for each precision. ``tests/diffusion`` holds the loader itself to account, which
    reads it anew.
    """
    from attnshift.diffusion import stable_diffusion
    from pipelines import tiny_pipeline

    folder = tmp_path_factory.mktemp("pipeline")
    tiny_pipeline(size=64).save_pretrained(folder, safe_serialization=True)
    usual, known = stable_diffusion.STABLE_DIFFUSION, {}

    def load(source: str, precision: Any) -> Backbone:
        if source != str(folder):
            return usual.load(source, precision)
        if precision not in known:
            known[precision] = usual.load(source, precision)
        return known[precision]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stable_diffusion, "STABLE_DIFFUSION", replace(usual, load=load))
        yield folder


@pytest.fixture(scope="session")
def backbone() -> StableDiffusion:
    """The same pipeline as a backbone."""
    from attnshift.diffusion.stable_diffusion import StableDiffusion
    from pipelines import tiny_pipeline

    return StableDiffusion(tiny_pipeline(size=64), "tiny")


@pytest.fixture(scope="session")
def material() -> Path:
    """The folder of real weights and photographs, with classifiers/, photos/ and photo-pipeline/ in it."""
    named = os.environ.get("ATTNSHIFT_MATERIAL", "")
    if not named or not Path(named, "photo-pipeline").is_dir():
        pytest.skip("the variable ATTNSHIFT_MATERIAL names no folder of real weights and photographs")
    return Path(named)


@pytest.fixture(scope="session")
def classifiers() -> list[Classifier]:
    """Three untrained classifiers of different families, with 1000 classes."""
    from attnshift.classifiers import load_classifier

    return [load_classifier(f"random:{name}") for name in ("test_resnet", "test_convnext", "test_efficientnet")]


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images/ and labels.csv."""
    from small_runs import write_photos

    folder = tmp_path_factory.mktemp("photos")
    write_photos(folder)
    return folder


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A folder as ``photos``, labelled by what other processes see, which this one sees too in a test that has it."""
    from small_classifiers import as_elsewhere
    from small_runs import write_photos

    with as_elsewhere():
        yield write_photos(tmp_path / "elsewhere").parent


@pytest.fixture(scope="session")
def finished(photos: Path, pipeline_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """An undisturbed run, in batches of two. Not to be written to."""
    from small_runs import run_small, small_settings

    return run_small(small_settings(photos, pipeline_folder, tmp_path_factory.mktemp("finished") / "run"))
