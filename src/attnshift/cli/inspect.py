"""`attnshift inspect`: which terms point where unseen classifiers are weak."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from attnshift.cli import completion
from attnshift.cli.options import (
    PIPELINE,
    AttackOptions,
    Changes,
    ImageOptions,
    OutputOptions,
    Preset,
    WorkOptions,
    check_share,
    expand_options,
)
from attnshift.cli.printing import Quiet, print_json, print_remark

__all__ = ["inspect"]


@expand_options
def inspect(
    *,
    pipeline: Annotated[str, typer.Argument(help=PIPELINE, autocompletion=completion.pipelines)],
    inputs: ImageOptions,
    out: Annotated[Path, typer.Option(help="Inspection folder; the same command continues.")],
    tuning: Annotated[
        tuple[str, ...],
        typer.Option(
            help="Unseen classifier whose descent is the measure, never a judge; repeat for several.",
            autocompletion=completion.classifiers,
        ),
    ] = (),
    reference: Annotated[
        str,
        typer.Option(
            help="Classifier without another role, whose Grad-CAM says where the object is.",
            autocompletion=completion.classifiers,
        ),
    ] = "",
    preset: Preset = "fast",
    changes: Changes = (),
    terms: Annotated[
        tuple[str, ...],
        typer.Option(
            "--term",
            metavar="NAME[,KEY=VALUE]",
            help="Term to measure, in place of all; repeat for several.",
            autocompletion=completion.terms,
        ),
    ] = (),
    heads: Annotated[bool, typer.Option("--heads", help="Measure each head alone as well.")] = False,
    at: Annotated[
        tuple[float, ...], typer.Option(help="Share of the attack's iterations; repeat for several points of the path.")
    ] = (0.0, 1 / 3, 1.0),
    top: Annotated[int, typer.Option(help="Rows of the printed table of terms; 0 prints all.")] = 30,
    work: WorkOptions,
    output: OutputOptions,
    quiet: Quiet = False,
) -> None:
    """Measure where terms and class words look: alignment with unseen classifiers' descent, term by
    term, site by site."""
    for share in at:
        check_share("at", share)
    if top < 0:
        from attnshift.errors import UserError

        raise UserError(f"`top` is {top}; give the number of rows, or 0 for all")
    from attnshift.execution.early import check_early, check_names
    from attnshift.recipes.reading import load_latent_recipe

    given = AttackOptions(**vars(inputs), **vars(work), pipeline=pipeline)
    check_early(given, tuning)
    check_names([reference] if reference else [])
    recipe = load_latent_recipe(preset, changes)
    from attnshift.studies.inspection import InspectionSettings, inspect_attack

    settings = InspectionSettings(
        **vars(given),
        recipe=recipe,
        out=out,
        tuning=tuning,
        reference=reference,
        terms=terms,
        at=at,
        heads=heads,
    )
    console = Console(stderr=True)

    def done(images: int, total: int) -> None:
        if not quiet:
            console.print(f"{images}/{total} images", markup=False, highlight=False)

    inspected = inspect_attack(settings, done)
    from attnshift.report.inspection import summarise_inspection
    from attnshift.report.inspection_page import inspection_data, inspection_tables, write_inspection
    from attnshift.report.tables import write_tables

    summary = summarise_inspection(inspected.store)
    path = write_inspection(inspected.store.folder, summary)
    if output.as_json:
        print_json(inspection_data(summary))
    else:
        print(write_tables(inspection_tables(summary, top), output.table or "markdown"))
    for line in (*inspected.remarks, f"wrote {path}"):
        print_remark(line)
