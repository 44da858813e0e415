"""`attnshift tune`: the search for better numbers of a recipe."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from attnshift.cli import completion
from attnshift.cli.options import AsJson, AttackOptions, Changes, expand_options
from attnshift.cli.printing import Quiet, print_json, print_next

if TYPE_CHECKING:
    from attnshift.studies.tuning import Trial, Tuned

__all__ = ["tune"]


@expand_options
def tune(
    *,
    search: Annotated[Path, typer.Option(help="TOML file with the search space: keys of a recipe, as in --set.")],
    out: Annotated[Path, typer.Option(help="Study folder; the same command continues an interrupted study.")],
    tuning: Annotated[
        tuple[str, ...],
        typer.Option(
            help="Classifier that decides, as source:name or defence+source:name, never a judge; repeat for several.",
            autocompletion=completion.classifiers,
        ),
    ] = (),
    preset: Annotated[
        str, typer.Option(help="Preset, or a recipe file, to start from.", autocompletion=completion.recipes)
    ] = "fast",
    changes: Changes = (),
    trials: Annotated[int, typer.Option(help="How many recipes are tried, those of an earlier call included.")] = 50,
    floor: Annotated[float, typer.Option(help="SSIM to the clean image from which on an image counts.")] = 0.9,
    seed: Annotated[int, typer.Option(help="Seed of the search.")] = 0,
    inputs: AttackOptions,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Search better numbers for a recipe, judged by tuning classifiers alone; writes OUT/best.toml.

    Tune on images that are not evaluated later.
    """
    from attnshift.execution.early import check_early
    from attnshift.recipes.reading import load_latent_recipe

    check_early(inputs, tuning)
    load_latent_recipe(preset, changes)
    from attnshift.studies.tuning import TuningSettings, read_search, tune_recipe

    console = Console(stderr=as_json)

    def done(number: int, total: int, score: float | None, best: float | None) -> None:
        result = "failed" if score is None else f"score {score:.4f}"
        rest = "" if best is None else f", best {best:.4f}"
        if not quiet:
            console.print(f"{number + 1}/{total}: {result}{rest}", markup=False, highlight=False, soft_wrap=True)

    settings = TuningSettings(
        **vars(inputs),
        tuning=tuning,
        search=read_search(search),
        out=out,
        preset=preset,
        changes=changes,
        trials=trials,
        floor=floor,
        seed=seed,
    )
    tuned = tune_recipe(settings, done)
    if as_json:
        print_json(_data(tuned))
        return
    for name, trial in (("preset", tuned.preset), (f"best, trial {tuned.best.number + 1}", tuned.best)):
        console.print(f"{name}: {_measured(trial, floor)}", markup=False, highlight=False, soft_wrap=True)
    print_next(f"attnshift attack … --preset {tuned.recipe}")


def _data(tuned: Tuned) -> dict[str, Any]:
    preset = None if tuned.preset is None else asdict(tuned.preset)
    return {
        "trials": [asdict(trial) for trial in tuned.trials],
        "best": asdict(tuned.best),
        "preset": preset,
        "recipe": str(tuned.recipe),
    }


def _measured(trial: Trial | None, floor: float) -> str:
    if trial is None or trial.grade is None:
        return "not measured, it failed or lies outside the search space"
    grade = trial.grade
    return (
        f"succeeds on {grade.success:.1%} of all images, {grade.success_with_floor:.1%} "
        f"at SSIM {floor} or more; mean SSIM {grade.ssim:.3f}, {trial.seconds:.1f} s"
    )
