"""Recipes on one set of images, at several strengths or within budgets: every run is an attack like
any other, then judged.

A comparison folder:
runs/NAME@SETTING     a run folder; the setting is a strength, or a budget
inversions            what the runs have in common
compare.json          all figures (written by the report)
compare.html
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from attnshift.classifiers.classifier import Classifier
from attnshift.data.datasets import Item
from attnshift.defences.names import load_defended
from attnshift.diffusion import load_pipeline
from attnshift.errors import ModelError, RunError, UserError
from attnshift.execution.coordinate import RunOptions, attack_prepared
from attnshift.execution.prepare import PreparedRun, prepare_run
from attnshift.execution.settings import Inputs, settings_with, wants_masks
from attnshift.judging.pending import missing_reference, unjudged
from attnshift.judging.verdicts import evaluate_run, in_run_order
from attnshift.metrics.clean_accuracy import LEAST
from attnshift.recipes.schema import BaselineRecipe, Recipe
from attnshift.results.store import Store
from attnshift.studies.entrants import Entrant, Setting, check_asked
from attnshift.telemetry import Telemetry

__all__ = ["Compared", "ComparisonSettings", "compare_recipes"]


@dataclass(frozen=True, kw_only=True)
class ComparisonSettings(Inputs):
    """Settings of a comparison: as for a single attack, but with several ``entrants``.

    ``out`` is the comparison folder. ``masks`` go to the recipes that ask for them.
    """

    judges: tuple[str, ...]
    entrants: tuple[Entrant, ...]
    out: Path
    min_clean_accuracy: float = LEAST
    reference: str = ""
    """Classifier that speaks for the label, as in ``evaluate_run``; empty for none."""


@dataclass(frozen=True)
class Compared:
    """The finished runs, in the order that was asked for: recipe -> setting -> run. ``remarks``
    as ``evaluate_run``'s, each once."""

    stores: Mapping[str, Mapping[Setting, Store]]
    judges: tuple[str, ...]
    remarks: tuple[str, ...]

    @property
    def runs(self) -> dict[str, dict[float, Store]]:
        """Recipe -> strength -> run."""
        return {
            name: {setting.strength: store for setting, store in line.items() if not setting.budget}
            for name, line in self.stores.items()
        }

    @property
    def runs_by_budget(self) -> dict[str, dict[str, list[Store]]]:
        """Recipe -> budget -> one run a seed."""
        found: dict[str, dict[str, list[Store]]] = {}
        for name, line in self.stores.items():
            for setting, store in line.items():
                found.setdefault(name, {}).setdefault(setting.budget, []).append(store)
        return found


@dataclass(frozen=True)
class _Arm:
    name: str
    setting: Setting
    attack: PreparedRun
    folder: Path


def compare_recipes(
    settings: ComparisonSettings, telemetry: Telemetry | None = None, *, retry_failed: bool = False
) -> Compared:
    """Run, or continue, the attacks that ``settings`` ask for,
    and judge those that are not judged yet.

    All input is loaded and checked before anything is written. A comparison may grow by recipes,
    strengths and judges; what its folder holds already has to be asked for again, the same in
    everything. Images that failed stay failed unless ``retry_failed``.
    """
    check_asked(settings.surrogates, settings.judges, settings.entrants)
    arms = _prepare(settings)
    judges = _load_judges(settings, arms[0].attack.worker.classifiers, arms[0].attack.plan.examples)
    _claim(settings.out, arms)
    runs: dict[str, dict[Setting, Store]] = {}
    remarks: dict[str, None] = {}
    for arm in arms:
        store = attack_prepared(
            arm.attack, arm.folder, telemetry, RunOptions(name=arm.folder.name, retry_failed=retry_failed)
        )
        names = unjudged(store, [judge.name for judge in judges])
        missing = [judge for judge in judges if judge.name in names]
        reference = missing_reference(store, settings.reference)
        if missing or reference:
            found = evaluate_run(
                store, missing, min_clean_accuracy=settings.min_clean_accuracy, reference=reference or None
            )
            remarks |= dict.fromkeys(found)
        runs.setdefault(arm.name, {})[arm.setting] = store
    return Compared(runs, tuple(judge.name for judge in judges), tuple(remarks))


