"""`attnshift evaluate`: verdicts on a finished run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from attnshift.cli.completion import classifiers
from attnshift.cli.options import Judges, MinCleanAccuracy, OutputOptions, ReferenceName, check_share, expand_options
from attnshift.cli.printing import Quiet, print_figures, print_remark, print_summary
from attnshift.errors import UserError

__all__ = ["evaluate"]


@expand_options
def evaluate(
    *,
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    judges: Judges = (),
    tuning: Annotated[
        tuple[str, ...],
        typer.Option(help="Classifier that was used to tune; reported apart.", autocompletion=classifiers),
    ] = (),
    min_clean_accuracy: MinCleanAccuracy = 0.25,
    sets: Annotated[
        bool, typer.Option("--sets", help="Also compare each arm with the clean images as a set: FID, KID, CMMD.")
    ] = False,
    features: Annotated[
        str,
        typer.Option(
            metavar="SOURCE:NAME",
            help="Classifier by whose last features --sets compares; default: what each metric was published with.",
            autocompletion=classifiers,
        ),
    ] = "",
    reference: ReferenceName = "",
    masks: Annotated[
        Path | None,
        typer.Option(
            help="Folder with a mask of the object under each image's name; measures how visible it still is."
        ),
    ] = None,
    grad_cam: Annotated[
        str,
        typer.Option(
            metavar="SOURCE:NAME",
            help="Classifier of which the report shows the pixels that speak for the true class, before and after.",
        ),
    ] = "",
    output: OutputOptions,
    quiet: Quiet = False,
) -> None:
    """Judge the saved 8-bit images of a run, by its surrogates and by held-out classifiers."""
    check_share("min_clean_accuracy", min_clean_accuracy)
    if features and not sets:
        raise UserError(f"`features` is {features}, which is used with `sets` alone; add `sets`, or leave it out")
    from attnshift.execution.early import check_names
    from attnshift.results.store import Store

    store = Store.open(run)
    check_names([*judges, *tuning, *filter(None, (features, reference, grad_cam))])
    from attnshift.judging.grad_cam import measure_grad_cam
    from attnshift.judging.sets import evaluate_sets, features_of
    from attnshift.judging.verdicts import evaluate_run
    from attnshift.judging.visibility import measure_visibility
    from attnshift.results.rows import GradCamRow, VisibilityRow

    # Before anybody judges, since masks and networks can be missing.
    chosen = features_of(features) if features else None
    visibility = measure_visibility(store, masks) if masks else []
    maps = measure_grad_cam(store, grad_cam) if grad_cam else []
    remarks = evaluate_run(store, judges, tuning, min_clean_accuracy=min_clean_accuracy, reference=reference or None)
    if visibility:
        store.write_table(VisibilityRow, visibility)
    if maps:
        store.write_table(GradCamRow, maps)
    if sets:
        evaluate_sets(store, chosen)
    if not print_figures(store, output):
        print_summary(store)
    for remark in remarks:
        print_remark(remark)
