"""The workshop of the tests: what keeps them fast is there, and works."""

from __future__ import annotations

from pathlib import Path

from attnshift.diffusion import load_pipeline


def test_the_pipeline_of_the_tests_is_loaded_once(pipeline_folder: Path) -> None:
    first = load_pipeline(str(pipeline_folder))
    assert load_pipeline(str(pipeline_folder)) is first
    assert load_pipeline(str(pipeline_folder), "bfloat16") is not first
