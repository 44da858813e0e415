"""A run that is profiled: the same bytes, and every second told."""

from __future__ import annotations

import json
import re
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from attnshift.cli import main
from attnshift.execution.coordinate import attack_folder
from attnshift.profiling import ITERATIONS, profiled
from attnshift.recipes.reading import load_recipe
from small_runs import SURROGATE, pngs, small_settings
from tiers import fast_first

QUICK = ["reconstruction.updates=1", "reconstruction.updates_per_step=0", "optimiser.iterations=2"]


def rows(folder: Path) -> list[dict[str, Any]]:
    """What is written down of each image, but for the seconds that it took."""
    read = [json.loads(path.read_text()) for path in sorted((folder / "items").glob("*.json"))]
    return [{key: value for key, value in row.items() if not key.endswith("seconds")} for row in read]


@pytest.mark.heavy
@pytest.mark.parametrize(("preset", "settings"), fast_first([("quick", []), ("diffattack", QUICK)]))
def test_bytes_are_the_same_and_parts_sum_to_the_whole(
    photos: Path, pipeline_folder: Path, tmp_path: Path, preset: str, settings: list[str]
) -> None:
    recipe = load_recipe(preset, ["optimiser.iterations=2", "finish.keep=last", *settings])
    plain, timed = (
        replace(small_settings(photos, pipeline_folder, tmp_path / name, limit=2), recipe=recipe)
        for name in ("plain", "timed")
    )
    attack_folder(plain)
    begun = time.perf_counter()
    with profiled() as profile:
        attack_folder(timed)
    elapsed = time.perf_counter() - begun
    assert pngs(plain.out) == pngs(timed.out)
    assert len(rows(plain.out)) == 2
    assert rows(plain.out) == rows(timed.out)
    assert profile.whole == pytest.approx(elapsed, abs=0.05)
    assert all(seconds > 0 for seconds in profile.seconds.values())
    assert max(ITERATIONS, key=lambda name: profile.seconds[name]) in ("denoising", "decoder")


@pytest.fixture
def restored_signals() -> Iterator[None]:
    """The command line sets its own."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.heavy
@pytest.mark.usefixtures("restored_signals")
def test_the_command_line_shows_shares_on_standard_error(
    photos: Path,
    pipeline_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = ["--labels", photos / "labels.csv", "--pipeline", pipeline_folder, "--surrogate", SURROGATE]
    options += ["--out", tmp_path / "run", "--limit", 1, "--threads", 1, "--profile"]
    monkeypatch.setattr(sys, "argv", ["attnshift", "attack", *map(str, [photos / "images", *options])])
    with pytest.raises(SystemExit) as caught:
        main()
    assert not caught.value.code
    shown = capsys.readouterr()
    lines = re.findall(r"│ ([a-z: ]+?) +│ +[\d.]+ │ +([\d.]+)% │", shown.err)
    shares = {name: float(share) for name, share in lines}
    assert {"loading", "inversion", "storing", "whole", *(f"iterations: {name}" for name in ITERATIONS)} <= set(shares)
    assert shares.pop("whole") == 100
    assert sum(shares.values()) == pytest.approx(100, abs=1)
    assert "of the iterations" in shown.err
    assert "iterations:" not in shown.out


@pytest.mark.usefixtures("restored_signals")
def test_an_attack_on_pixels_has_no_such_parts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--labels", "no", "--out", "no", "--preset", "pgd", "--profile"]
    monkeypatch.setattr(sys, "argv", ["attnshift", "attack", "nowhere", *options])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    assert "pgd is a baseline" in capsys.readouterr().err
