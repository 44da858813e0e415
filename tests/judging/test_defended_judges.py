"""Defences on the command line: in front of judges, and in front of what is attacked."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
import torch

from attnshift.classifiers import load_classifier
from attnshift.cli import main
from attnshift.data.images import read_image
from attnshift.defences.jpeg import JpegCompression
from attnshift.errors import ModelError, RunError
from attnshift.judging.verdicts import evaluate_run
from attnshift.results.store import Store
from small_runs import SIDE, SURROGATE, contents, run_small, small_settings
from tables import records

JUDGE = "random:test_convnext"


@pytest.fixture
def store(finished: Store, tmp_path: Path) -> Store:
    """A copy of the finished run, to be judged."""
    shutil.copytree(finished.folder, tmp_path / "run")
    return Store.open(tmp_path / "run")


def test_defended_judges_on_the_command_line(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    judges = [f"jpeg(quality=20)+{JUDGE}", f"purification(strength=0.1, schedule_steps=10)+bit_depth+{JUDGE}", JUDGE]
    options = [word for judge in judges for word in ("--judge", judge)]
    arguments = ["attnshift", "evaluate", str(store.folder), *options, "--min-clean-accuracy", "0"]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as caught:
        main()
    assert not caught.value.code
    assert judges[0] in capsys.readouterr().out
    verdicts = [row for row in records(store, "verdicts") if row["role"] != "surrogate"]
    assert {row["classifier"]: row["role"] for row in verdicts} == dict(
        zip(judges, ("defended", "defended", "judge"), strict=True)
    )
    classifier = load_classifier(JUDGE)
    for row in (row for row in verdicts if row["classifier"] == judges[0]):
        image = read_image(store.image_path(row["id"], row["arm"]), SIDE)[None]
        with torch.no_grad():
            shares = classifier(JpegCompression(20)(image)).softmax(1)[0]
        assert row["predicted_probability"] == pytest.approx(float(shares.max()), rel=1e-4)
    shares = {name: [row["predicted_probability"] for row in verdicts if row["classifier"] == name] for name in judges}
    assert len({tuple(each) for each in shares.values()}) == 3


@pytest.mark.parametrize("name", [f"jpeg+{SURROGATE}", f"bit_depth(bits=3)+jpeg+{SURROGATE}"])
def test_a_defence_does_not_make_a_judge_of_a_surrogate(store: Store, name: str) -> None:
    before = contents(store.folder)
    with pytest.raises(RunError, match="cannot be a judge"):
        evaluate_run(store, [JUDGE, name])
    with pytest.raises(RunError, match="cannot be a tuning classifier"):
        evaluate_run(store, [], [name])
    assert contents(store.folder) == before


def test_nor_of_a_tuning_classifier(store: Store) -> None:
    with pytest.raises(RunError, match="cannot be a judge"):
        evaluate_run(store, [f"jpeg+{JUDGE}"], [JUDGE], min_clean_accuracy=0)
    evaluate_run(store, [], [f"jpeg+{JUDGE}"], min_clean_accuracy=0)
    with pytest.raises(RunError, match="cannot be a judge"):
        evaluate_run(store, [JUDGE], min_clean_accuracy=0)


def test_an_attack_through_a_defence(photos: Path, pipeline_folder: Path, tmp_path: Path) -> None:
    name = f"jpeg(quality=60)+{SURROGATE}"
    settings = small_settings(photos, pipeline_folder, tmp_path / "run", surrogates=(name,), limit=1)
    run = run_small(settings)
    assert run.spec().surrogates == (name,)
    evaluate_run(run, [], min_clean_accuracy=0)
    assert {(row["classifier"], row["role"]) for row in records(run, "verdicts")} == {(name, "surrogate")}
    with pytest.raises(RunError, match="cannot be a judge"):
        evaluate_run(run, [SURROGATE], min_clean_accuracy=0)


def test_what_no_gradient_passes_is_refused_before_anything_is_written(
    photos: Path, pipeline_folder: Path, tmp_path: Path
) -> None:
    settings = small_settings(photos, pipeline_folder, tmp_path / "run", surrogates=(f"smoothing+{SURROGATE}",))
    with pytest.raises(ModelError, match="cannot be a surrogate: no gradient passes the defence 'smoothing'"):
        run_small(settings)
    assert not (tmp_path / "run").exists()
