"""Optuna's part: proposing trials that depend on nothing but those before them,
and keeping them in study.db."""

from __future__ import annotations

import sqlite3
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING

from attnshift.errors import RunError
from attnshift.randomness import generator
from attnshift.studies.tuning.bench import Bench, attempt
from attnshift.studies.tuning.folder import Trial
from attnshift.studies.tuning.grading import Grade
from attnshift.studies.tuning.settings import TuningSettings

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from optuna.study import Study
    from optuna.trial import FrozenTrial

__all__ = ["finished", "next_trial", "quiet", "stored_study", "trials_of"]

_RANDOM_TRIALS = 10
"""Trials that TPE needs before it proposes anything."""


@contextmanager
def quiet() -> Iterator[None]:
    """Let Optuna say no more than warnings,
    and nothing about interfaces that it may still change."""
    import optuna

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)


@contextmanager
def stored_study(path: Path) -> Iterator[Study]:
    """The study on disk. SQLite adds a trial whole or not at all, whatever stops the process."""
    import optuna
    import sqlalchemy.exc

    try:
        # Connected by path: Optuna and SQLAlchemy read ? and { in a URL as something else.
        storage = optuna.storages.RDBStorage("sqlite://", {"creator": lambda: sqlite3.connect(path)})
    except (RuntimeError, optuna.exceptions.OptunaError, sqlalchemy.exc.DatabaseError) as error:
        reason = str(error).splitlines()[0]
        raise RunError(f"{path} is not a study that this Optuna reads ({reason}); use another `out`") from None
    try:
        yield optuna.create_study(storage=storage, study_name="tune", direction="maximize", load_if_exists=True)
    finally:
        storage.remove_session()
        storage.engine.dispose()


def finished(study: Study) -> list[FrozenTrial]:
    return [trial for trial in study.trials if trial.state.is_finished()]


def trials_of(study: Study) -> list[Trial]:
    return [_record(number, trial) for number, trial in enumerate(finished(study))]


def next_trial(study: Study, settings: TuningSettings, bench: Bench, number: int) -> FrozenTrial:
    """Let Optuna propose trial ``number``, and carry it out."""
    from optuna.trial import TrialState

    study.sampler = _sampler(settings.seed, number)
    trial = study.ask({key: space.distribution() for key, space in settings.search.items()})
    begun = time.monotonic()
    result = attempt(settings, bench, trial.params)
    trial.set_user_attr("seconds", time.monotonic() - begun)
    if isinstance(result, str):
        trial.set_user_attr("reason", result)
        return study.tell(trial, state=TrialState.FAIL)
    for name, value in asdict(result).items():
        trial.set_user_attr(name, value)
    return study.tell(trial, result.score)


def _sampler(seed: int, number: int) -> BaseSampler:
    """Tree-structured Parzen estimator (Bergstra et al., NeurIPS 2011; multivariate: Falkner et
    al., ICML 2018) whose draws belong to the trial."""
    from optuna.samplers import TPESampler

    draw = int(generator(seed, "tuning", number).integers(2**32))
    return TPESampler(seed=draw, multivariate=True, n_startup_trials=_RANDOM_TRIALS)


def _record(number: int, trial: FrozenTrial) -> Trial:
    noted = trial.user_attrs
    result = None if "reason" in noted else Grade(**{each.name: noted[each.name] for each in fields(Grade)})
    return Trial(number, trial.params, result, noted["seconds"], noted.get("reason", ""))
