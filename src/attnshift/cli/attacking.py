"""Attacks, and the search for a better recipe."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from attnshift.cli.options import (
    Cache,
    Changes,
    Device,
    Images,
    Labels,
    Limit,
    Log,
    Masks,
    Mlflow,
    Pipeline,
    Precision,
    RetryFailed,
    Size,
    Surrogates,
    Target,
    Tensorboard,
)
from attnshift.errors import UserError
from attnshift.terminal import print_error

if TYPE_CHECKING:
    from attnshift.execution.coordinate import MakeEngine
    from attnshift.results.plan import Shard

__all__ = ["attack", "tune", "validate"]


def attack(
    images: Images,
    out: Annotated[Path, typer.Option(help="Run folder; the same command continues an interrupted run.")],
    labels: Labels = None,
    pipeline: Pipeline = "lab",
    surrogate: Surrogates = [],  # noqa: B006
    preset: Annotated[str, typer.Option(help="Preset, baseline (pgd, mifgsm, …) or recipe file.")] = "fast",
    set_: Changes = [],  # noqa: B006
    size: Size = 0,
    batch: Annotated[int, typer.Option(help="Images attacked together; part of the run's identity.")] = 0,
    limit: Limit = 0,
    device: Device = "cpu",
    precision: Precision = "float32",
    threads: Annotated[int, typer.Option(help="CPU threads; part of the run's identity.")] = 0,
    masks: Masks = None,
    target: Target = None,
    cache: Cache = None,
    retry_failed: RetryFailed = False,
    shard: Annotated[str, typer.Option(metavar="I/N", help="Only part I, from 1, of N that share a folder.")] = "",
    engine: Annotated[str, typer.Option(help="local, or ray for workers on many cores, GPUs and machines.")] = "local",
    address: Annotated[str | None, typer.Option(help="Of a Ray cluster; default: one here, for the run.")] = None,
    workers: Annotated[int, typer.Option(help="Ray workers; default: as many as there is room for.")] = 0,
    memory_limit: Annotated[
        float, typer.Option(metavar="GB", help="CPU memory beyond which a micro-batch is halved; 0 sets no limit.")
    ] = 0,
    log: Log = None,
    tensorboard: Tensorboard = None,
    mlflow: Mlflow = None,
    profile: Annotated[bool, typer.Option("--profile", help="Show where the time went, on standard error.")] = False,
) -> None:
    """Attack images, or continue; exit status 1 where some of them failed (`status` says why)."""
    from attnshift.recipes.reading import load_recipe
    from attnshift.recipes.schema import BaselineRecipe

    recipe = load_recipe(preset, set_)
    if profile and isinstance(recipe, BaselineRecipe):
        raise UserError(f"--profile shows the parts of an attack on latents; {recipe.name} attacks pixels")
    if profile and engine != "local":
        raise UserError("--profile looks at this process; leave --engine out")
    part = _shard(shard)
    if memory_limit:
        from attnshift.execution.memory import limit_memory

        limit_memory(memory_limit)
    from attnshift.execution.coordinate import RunOptions, Settings, attack_folder
    from attnshift.telemetry import open_telemetry

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
        precision,
        cache,
        recipe=recipe,
        out=out,
    )
    manner = RunOptions(_engine(engine, address, workers, cache), part, retry_failed)
    console = Console(stderr=True)
    with (
        _profiled(console) if profile else nullcontext(),
        open_telemetry(log, tensorboard, mlflow, sys.stdout.isatty(), sys.stdout) as telemetry,
    ):
        store = attack_folder(settings, telemetry, manner)
    failed = len(store.table("failed"))
    if failed:
        print_error(f"{failed} images failed; attnshift status {out} says why, --retry-failed tries them again")
        raise typer.Exit(1)
    console.print(f"next: attnshift evaluate {out} --judge SOURCE:NAME, then attnshift report {out}", markup=False)


def validate(
    images: Images,
    labels: Labels = None,
    pipeline: Pipeline = "lab",
    surrogate: Surrogates = [],  # noqa: B006
    preset: Annotated[str, typer.Option(help="Preset, baseline (pgd, mifgsm, …) or recipe file.")] = "fast",
    set_: Changes = [],  # noqa: B006
    size: Size = 0,
    limit: Limit = 0,
    device: Device = "cpu",
    precision: Precision = "float32",
    masks: Masks = None,
    target: Target = None,
) -> None:
    """Find everything in an attack's input that could stop it or make images fail, without attacking."""
    from attnshift.recipes.reading import load_recipe

    recipe = load_recipe(preset, set_)
    from attnshift.execution.validate import Settings
    from attnshift.execution.validate import validate as run

    complaints: list[UserError] = []

    def complain(error: UserError) -> None:
        complaints.append(error)
        print_error(error)

    inputs = (images, labels, pipeline, tuple(surrogate), size, 0, limit, device, 0, masks, target, precision)
    usable = run(Settings(*inputs, recipe=recipe, out=Path()), complain)
    print(f"{usable} images can be attacked, {len(complaints)} complaints")
    if complaints:
        raise typer.Exit(2)


def _shard(given: str) -> Shard:
    from attnshift.results.plan import WHOLE, Shard

    if not given:
        return WHOLE
    index, _, count = given.partition("/")
    if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise UserError(f"--shard {given}: expected I/N with 1 <= I <= N, as in --shard 3/8")
    return Shard(int(index) - 1, int(count))


def _engine(name: str, address: str | None, workers: int, cache: Path | None) -> MakeEngine | None:
    if name == "ray":
        from attnshift.execution.engines.ray_engine import RayEngine

        return partial(RayEngine, address=address, workers=workers, cache=cache)
    if name != "local":
        raise UserError(f"--engine {name}: known are local and ray")
    if address is not None or workers:
        raise UserError("--address and --workers are Ray's; give --engine ray, or leave them out")
    return None


@contextmanager
def _profiled(console: Console) -> Iterator[None]:
    """Show on ``console`` where the time of what is inside went, once it has ended."""
    from rich.table import Column, Table

    from attnshift.profiling import ITERATIONS, profiled

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
    images: Annotated[str, typer.Argument(help="Images as for attack; not those that are evaluated later.")],
    search: Annotated[Path, typer.Option(help="TOML file with the search space: keys of a recipe, as in --set.")],
    out: Annotated[Path, typer.Option(help="Study folder; the same command continues an interrupted study.")],
    labels: Labels = None,
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
    from attnshift.studies.tuning import Settings, read_search
    from attnshift.studies.tuning import tune as run

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
