"""Better numbers for a recipe: Optuna proposes them,
tuning classifiers decide, and no judge is ever asked.

A study folder:
study.json   what the study is (StudySpec)
study.db     its finished trials, as Optuna's study "tune" in SQLite
trials.csv   the same to read, one row per trial
best.toml    recipe of the best trial so far, complete
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attnshift.errors import RunError, UserError
from attnshift.studies.tuning.bench import set_up
from attnshift.studies.tuning.folder import StudySpec, Trial, open_folder, write_results
from attnshift.studies.tuning.grading import Grade, grade
from attnshift.studies.tuning.search import Choices, Range, Search, own_values, read_search
from attnshift.studies.tuning.settings import TuningSettings, check_study, recipe_with
from attnshift.studies.tuning.study import finished, next_trial, quiet, stored_study, trials_of

__all__ = [
    "Choices",
    "Grade",
    "Range",
    "Search",
    "StudySpec",
    "Trial",
    "TrialProgress",
    "Tuned",
    "TuningSettings",
    "grade",
    "read_search",
    "tune_recipe",
]

TrialProgress = Callable[[int, int, float | None, float | None], None]
"""Called for every trial that is done: its number from 0, how many there will be, its score and the
best score so far, each None where there is none."""


@dataclass(frozen=True)
class Tuned:
    """A finished study. ``preset`` is the trial of the unchanged recipe,
    None where that lies outside the space."""

    trials: tuple[Trial, ...]
    best: Trial
    preset: Trial | None
    recipe: Path
    """best.toml"""


def tune_recipe(settings: TuningSettings, progress: TrialProgress) -> Tuned:
    """Run, or continue, the study that ``settings`` describes. All input is checked before anything
    is written.

    The first trial is the recipe as it is, where its values lie in the search space. A trial
    depends on its number, the seed and the finished trials before it alone, and is stored when it
    is finished: a study that was interrupted goes on with the trial in which it was, and ends with
    the trials of an undisturbed one.
    """
    optuna = _optuna()
    check_study(settings)
    bench = set_up(settings)
    open_folder(settings.out, StudySpec.of(settings, bench.attack.worker.spec))
    own = own_values(recipe_with(settings, {}), settings.search)
    with quiet(), stored_study(settings.out / "study.db") as stored:
        # Optuna proposes from a copy in memory: what it notes there about an unfinished trial is
        # never stored.
        study = optuna.create_study(direction="maximize")
        study.add_trials(finished(stored))
        if own and not study.trials:
            study.enqueue_trial(own)
        for number in range(len(finished(stored)), settings.trials):
            trial = next_trial(study, settings, bench, number)
            if len(finished(stored)) != number:
                raise RunError(f"{settings.out}: another process adds trials to this study; run one at a time")
            stored.add_trial(trial)
            trials = trials_of(stored)
            best = write_results(trials, settings)
            latest = trials[-1].grade
            progress(number, settings.trials, latest and latest.score, best and best.grade and best.grade.score)
        trials = trials_of(stored)
        best = write_results(trials, settings)
    if best is None:
        raise RunError(f"{settings.out}: every trial failed, the first because {trials[0].reason}")
    preset = trials[0] if own == trials[0].values else None
    return Tuned(tuple(trials), best, preset, settings.out / "best.toml")


def _optuna() -> Any:
    try:
        import optuna
    except ModuleNotFoundError:
        raise UserError("tuning needs Optuna, which is not installed: pip install 'attnshift[tune]'") from None
    return optuna
