"""Recipes on one set of images, each at several strengths: every run is an attack like any other, then judged.

A comparison folder:
runs/NAME@STRENGTH    a run folder
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
from attnshift.execution.early import check_surrogates
from attnshift.execution.prepare import PreparedRun, prepare_run
from attnshift.execution.settings import Inputs, settings_with, wants_masks
from attnshift.judging.roles import check_judges
from attnshift.judging.verdicts import evaluate_run, in_run_order
from attnshift.metrics.clean_accuracy import LEAST
from attnshift.recipes.reading import load_recipe
from attnshift.recipes.schema import BaselineRecipe, Recipe
from attnshift.recipes.strength import at_strength
from attnshift.results.rows import QualityRow, ResultRow, VerdictRow
from attnshift.results.store import Store
from attnshift.telemetry import Telemetry

__all__ = ["Compared", "ComparisonSettings", "Entrant", "compare_recipes", "read_entrants"]


@dataclass(frozen=True)
class Entrant:
    """A recipe that is compared, an attack in latents or on pixels, at each of its ``strengths``."""

    name: str
    recipe: Recipe | BaselineRecipe
    strengths: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class ComparisonSettings(Inputs):
    """Settings of a comparison: as for a single attack, but with several ``entrants``.

    ``out`` is the comparison folder. ``masks`` go to the recipes that ask for them.
    """

    judges: tuple[str, ...]
    entrants: tuple[Entrant, ...]
    out: Path
    min_clean_accuracy: float = LEAST


@dataclass(frozen=True)
class Compared:
    """The finished runs: recipe -> strength -> run, in the order that was asked for. ``remarks`` as ``evaluate_run``'s,
    each once."""

    runs: Mapping[str, Mapping[float, Store]]
    judges: tuple[str, ...]
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class _Arm:
    name: str
    strength: float
    attack: PreparedRun
    folder: Path


def compare_recipes(
    settings: ComparisonSettings, telemetry: Telemetry | None = None, *, retry_failed: bool = False
) -> Compared:
    """Run, or continue, the attacks that ``settings`` ask for, and judge those that are not judged yet.

    All input is loaded and checked before anything is written. A comparison may grow by recipes, strengths and judges;
    what its folder holds already has to be asked for again, the same in everything. Images that failed stay failed
    unless ``retry_failed``.
    """
    _check_settings(settings)
    arms = _prepare(settings)
    judges = _load_judges(settings, arms[0].attack.worker.classifiers, arms[0].attack.plan.examples)
    _claim(settings.out, arms)
    runs: dict[str, dict[float, Store]] = {}
    remarks: dict[str, None] = {}
    for arm in arms:
        store = attack_prepared(
            arm.attack, arm.folder, telemetry, RunOptions(name=arm.folder.name, retry_failed=retry_failed)
        )
        missing = _not_asked_yet(store, judges)
        if missing:
            found = evaluate_run(store, missing, min_clean_accuracy=settings.min_clean_accuracy)
            remarks |= dict.fromkeys(found)
        runs.setdefault(arm.name, {})[arm.strength] = store
    return Compared(runs, tuple(judge.name for judge in judges), tuple(remarks))


def read_entrants(sources: Sequence[str], strengths: Sequence[float]) -> tuple[Entrant, ...]:
    """Presets, baselines and recipe files, each ``SOURCE`` or ``SOURCE@STRENGTH,…``, named without the file's ending.

    Those without strengths of their own are compared at ``strengths``.
    """
    entrants: dict[str, Entrant] = {}
    for given in sources:
        source, own = _split(given)
        name = Path(source).name.removesuffix(".toml")
        if name in entrants:
            raise UserError(f"`recipes`, {given}: two recipes are called {name}; give it once, or rename a file")
        entrants[name] = Entrant(name, load_recipe(source), own or tuple(strengths))
    return tuple(entrants.values())


def _split(given: str) -> tuple[str, tuple[float, ...]]:
    source, _, listed = given.rpartition("@")
    try:
        return source or given, tuple(float(each) for each in listed.split(",")) if source else ()
    except ValueError:
        # An @ of the file's own name.
        return given, ()


def _check_settings(settings: ComparisonSettings) -> None:
    check_surrogates(settings.surrogates)
    if not settings.judges:
        raise UserError("no classifier judges; give at least one in `judges`, such as timm:vit_base_patch16_224")
    if not settings.entrants:
        raise UserError("no recipe to compare; give at least one in `recipes`, such as fast or mifgsm")
    for entrant in settings.entrants:
        if not entrant.strengths:
            raise UserError("no strength to attack with; give at least one in `strengths`, such as 1")
        for strength in entrant.strengths:
            if not 0.001 <= strength <= 1000:
                given = f"`strengths` of {entrant.name}: {strength:g}"
                raise UserError(f"{given}; it must lie between 0.001 and 1000, and 1 changes nothing")
        _once(f"`strengths` of {entrant.name}", [f"{each:g}" for each in entrant.strengths])
    _once("`judges`", settings.judges)
    tuned_on = {name for entrant in settings.entrants for name in entrant.recipe.tuned_on}
    check_judges(settings.judges, {*settings.surrogates, *tuned_on}, UserError)


def _once(what: str, given: Sequence[str]) -> None:
    twice = [each for each in given if given.count(each) > 1]
    if twice:
        raise UserError(f"{what}: {twice[0]} is given twice; give it once")


def _prepare(settings: ComparisonSettings) -> list[_Arm]:
    """Load what all runs share once, and check every recipe against it."""
    wanted = {entrant.name: wants_masks(entrant.recipe) for entrant in settings.entrants}
    # Masks are part of what an image is: runs with and without them share no items.
    shared: dict[bool, PreparedRun] = {}
    inversions = settings.cache or settings.out / "inversions"
    # An attack on latents comes first, since the pipeline is measured for no other one.
    for entrant in sorted(settings.entrants, key=lambda each: isinstance(each.recipe, BaselineRecipe)):
        name, recipe = entrant.name, entrant.recipe
        if wanted[name] in shared:
            _check_recipe(name, recipe, shared[wanted[name]])
            continue
        masks = settings.masks if wanted[name] or not any(wanted.values()) else None
        alone = settings_with(settings, recipe, settings.out)
        shared[wanted[name]] = prepare_run(replace(alone, masks=masks, cache=inversions))
    return [
        _Arm(
            entrant.name,
            strength,
            shared[wanted[entrant.name]].with_recipe(_scaled(entrant, strength)),
            settings.out / "runs" / f"{entrant.name}@{strength:g}",
        )
        for entrant in settings.entrants
        for strength in entrant.strengths
    ]


def _scaled(entrant: Entrant, strength: float) -> Recipe | BaselineRecipe:
    try:
        return at_strength(entrant.recipe, strength)
    except UserError as error:
        raise UserError(f"strength {strength:g} is too much for {entrant.name}: {error}") from None


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
    """Make ``folder`` hold the runs of ``arms``, none of them begun or all as they are; else a ``RunError``."""
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


def _not_asked_yet(store: Store, judges: Sequence[Classifier]) -> list[Classifier]:
    """Those of ``judges`` whose verdicts on the finished run are not there; all of them where its quality is not."""
    images = {row.id for row in store.table(ResultRow)}
    if not images <= {row.id for row in store.table(QualityRow)}:
        return list(judges)
    seen = {(row.classifier, row.id) for row in store.table(VerdictRow) if row.role in ("judge", "defended")}
    return [judge for judge in judges if not {(judge.name, each) for each in images} <= seen]
