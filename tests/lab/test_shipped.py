"""The networks that ship with the package, through the loading code that real ones go through."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors import safe_open

from attnshift.lab.weights import classifier_names, pipeline_folder
from later import later

check = later("attnshift.lab.check")
classifiers = later("attnshift.lab.classifiers")

WEIGHTS = pipeline_folder().parent


@pytest.mark.heavy
def test_they_reach_what_they_must() -> None:
    lines: list[str] = []
    assert check.check_lab(100, write=False, report=lines.append), "\n".join(lines)
    assert len(lines) == 3 + len(classifiers.RECIPES)


@pytest.mark.heavy
def test_the_flow_reaches_what_it_must() -> None:
    lines: list[str] = []
    assert check.check_lab(50, write=False, report=lines.append, pipeline="lab-flow"), "\n".join(lines)
    assert len(lines) == 3


def test_they_are_safetensors_of_at_most_40_megabytes() -> None:
    files = [path for path in WEIGHTS.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert sum(path.stat().st_size for path in files) < 40e6
    flow = [path for path in files if WEIGHTS / "flow" in path.parents]
    assert 0 < sum(path.stat().st_size for path in flow) < 10e6
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".txt", ".py"}


def test_every_recipe_has_its_weights() -> None:
    assert classifier_names() == sorted(classifiers.RECIPES)


@pytest.mark.parametrize("name", classifier_names())
def test_no_weight_is_missing_or_infinite(name: str) -> None:
    with safe_open(WEIGHTS / "classifiers" / name / "model.safetensors", framework="pt") as tensors:
        assert all(bool(tensors.get_tensor(key).isfinite().all()) for key in tensors.keys())  # noqa: SIM118


def test_judges_and_surrogates_are_different_networks() -> None:
    contents = {
        name: Path(WEIGHTS / "classifiers" / name / "model.safetensors").read_bytes() for name in classifiers.RECIPES
    }
    assert len(contents) == len(classifiers.RECIPES)
    assert sum(recipe.role == "surrogate" for recipe in classifiers.RECIPES.values()) >= 3
    assert sum(recipe.role == "judge" for recipe in classifiers.RECIPES.values()) >= 4
