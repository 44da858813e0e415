"""Verdicts on a finished run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from attnshift.cli.options import Judges, MinCleanAccuracy, check_share
from attnshift.cli.showing import print_summary

__all__ = ["evaluate"]


def evaluate(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    judge: Judges = [],  # noqa: B006
    tuning: Annotated[list[str], typer.Option(help="Classifier that was used to tune; reported apart.")] = [],  # noqa: B006
    min_clean_accuracy: MinCleanAccuracy = 0.25,
) -> None:
    """Judge the saved 8-bit images of a run, by its surrogates and by held-out classifiers."""
    check_share("--min-clean-accuracy", min_clean_accuracy)
    from attnshift.runs.evaluation import evaluate_run
    from attnshift.runs.store import Store

    store = Store.open(run)
    remarks = evaluate_run(store, judge, tuning, min_clean_accuracy=min_clean_accuracy)
    print_summary(store)
    for remark in remarks:
        print(f"attnshift: {remark}", file=sys.stderr)
