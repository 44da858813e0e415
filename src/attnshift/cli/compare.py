"""`attnshift compare`: several recipes on the same images, each at several strengths."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from attnshift.cli import completion
from attnshift.cli.options import (
    AttackOptions,
    CompareOptions,
    OutputOptions,
    TelemetryOptions,
    check_share,
    expand_options,
)
from attnshift.cli.printing import Quiet, print_json, print_message, print_remark
from attnshift.cli.tolerance import Tolerance

if TYPE_CHECKING:
    from attnshift.report.budgets import BudgetComparison
    from attnshift.report.curves import Comparison
    from attnshift.studies.comparison import Compared

__all__ = ["compare", "compare_and_print"]


@expand_options
def compare(
    *,
    out: Annotated[Path, typer.Option(help="Comparison folder; the same command continues, more recipes extend it.")],
    recipes: Annotated[
        tuple[str, ...],
        typer.Option(
            "--recipe",
            help="Preset, baseline (pgd, mifgsm, …) or recipe file, with strengths of its own as in fast@0.5,1, else "
            "with those of --strength; repeat for several, the first is the reference.",
            autocompletion=completion.recipes,
        ),
    ] = (),
    options: CompareOptions,
    inputs: AttackOptions,
    telemetry: TelemetryOptions,
    output: OutputOptions,
    quiet: Quiet = False,
) -> None:
    """Compare recipes on one set of images at several strengths: success at equal naturalness.

    The exit status is 1 where more than --max-failed images failed.
    """
    compare_and_print(recipes, inputs, out, options, telemetry, output, quiet)


def compare_and_print(
    recipes: Sequence[str],
    inputs: AttackOptions,
    out: Path,
    options: CompareOptions,
    telemetry: TelemetryOptions,
    output: OutputOptions,
    quiet: bool,
) -> None:
    """Compare ``recipes``, write the page and print its tables,
    as Markdown unless ``output`` says otherwise."""
    check_share("min_clean_accuracy", options.min_clean_accuracy)
    for each in options.at:
        check_share("at", each)
    tolerated = Tolerance.read(options.max_failed)
    from attnshift.execution.early import check_early
    from attnshift.studies.entrants import STRENGTHS, check_asked, read_entrants

    check_early(inputs, (*options.judges, *filter(None, [options.reference])))
    entrants = read_entrants(
        recipes,
        options.strengths or STRENGTHS,
        options.budgets,
        options.seeds,
        options.adaptive,
        options.changes,
        options.sweeps,
    )
    check_asked(inputs.surrogates, options.judges, entrants)
    from attnshift.studies.comparison import ComparisonSettings, compare_recipes
    from attnshift.telemetry import open_telemetry

    settings = ComparisonSettings(
        **vars(inputs),
        judges=options.judges,
        entrants=entrants,
        out=out,
        min_clean_accuracy=options.min_clean_accuracy,
        reference=options.reference,
    )
    with telemetry.places() as places:
        # The table alone on standard output, so that it can go into a file.
        with open_telemetry(**places, terminal=sys.stderr.isatty(), stream=sys.stderr, quiet=quiet) as consumers:
            compared = compare_recipes(settings, consumers, retry_failed=options.retry_failed)
        _write_and_print(compared, out, options, output, tolerated)


def _write_and_print(
    compared: Compared, out: Path, options: CompareOptions, output: OutputOptions, tolerated: Tolerance
) -> None:
    """Write the page of what was ``compared`` and print its tables; ends the command with status 1
    where more images failed than are ``tolerated``."""
    from attnshift.report.tables import write_tables

    comparison: BudgetComparison | Comparison
    if options.budgets:
        from attnshift.report.budget_page import budget_data, budget_tables, write_budgets
        from attnshift.report.budgets import measure_budgets

        comparison = measure_budgets(compared.runs_by_budget, compared.judges)
        path = write_budgets(out, comparison)
        data, tables = partial(budget_data, out, comparison), partial(budget_tables, comparison)
    else:
        from attnshift.report.curve_page import comparison_data, comparison_tables, write_comparison
        from attnshift.report.curves import measure_comparison

        comparison = measure_comparison(compared.runs, compared.judges, options.at)
        path = write_comparison(out, comparison)
        data, tables = partial(comparison_data, out, comparison), partial(comparison_tables, comparison)
    if output.as_json:
        print_json(data())
    else:
        print(write_tables(tables(), output.table or "markdown"))
    for remark in (*compared.remarks, f"wrote {path} and {path.with_suffix('.json')}"):
        print_remark(remark)
    if comparison.missing:
        counts = comparison.planned - comparison.images, comparison.planned
        what = f"{comparison.missing}{tolerated.line(*counts)}"
        print_message(f"{what}; {path} says why, `retry_failed` tries them again")
        if tolerated.exceeded(*counts):
            raise typer.Exit(1)
