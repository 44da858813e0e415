"""`attnshift attack`: attack images, or continue."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from attnshift.cli.completion import one_of
from attnshift.cli.follow_up import FollowUp, check_follow_up
from attnshift.cli.options import (
    AfterOptions,
    AttackOptions,
    BudgetOption,
    Changes,
    Preset,
    RetryFailed,
    TelemetryOptions,
    expand_options,
)
from attnshift.cli.printing import Quiet, plain_console, print_message, print_next
from attnshift.cli.tolerance import MaxFailed, Tolerance
from attnshift.errors import UserError
from attnshift.terminal import plural

if TYPE_CHECKING:
    from attnshift.execution.coordinate import MakeEngine
    from attnshift.results.plan import Shard
    from attnshift.results.store import Store

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
    engine: Annotated[
        str,
        typer.Option(
            help="local, or ray for workers on many cores, GPUs and machines.", autocompletion=one_of("local", "ray")
        ),
    ] = "local",
    address: Annotated[str | None, typer.Option(help="Of a Ray cluster; default: one here, for the run.")] = None,
    workers: Annotated[int, typer.Option(help="Ray workers; default: as many as there is room for.")] = 0,
    memory_limit: Annotated[
        float, typer.Option(metavar="GB", help="CPU memory beyond which a micro-batch is halved; 0 sets no limit.")
    ] = 0,
    telemetry: TelemetryOptions,
    profile: Annotated[bool, typer.Option("--profile", help="Show where the time went, on standard error.")] = False,
    after: AfterOptions,
    quiet: Quiet = False,
) -> None:
    """Attack images, or continue a run; with --judge and --report also judge it and write the
    report.

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
    check_early(inputs, (*after.judges, *filter(None, [after.reference])))
    check_follow_up(after, (*inputs.surrogates, *recipe.tuned_on))
    part, tolerated = _shard(shard), Tolerance.read(max_failed)
    if memory_limit:
        from attnshift.execution.memory import limit_memory

        limit_memory(memory_limit)
    from attnshift.execution.coordinate import RunOptions, attack_folder
    from attnshift.execution.settings import AttackSettings
    from attnshift.telemetry import open_telemetry

    settings = AttackSettings(**vars(inputs), cache=cache, recipe=recipe, out=out)
    options = RunOptions(engine=_engine(engine, address, workers, cache), shard=part, retry_failed=retry_failed)
    with telemetry.places() as places:
        follow_up = FollowUp.load(after, inputs.pipeline)
        with (
            _profiled() if profile else nullcontext(),
            open_telemetry(**places, terminal=sys.stdout.isatty(), stream=sys.stdout, quiet=quiet) as consumers,
        ):
            store = attack_folder(settings, consumers, options)
        if quiet and not (after.judged or after.report):
            print(out)
        status = max(_status(store, tolerated), follow_up(store))
    if status:
        raise typer.Exit(status)
    _say_what_is_next(out, after)


def _status(store: Store, tolerated: Tolerance) -> int:
    """Exit status of an attack, 1 where more images failed than are ``tolerated``;
    failures are told."""
    from attnshift.results.rows import FailedRow

    failed = len(store.table(FailedRow))
    if not failed:
        return 0
    counts = failed, store.planned()
    them = "it" if failed == 1 else "them"
    what = f"{plural(failed, 'image')} failed{tolerated.line(*counts)}"
    print_message(f"{what}; attnshift status {store.folder} says why, `retry_failed` tries {them} again")
    return int(tolerated.exceeded(*counts))


def _say_what_is_next(out: Path, done: AfterOptions) -> None:
    steps = [] if done.judged else [f"attnshift evaluate {out} --judge SOURCE:NAME"]
    steps += [] if done.report else [f"attnshift report {out}"]
    if steps:
        print_next(", then ".join(steps))


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
def _profiled() -> Iterator[None]:
    """Print on standard error the time that each part of the block took, once the block has
    ended."""
    from rich.table import Column, Table

    from attnshift.profiling import ITERATIONS, profiled

    with profiled() as profile:
        yield
    table = Table("where the time went", Column("seconds", justify="right"), Column("share", justify="right"))
    rows = [(f"iterations: {name}" if name in ITERATIONS else name, each) for name, each in profile.seconds.items()]
    for name, seconds in (*rows, ("whole", profile.whole)):
        table.add_row(name, f"{seconds:.2f}", f"{seconds / profile.whole:.1%}")
    console = plain_console(stderr=True)
    console.print(table)
    if profile.iterations:
        share = profile.seconds["bookkeeping"] / profile.iterations
        console.print(f"bookkeeping is {share:.1%} of the iterations", highlight=False)
