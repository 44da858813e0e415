"""`attnshift attack`: attack images, or continue."""

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
    AttackOptions,
    BudgetOption,
    Changes,
    Preset,
    RetryFailed,
    TelemetryOptions,
    expand_options,
)
from attnshift.cli.printing import print_message
from attnshift.cli.tolerance import MaxFailed, Tolerance
from attnshift.errors import UserError
from attnshift.terminal import plural

if TYPE_CHECKING:
    from attnshift.execution.coordinate import MakeEngine
    from attnshift.results.plan import Shard

__all__ = ["attack"]


@expand_options
def attack(
    *,
    out: Annotated[Path, typer.Option(help="Run folder; the same command continues an interrupted run.")],
    preset: Preset = "fast",
    budget: BudgetOption = "",
    changes: Changes = (),
    inputs: AttackOptions,
    cache: Annotated[
        Path | None, typer.Option(help="Folder that keeps inversions for other runs on the same images.")
    ] = None,
    retry_failed: RetryFailed = False,
    max_failed: MaxFailed = "0",
    shard: Annotated[str, typer.Option(metavar="I/N", help="Only part I, from 1, of N that share a folder.")] = "",
    engine: Annotated[str, typer.Option(help="local, or ray for workers on many cores, GPUs and machines.")] = "local",
    address: Annotated[str | None, typer.Option(help="Of a Ray cluster; default: one here, for the run.")] = None,
    workers: Annotated[int, typer.Option(help="Ray workers; default: as many as there is room for.")] = 0,
    memory_limit: Annotated[
        float, typer.Option(metavar="GB", help="CPU memory beyond which a micro-batch is halved; 0 sets no limit.")
    ] = 0,
    telemetry: TelemetryOptions,
    profile: Annotated[bool, typer.Option("--profile", help="Show where the time went, on standard error.")] = False,
) -> None:
    """Attack images, or continue a run.

    The exit status is 1 if more than --max-failed images failed; `status` says why.
    """
    from attnshift.execution.early import check_early
    from attnshift.recipes.reading import load_recipe
    from attnshift.recipes.schema import BaselineRecipe
    from attnshift.recipes.strength import parse_budget, within_budget

    recipe = load_recipe(preset, changes)
    if budget:
        recipe = within_budget(recipe, parse_budget(budget))
    if profile and isinstance(recipe, BaselineRecipe):
        raise UserError(f"`profile` shows the parts of an attack on latents; {recipe.name} is a baseline")
    if profile and engine != "local":
        raise UserError("`profile` looks at this process; leave `engine` out")
    check_early(inputs)
    part, tolerated = _shard(shard), Tolerance.read(max_failed)
    if memory_limit:
        from attnshift.execution.memory import limit_memory

        limit_memory(memory_limit)
    from attnshift.execution.coordinate import RunOptions, attack_folder
    from attnshift.execution.settings import AttackSettings
    from attnshift.results.rows import FailedRow
    from attnshift.telemetry import open_telemetry

    settings = AttackSettings(**vars(inputs), cache=cache, recipe=recipe, out=out)
    options = RunOptions(engine=_engine(engine, address, workers, cache), shard=part, retry_failed=retry_failed)
    console = Console(stderr=True)
    with (
        _profiled(console) if profile else nullcontext(),
        open_telemetry(**telemetry.places(), terminal=sys.stdout.isatty(), stream=sys.stdout) as consumers,
    ):
        store = attack_folder(settings, consumers, options)
    failed = len(store.table(FailedRow))
    if failed:
        counts = failed, store.planned()
        them = "it" if failed == 1 else "them"
        what = f"{plural(failed, 'image')} failed{tolerated.line(*counts)}"
        print_message(f"{what}; attnshift status {out} says why, `retry_failed` tries {them} again")
        if tolerated.exceeded(*counts):
            raise typer.Exit(1)
    console.print(f"next: attnshift evaluate {out} --judge SOURCE:NAME, then attnshift report {out}", markup=False)


def _shard(given: str) -> Shard:
    from attnshift.results.plan import WHOLE, Shard

    if not given:
        return WHOLE
    index, _, count = given.partition("/")
    if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise UserError(f"`shard` is {given}; expected I/N with 1 <= I <= N, such as 3/8")
    return Shard(int(index) - 1, int(count))


def _engine(name: str, address: str | None, workers: int, cache: Path | None) -> MakeEngine | None:
    if name == "ray":
        from attnshift.execution.engines.ray_engine import RayEngine

        return partial(RayEngine, address=address, workers=workers, cache=cache)
    if name != "local":
        raise UserError(f"`engine` is {name}; known are local and ray")
    if address is not None or workers:
        raise UserError("`address` and `workers` belong to Ray; set `engine` to ray, or leave them out")
    return None


@contextmanager
def _profiled(console: Console) -> Iterator[None]:
    """Print on ``console`` the time that each part of the block took, once the block has ended."""
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
