"""Attacks, and the search for a better recipe."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from attnshift.cli.options import Changes, Device, Labels, Limit, Masks, Pipeline, Size, Surrogates, Target
from attnshift.cli.showing import images_done
from attnshift.errors import UserError

__all__ = ["attack", "tune"]


def attack(
    images: Annotated[Path, typer.Argument(help="Folder of images.")],
    labels: Labels,
    out: Annotated[Path, typer.Option(help="Run folder; the same command continues an interrupted run.")],
    pipeline: Pipeline = "lab",
    surrogate: Surrogates = [],  # noqa: B006
    preset: Annotated[str, typer.Option(help="Preset, peer (pgd, mifgsm, …) or recipe file.")] = "fast",
    set_: Changes = [],  # noqa: B006
    size: Size = 0,
    batch: Annotated[int, typer.Option(help="Images attacked together; part of the run's identity.")] = 0,
    limit: Limit = 0,
    device: Device = "cpu",
    threads: Annotated[int, typer.Option(help="CPU threads; part of the run's identity.")] = 0,
    masks: Masks = None,
    target: Target = None,
    profile: Annotated[bool, typer.Option("--profile", help="Show where the time went, on standard error.")] = False,
) -> None:
    """Attack a folder of images."""
    from attnshift.peers.recipe import PeerRecipe, load_recipe

    recipe = load_recipe(preset, set_)
    if profile and isinstance(recipe, PeerRecipe):
        raise UserError(f"--profile shows the parts of an attack on latents; {recipe.name} attacks pixels")
    from attnshift.runs.local import Settings, attack_folder

    inputs = (images, labels, pipeline, tuple(surrogate), size, batch, limit, device, threads, masks, target)
    settings = Settings(*inputs, recipe=recipe, out=out)
    console = Console(stderr=True)
    with _profiled(console) if profile else nullcontext(), images_done(Console()) as done:
        attack_folder(settings, done)
    console.print(f"next: attnshift evaluate {out} --judge SOURCE:NAME, then attnshift report {out}", markup=False)


@contextmanager
def _profiled(console: Console) -> Iterator[None]:
    """Show on ``console`` where the time of what is inside went, once it has ended."""
    from rich.table import Column, Table

    from attnshift.attack.profile import ITERATIONS, profiled

    with profiled() as profile:
        yield
    table = Table("where the time went", Column("seconds", justify="right"), Column("share", justify="right"))
    rows = [(f"iterations: {name}" if name in ITERATIONS else name, each) for name, each in profile.seconds.items()]
    for name, seconds in (*rows, ("whole", profile.whole)):
        table.add_row(name, f"{seconds:.2f}", f"{seconds / profile.whole:.1%}")
    console.print(table)
    if profile.iterations:
        share = profile.seconds["bookkeeping"] / profile.iterations
        console.print(f"bookkeeping is {share:.1%} of the iterations", highlight=False)


def tune(
    images: Annotated[Path, typer.Argument(help="Folder of images; not those that are evaluated later.")],
    labels: Labels,
    search: Annotated[Path, typer.Option(help="TOML file with the search space: keys of a recipe, as in --set.")],
    out: Annotated[Path, typer.Option(help="Study folder; the same command continues an interrupted study.")],
    pipeline: Pipeline = "lab",
    surrogate: Surrogates = [],  # noqa: B006
    tuning: Annotated[
        list[str],
        typer.Option(
            help="Classifier that decides, as source:name or defence+source:name, never a judge; repeat for several."
        ),
    ] = [],  # noqa: B006
    preset: Annotated[str, typer.Option(help="Preset, or a recipe file, to start from.")] = "fast",
    set_: Changes = [],  # noqa: B006
    trials: Annotated[int, typer.Option(help="How many recipes are tried, those of an earlier call included.")] = 50,
    floor: Annotated[float, typer.Option(help="SSIM to the clean image from which on an image counts.")] = 0.9,
    seed: Annotated[int, typer.Option(help="Seed of the search.")] = 0,
    size: Size = 0,
    batch: Annotated[int, typer.Option(help="Images attacked together; part of the study's identity.")] = 0,
    limit: Limit = 0,
    device: Device = "cpu",
    threads: Annotated[int, typer.Option(help="CPU threads; part of the study's identity.")] = 0,
    masks: Masks = None,
    target: Target = None,
) -> None:
    """Search better numbers for a recipe, judged by tuning classifiers alone; writes OUT/best.toml."""
    from attnshift.runs.tuning import Settings, read_search
    from attnshift.runs.tuning import tune as run

    console = Console()

    def done(number: int, total: int, score: float | None, best: float | None) -> None:
        result = "failed" if score is None else f"score {score:.4f}"
        rest = "" if best is None else f", best {best:.4f}"
        console.print(f"{number + 1}/{total}: {result}{rest}", markup=False, highlight=False, soft_wrap=True)

    settings = Settings(
        images,
        labels,
        pipeline,
        tuple(surrogate),
        size,
        batch,
        limit,
        device,
        threads,
        masks,
        target,
        tuning=tuple(tuning),
        search=read_search(search),
        out=out,
        preset=preset,
        changes=tuple(set_),
        trials=trials,
        floor=floor,
        seed=seed,
    )
    tuned = run(settings, done)
    for name, trial in (("preset", tuned.preset), (f"best, trial {tuned.best.number + 1}", tuned.best)):
        if trial is None or trial.grade is None:
            line = f"{name}: not measured, it failed or lies outside the search space"
        else:
            line = (
                f"{name}: succeeds on {trial.grade.success:.1%} of all images, {trial.grade.success_with_floor:.1%} "
                f"at SSIM {floor} or more; mean SSIM {trial.grade.ssim:.3f}, {trial.seconds:.1f} s"
            )
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    Console(stderr=True).print(f"next: attnshift attack … --preset {tuned.recipe}", markup=False, soft_wrap=True)
