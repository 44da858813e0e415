"""What a study does and writes: its trials, its table, its best recipe, and what it says meanwhile."""

from __future__ import annotations

import csv
import itertools
import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from attnshift.attack.method import Method
from attnshift.classifiers import load_classifier
from attnshift.data.images import read_image
from attnshift.errors import RunError
from attnshift.execution.settings import AttackSettings
from attnshift.judging.verdicts import evaluate_run
from attnshift.losses.classification import margins
from attnshift.metrics.metrics import ssim
from attnshift.recipes.reading import load_recipe
from attnshift.studies.tuning import Range, bench, grade, tune_recipe
from attnshift.types import Goals
from small_runs import SIDE, contents, run_small
from small_studies import LOSS, RATE, SURROGATE, TUNING, Make, silent
from tables import records
from tiers import fast_first

if TYPE_CHECKING:
    from attnshift.recipes.schema import Recipe


@pytest.mark.heavy
def test_the_best_recipe_attacks_as_its_trial_did(make: Make, tmp_path: Path) -> None:
    """best.toml goes through ``attack_folder`` and gives images of the trial's own grade; its tuner cannot judge it."""
    settings = make(floor=0.4)
    result = tune_recipe(settings, silent)
    recipe = load_recipe(str(result.recipe))
    assert (recipe.name, recipe.tuned_on) == ("quick-tuned", (TUNING,))
    assert (recipe.optimiser.learning_rate, recipe.classification.loss) == (
        result.best.values[RATE],
        result.best.values[LOSS],
    )
    assert recipe.optimiser.iterations == 2
    run = AttackSettings(
        images=settings.images,
        labels=settings.labels,
        pipeline=settings.pipeline,
        surrogates=(SURROGATE,),
        recipe=recipe,
        out=tmp_path / "run",
        batch=2,
    )
    store = run_small(run)
    rows = records(store, "results")
    clean, attacked = (
        torch.stack([read_image(store.image_path(row["id"], arm), SIDE) for row in rows]) for arm in ("clean", "attack")
    )
    labels = torch.tensor([row["label"] for row in rows])
    with torch.no_grad():
        before, after = (load_classifier(TUNING)(images) for images in (clean, attacked))
    again = grade(
        (before.argmax(1) == labels)[None],
        (after.argmax(1) != labels)[None],
        margins(after, Goals(labels))[None],
        ssim(clean, attacked),
        settings.floor,
    )
    assert result.best.grade is not None
    assert again.score == pytest.approx(result.best.grade.score, rel=1e-6)
    assert again.ssim == pytest.approx(result.best.grade.ssim, rel=1e-6)
    with pytest.raises(RunError, match=f"{TUNING} cannot be a judge"):
        evaluate_run(store, [TUNING])


@pytest.mark.parametrize(("aim", "success"), fast_first([("a third class", 0.0), ("", 1.0), ("what it sees", 1.0)]))
def test_success_is_the_target_where_there_is_one(
    make: Make, monkeypatch: pytest.MonkeyPatch, aim: str, success: float
) -> None:
    """The attack makes every photo white, in which the tuning classifier sees another class than in the photos."""
    monkeypatch.setattr(bench, "_attack", lambda shared, method: torch.ones_like(shared.clean))
    classifier = load_classifier(TUNING)
    with make().labels.open(newline="") as stream:
        labels = {int(row["label"]) for row in csv.DictReader(stream)}
    with torch.no_grad():
        (logits,) = classifier(torch.ones(1, 3, SIDE, SIDE))
    seen = int(logits.argmax())
    third = next(number for number in range(1000) if number not in {seen, *labels})
    assert seen not in labels
    target = {"": None, "what it sees": str(seen), "a third class": classifier.class_names[third]}[aim]
    graded = tune_recipe(make(target=target, trials=1, floor=0.0), silent).best.grade
    assert graded is not None
    assert graded.success == success
    assert graded.score > 0, "the slope is that of the margin to the target"


