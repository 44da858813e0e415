"""The workshop of the tests: what keeps them fast is there, and works."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from attnshift.classifiers import load_classifier
from attnshift.diffusion import load_pipeline
from later import later

LARGE = {
    *("art", "captum", "diffusers", "foolbox", "kornia", "mlflow", "optuna", "piq", "ray", "scipy", "sympy"),
    *("timm", "torchattack", "torchattacks", "torchmetrics", "torchvision", "transformers"),
}

timm_source = later("attnshift.classifiers.timm_source")


def test_the_pipeline_of_the_tests_is_loaded_once(pipeline_folder: Path) -> None:
    first = load_pipeline(str(pipeline_folder))
    assert load_pipeline(str(pipeline_folder)) is first
    assert load_pipeline(str(pipeline_folder), "bfloat16") is not first


def test_classifiers_of_the_tests_are_loaded_once_and_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_classifier("random:test_resnet")
    monkeypatch.setattr(timm_source, "load_random", lambda name: pytest.fail("it is loaded again"))
    second = load_classifier("random:test_resnet")
    assert second.name == first.name
    assert second.network is not first.network
    for one, other in zip(first.network.parameters(), second.network.parameters(), strict=True):
        assert one is not other
        assert one.equal(other)


def test_names_of_a_module_that_is_imported_later_can_be_replaced() -> None:
    module = later("colorsys")
    usual = module.rgb_to_hsv
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "rgb_to_hsv", None)
        assert sys.modules["colorsys"].rgb_to_hsv is None
    assert sys.modules["colorsys"].rgb_to_hsv is module.rgb_to_hsv is usual


def test_collecting_the_tests_imports_no_large_library(imported_by_collection: frozenset[str]) -> None:
    """Each process of a run collects all tests, which the libraries would make three times as long."""
    assert imported_by_collection & LARGE == set()
