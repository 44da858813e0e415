"""`attnshift sweep`: one recipe at several strengths, or with several values of its keys."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from attnshift.cli.compare import compare_and_print
from attnshift.cli.completion import recipes
from attnshift.cli.options import AttackOptions, CompareOptions, OutputOptions, TelemetryOptions, expand_options
from attnshift.cli.printing import Quiet

__all__ = ["sweep"]


@expand_options
def sweep(
    *,
    out: Annotated[Path, typer.Option(help="Comparison folder; the same command continues, more strengths extend it.")],
    recipe: Annotated[str, typer.Option(help="Preset, baseline or recipe file.", autocompletion=recipes)] = "fast",
    options: CompareOptions,
    inputs: AttackOptions,
    telemetry: TelemetryOptions,
    output: OutputOptions,
    quiet: Quiet = False,
) -> None:
    """Measure success against naturalness of one recipe as its strength, or a key of it, changes.

    `compare` can go on in the same folder.
    """
    compare_and_print([recipe], inputs, out, options, telemetry, output, quiet)
