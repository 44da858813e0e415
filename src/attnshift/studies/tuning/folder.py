"""Study folder but for its database: the study that it holds, and the files that people read."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, Field, ValidationError

from attnshift.errors import RunError
from attnshift.files import atomic_write
from attnshift.recipes.schema import Recipe
from attnshift.recipes.writing import recipe_toml
from attnshift.registry import STRICT, describe
from attnshift.results.spec import RunSpec
from attnshift.studies.tuning.grading import Grade
from attnshift.studies.tuning.search import Choices, Range, Value
from attnshift.studies.tuning.settings import TuningSettings, recipe_with

__all__ = ["STUDY_FORMAT", "StudySpec", "Trial", "open_folder", "write_results"]

STUDY_FORMAT = 1
"""Version of the study folder and of what a score means; part of a study's identity."""


class StudySpec(BaseModel):
    """All that changes what a trial is or scores. How many trials there are is not part of it."""

    model_config = STRICT

    format: int = STUDY_FORMAT
    run: RunSpec
    """The attack with the recipe that is searched around."""
    search: dict[str, Range | Choices]
    tuning: tuple[str, ...] = Field(min_length=1)
    floor: float = Field(ge=0, le=1)
    seed: int = Field(ge=0)

    @classmethod
    def of(cls, settings: TuningSettings, run: RunSpec) -> Self:
        search = dict(settings.search)
        return cls(run=run, search=search, tuning=settings.tuning, floor=settings.floor, seed=settings.seed)

    def differences(self, other: StudySpec) -> list[str]:
        """``key: ours, not theirs`` for everything that differs."""
        mine, theirs = (self._own() for self in (self, other))
        own = [
            f"{key}: {mine.get(key)!r}, not {theirs.get(key)!r}"
            for key in sorted(mine.keys() | theirs.keys())
            if mine.get(key) != theirs.get(key)
        ]
        return own + self.run.differences(other.run)

    def _own(self) -> dict[str, Any]:
        space = {f"search.{key}": value.model_dump(exclude_none=True) for key, value in self.search.items()}
        # A run takes in other items; the trials of a study have to be on the same ones.
        return self.model_dump(exclude={"run", "search"}) | space | {"items": self.run.items}


@dataclass(frozen=True)
class Trial:
    """One recipe that was tried: the searched ``values``,
    and its grade or the ``reason`` why it has none."""

    number: int
    values: Mapping[str, Value]
    grade: Grade | None
    seconds: float
    reason: str = ""


def open_folder(folder: Path, spec: StudySpec) -> None:
    """Make ``folder`` hold the study of ``spec``: new, empty,
    or holding it already. Else a ``RunError``."""
    path = folder / "study.json"
    if path.exists():
        changed = spec.differences(_read_spec(path))
        if changed:
            raise RunError(
                f"{folder} holds another study; this one differs in {'; '.join(changed[:4])}. "
                "Use another `out`, or the settings of that study"
            )
        return
    if folder.exists() and not (folder.is_dir() and all(_partial(each) for each in folder.iterdir())):
        raise RunError(f"{folder} exists and is not a study; choose another `out`")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        atomic_write(path, (spec.model_dump_json(indent=1, exclude_none=True) + "\n").encode())
    except OSError as error:
        raise RunError(f"cannot write to {folder}: {error.strerror}; choose another `out`") from None


def write_results(trials: Sequence[Trial], settings: TuningSettings) -> Trial | None:
    """Write trials.csv and best.toml; return the best trial, the earliest of several."""
    atomic_write(settings.out / "trials.csv", _table(trials, list(settings.search)).encode())
    best = max(trials, key=lambda trial: -math.inf if trial.grade is None else trial.grade.score, default=None)
    if best is None or best.grade is None:
        return None
    atomic_write(settings.out / "best.toml", recipe_toml(_best_recipe(settings, best)).encode())
    return best


def _partial(path: Path) -> bool:
    """Whether ``path`` is left from a study that stopped before it was declared."""
    return path.name.endswith(".partial")


def _read_spec(path: Path) -> StudySpec:
    try:
        return StudySpec.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise RunError(f"{path}: {describe(error)}") from None


def _best_recipe(settings: TuningSettings, best: Trial) -> Recipe:
    start = recipe_with(settings, {})
    about = {
        "name": f"{start.name}-tuned",
        "summary": f"{start.name}, its numbers tuned on {', '.join(settings.tuning)}",
        # A recipe may be tuned again; who tuned it before still cannot judge it.
        "tuned_on": list(dict.fromkeys([*start.tuned_on, *settings.tuning])),
    }
    return recipe_with(settings, {**best.values, **about})


def _table(trials: Sequence[Trial], keys: Sequence[str]) -> str:
    measures = [each.name for each in fields(Grade)]
    stream = io.StringIO()
    table = csv.DictWriter(stream, ["trial", *measures, "seconds", "reason", *keys], restval="", lineterminator="\n")
    table.writeheader()
    for trial in trials:
        result = asdict(trial.grade) if trial.grade else {}
        table.writerow(
            {"trial": trial.number, "seconds": trial.seconds, "reason": trial.reason, **result, **trial.values}
        )
    return stream.getvalue()