def test_a_study_holds_exactly_these_files(make: Make, instant: list[Recipe]) -> None:
    settings = make()
    tune_recipe(settings, silent)
    assert set(contents(settings.out)) == {"study.json", "study.db", "trials.csv", "best.toml"}


def test_the_first_trial_is_the_preset_itself(make: Make, instant: list[Recipe]) -> None:
    settings = make()
    result = tune_recipe(settings, silent)
    assert instant[0] == load_recipe("quick", settings.changes)
    assert result.preset == result.trials[0]
    assert instant[1] != instant[0]


def test_a_term_that_the_preset_lacks_has_weight_zero_in_the_first_trial(make: Make, instant: list[Recipe]) -> None:
    settings = make(search={"terms.entropy.weight": Range(low=0.0, high=1.0)})
    result = tune_recipe(settings, silent)
    assert result.trials[0].values == {"terms.entropy.weight": 0.0}
    assert result.preset == result.trials[0]
    assert Method.of(instant[0]).objective == Method.of(load_recipe("quick", settings.changes)).objective


def test_a_preset_outside_the_space_is_no_trial(make: Make, instant: list[Recipe]) -> None:
    result = tune_recipe(make(search={RATE: Range(low=0.3, high=0.5)}), silent)
    assert result.preset is None
    assert all(0.3 <= float(trial.values[RATE]) <= 0.5 for trial in result.trials)


def test_every_trial_is_the_preset_with_its_values(make: Make, instant: list[Recipe]) -> None:
    result = tune_recipe(make(trials=4), silent)
    base = load_recipe("quick", make().changes)
    for recipe, trial in zip(instant, result.trials, strict=True):
        assert (recipe.optimiser.learning_rate, recipe.classification.loss) == (trial.values[RATE], trial.values[LOSS])
        neutral = {"optimiser": base.optimiser, "classification": base.classification}
        assert recipe.model_copy(update=neutral) == base


def test_the_table_says_what_the_trials_were(make: Make, instant: list[Recipe]) -> None:
    settings = make(trials=3)
    result = tune_recipe(settings, silent)
    with (settings.out / "trials.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    for row, trial in zip(rows, result.trials, strict=True):
        assert trial.grade is not None
        assert int(row["trial"]) == trial.number
        assert float(row["score"]) == trial.grade.score
        assert float(row["success_with_floor"]) == trial.grade.success_with_floor
        assert float(row[RATE]) == trial.values[RATE]
        assert row[LOSS] == trial.values[LOSS]
        assert row["reason"] == ""
    scores = [trial.grade.score for trial in result.trials if trial.grade]
    assert result.best == result.trials[scores.index(max(scores))]


@pytest.mark.heavy
def test_a_recipe_that_was_tuned_before_remembers_by_whom(make: Make, instant: list[Recipe], tmp_path: Path) -> None:
    first = tune_recipe(make(), silent)
    second = tune_recipe(
        make(preset=str(first.recipe), changes=('tuned_on=["lab:mobilenet"]',), out=tmp_path / "two"), silent
    )
    assert load_recipe(str(second.recipe)).tuned_on == ("lab:mobilenet", TUNING)


@pytest.mark.heavy
def test_progress_and_silence(make: Make, instant: list[Recipe], capfd: pytest.CaptureFixture[str]) -> None:
    calls: list[tuple[int, int, float | None, float | None]] = []
    import optuna

    settings = make(trials=11)
    capfd.readouterr()
    verbosity = optuna.logging.get_verbosity()
    said: list[logging.LogRecord] = []
    listener = logging.Handler(logging.INFO)
    listener.emit = said.append  # type: ignore[method-assign]
    logging.getLogger().addHandler(listener)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = tune_recipe(settings, lambda *call: calls.append(call))
    logging.getLogger().removeHandler(listener)
    assert [call[:2] for call in calls] == [(number, 11) for number in range(11)]
    scores = [trial.grade.score for trial in result.trials if trial.grade]
    assert [call[2] for call in calls] == scores
    assert [call[3] for call in calls] == list(itertools.accumulate(scores, max))
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""
    assert said == []
    assert optuna.logging.get_verbosity() == verbosity