def _prepare(settings: ComparisonSettings) -> list[_Arm]:
    """Load what all runs share once, and check every recipe against it."""
    wanted = {entrant.name: wants_masks(entrant.recipe) for entrant in settings.entrants}
    # Masks are part of what an image is: runs with and without them share no items.
    shared: dict[tuple[bool, str], PreparedRun] = {}
    inversions = settings.cache or settings.out / "inversions"
    # The pipeline is measured for the first attack alone, and for none on pixels.
    for entrant in sorted(settings.entrants, key=lambda each: not each.recipe.uses_pipeline):
        name, recipe, kind = entrant.name, _checked(entrant), (wanted[entrant.name], entrant.defence)
        if kind in shared:
            _check_recipe(name, recipe, shared[kind])
            continue
        masks = settings.masks if wanted[name] or not any(wanted.values()) else None
        alone = settings_with(settings, recipe, settings.out)
        surrogates = entrant.surrogates(settings.surrogates)
        shared[kind] = prepare_run(replace(alone, surrogates=surrogates, masks=masks, cache=inversions))
    return [
        _Arm(
            entrant.name,
            setting,
            shared[wanted[entrant.name], entrant.defence].with_recipe(_set(entrant, setting)),
            settings.out / "runs" / f"{entrant.name}@{setting}",
        )
        for entrant in settings.entrants
        for setting in entrant.settings
    ]


def _checked(entrant: Entrant) -> Recipe | BaselineRecipe:
    """The recipe that stands for all runs of ``entrant``: some recipes run only within a budget."""
    first = entrant.settings[0]
    return first.of(entrant.recipe) if first.budget else entrant.recipe


def _set(entrant: Entrant, setting: Setting) -> Recipe | BaselineRecipe:
    try:
        return setting.of(entrant.recipe)
    except UserError as error:
        if setting.budget:
            raise
        raise UserError(f"strength {setting.strength:g} is too much for {entrant.name}: {error}") from None


def _check_recipe(name: str, recipe: Recipe | BaselineRecipe, attack: PreparedRun) -> None:
    try:
        attack.with_recipe(recipe).check()
    except UserError as error:
        raise UserError(f"`recipes`, {name}: {error}") from None


def _load_judges(
    settings: ComparisonSettings, surrogates: Sequence[Classifier], items: Sequence[Item]
) -> list[Classifier]:
    pipeline = cache(lambda: load_pipeline(settings.pipeline))
    judges = [load_defended(name, pipeline) for name in settings.judges]
    classes = [(item.label, item.target) for item in items]
    return [in_run_order(each, surrogates, classes, ModelError) for each in judges]


def _claim(folder: Path, arms: Sequence[_Arm]) -> None:
    """Make ``folder`` hold the runs of ``arms``, none of them begun or all
    as they are; else a ``RunError``."""
    runs = folder / "runs"
    if folder.exists() and not _ours(folder):
        raise RunError(f"{folder} exists and is not a comparison; choose another `out`")
    asked = {arm.folder.name for arm in arms}
    more = sorted(path.name for path in runs.iterdir() if path.name not in asked) if runs.exists() else []
    if more:
        raise RunError(
            f"{folder} also holds {', '.join(more[:4])}; a comparison grows and never shrinks: "
            "give their recipes and strengths as well, or use another `out`"
        )
    # One that differs is found before anything is written.
    for arm in arms:
        Store(arm.folder).holds(arm.attack.worker.spec)
    for arm in arms:
        Store.start(arm.folder, arm.attack.worker.spec, arm.attack.plan)


def _ours(folder: Path) -> bool:
    """Whether ``folder`` is empty, or holds nothing but what a comparison writes."""
    if not folder.is_dir():
        return False
    known = {"runs", "inversions", "compare.json", "compare.html"}
    return all(path.name in known or path.name.endswith(".partial") for path in folder.iterdir())
