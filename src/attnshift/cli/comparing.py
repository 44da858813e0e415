"""Attacks at several strengths, of one recipe or of several on the same images."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from attnshift.cli.options import (
    At,
    Device,
    Images,
    Judges,
    Labels,
    Limit,
    Log,
    Masks,
    MinCleanAccuracy,
    Mlflow,
    Pipeline,
    Precision,
    RetryFailed,
    Size,
    Strengths,
    Surrogates,
    Target,
    Tensorboard,
    check_share,
)
from attnshift.terminal import print_error

__all__ = ["compare", "sweep"]


def compare(
    images: Images,
    out: Annotated[Path, typer.Option(help="Comparison folder; the same command continues, more recipes extend it.")],
    recipe: Annotated[
        list[str],
        typer.Option(
            help="Preset, baseline (pgd, mifgsm, …) or recipe file, with strengths of its own as in fast@0.5,1, else "
            "with those of --strength; repeat for several, the first is the reference."
        ),
    ] = [],  # noqa: B006
    labels: Labels = None,
    strength: Strengths = [0.5, 1.0, 2.0],  # noqa: B006
    at: At = [0.9, 0.95],  # noqa: B006
    pipeline: Pipeline = "lab",
    surrogate: Surrogates = [],  # noqa: B006
    judge: Judges = [],  # noqa: B006
    min_clean_accuracy: MinCleanAccuracy = 0.25,
    size: Size = 0,
    batch: Annotated[int, typer.Option(help="Images attacked together; part of each run's identity.")] = 0,
    limit: Limit = 0,
    device: Device = "cpu",
    precision: Precision = "float32",
    threads: Annotated[int, typer.Option(help="CPU threads; part of each run's identity.")] = 0,
    masks: Masks = None,
    target: Target = None,
    retry_failed: RetryFailed = False,
    log: Log = None,
    tensorboard: Tensorboard = None,
    mlflow: Mlflow = None,
) -> None:
    """Compare recipes on one set of images, each at several strengths: success where naturalness is equal.

    The exit status is 1 where images failed.
    """
    check_share("--min-clean-accuracy", min_clean_accuracy)
    for each in at:
        check_share("--at", each)
    from attnshift.studies.comparison import Settings, read_entrants
    from attnshift.studies.comparison import compare as run
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
        judges=tuple(judge),
        entrants=read_entrants(recipe, strength),
        out=out,
        min_clean_accuracy=min_clean_accuracy,
    )
    # The table alone on standard output, so that it can go into a file.
    with open_telemetry(log, tensorboard, mlflow, sys.stderr.isatty(), sys.stderr) as telemetry:
        compared = run(settings, telemetry, retry_failed)
    from attnshift.report.curve_page import markdown, write_comparison
    from attnshift.report.curves import measure

    comparison = measure(compared.runs, compared.judges, at)
    path = write_comparison(out, comparison)
    print(markdown(comparison))
    for remark in (*compared.remarks, f"wrote {path} and {path.with_suffix('.json')}"):
        print_error(remark)
    if comparison.missing:
        print_error(f"{comparison.missing}; {path} says why, --retry-failed tries them again")
        raise typer.Exit(1)


def sweep(
    images: Images,
    out: Annotated[Path, typer.Option(help="Comparison folder; the same command continues, more strengths extend it.")],
    recipe: Annotated[str, typer.Option(help="Preset, baseline or recipe file.")] = "fast",
    labels: Labels = None,
    strength: Strengths = [0.5, 1.0, 2.0],  # noqa: B006
    at: At = [0.9, 0.95],  # noqa: B006
    pipeline: Pipeline = "lab",
    surrogate: Surrogates = [],  # noqa: B006
    judge: Judges = [],  # noqa: B006
    min_clean_accuracy: MinCleanAccuracy = 0.25,
    size: Size = 0,
    batch: Annotated[int, typer.Option(help="Images attacked together; part of each run's identity.")] = 0,
    limit: Limit = 0,
    device: Device = "cpu",
    precision: Precision = "float32",
    threads: Annotated[int, typer.Option(help="CPU threads; part of each run's identity.")] = 0,
    masks: Masks = None,
    target: Target = None,
    retry_failed: RetryFailed = False,
    log: Log = None,
    tensorboard: Tensorboard = None,
    mlflow: Mlflow = None,
) -> None:
    """Success against naturalness of one recipe as its strength changes; `compare` can go on in the same folder."""
    compare(
        images,
        out,
        [recipe],
        labels,
        strength,
        at,
        pipeline,
        surrogate,
        judge,
        min_clean_accuracy,
        size,
        batch,
        limit,
        device,
        precision,
        threads,
        masks,
        target,
        retry_failed,
        log,
        tensorboard,
        mlflow,
    )
