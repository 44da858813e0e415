"""A run with Ray that is given another list of images: it takes them in as a run in one process does."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest

from attnshift.execution.coordinate import RunOptions, attack_folder
from attnshift.results.generations import generations_of
from attnshift.results.plan import Generation
from later import later
from small_runs import Told, pngs, small_settings
from tables import untimed

if find_spec("ray") is None:
    pytest.skip("Ray is not installed", allow_module_level=True)

ray_engine = later("attnshift.execution.engines.ray_engine")


@pytest.mark.heavy
def test_a_trial_grows_into_a_run(
    elsewhere: Path, pipeline_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    whole = small_settings(elsewhere, pipeline_folder, tmp_path / "ray")
    with_ray = RunOptions(engine=partial(ray_engine.RayEngine, workers=1))
    for settings, done in ((replace(whole, limit=2), 2), (whole, 1)):
        told = Told()
        store = attack_folder(settings, told.telemetry(), with_ray)
        assert (len(told.done), len(told.failed)) == (done, 0)
        other = attack_folder(replace(settings, out=tmp_path / "here"))
    assert generations_of(store.folder) == (Generation(0, 2), Generation(1, 3, added=1, removed=0))
    assert generations_of(store.folder) == generations_of(other.folder)
    assert pngs(store.folder) == pngs(other.folder)
    assert untimed(store) == untimed(other)
