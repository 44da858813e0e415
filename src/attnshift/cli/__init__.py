"""The command line. Heavy libraries are imported inside the commands that need them."""

from __future__ import annotations

import os
import signal
import sys
from functools import partial
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated

import typer

from attnshift._version import __version__
from attnshift.cli import (
    attack,
    compare,
    demo,
    doctor,
    evaluate,
    export,
    inspect,
    lab,
    rate,
    ratings,
    report,
    show,
    status,
    studio,
    sweep,
    tune,
    validate,
)
from attnshift.cli import list as listing
from attnshift.cli.completion import complete_in_bash
from attnshift.cli.printing import print_message
from attnshift.errors import UserError
from attnshift.execution.memory import keep_freed_memory
from attnshift.terminal import print_error
from attnshift.weights_folder import choose_folder

__all__ = ["app", "main"]

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Natural-looking adversarial images by steering a diffusion model's attention.",
)
# In the order of --help.
app.command("list")(listing.list_command)
app.command("show")(show.show_recipe)
app.command()(attack.attack)
app.command()(validate.validate)
app.command()(status.status)
app.command()(evaluate.evaluate)
app.command()(inspect.inspect)
app.command()(tune.tune)
app.command()(compare.compare)
app.command()(sweep.sweep)
app.command()(report.report)
app.command()(export.export)
app.command()(rate.rate)
app.command()(ratings.ratings)
app.command()(demo.demo)
app.command()(studio.studio)
app.command()(doctor.doctor)
app.add_typer(lab.lab_app, name="lab")


def main() -> None:
    """Entry point: user mistakes are one line and exit status 2; Ctrl-C is 130, SIGTERM 143."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stopped)
    if isinstance(sys.stdout, TextIOWrapper):
        # A terminal or a file may have an encoding without arrows; standard error escapes them by
        # itself.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        keep_freed_memory()
        # By whatever name it was started: shells ask for this one.
        run = partial(app, prog_name="attnshift")
        if os.environ.get("_ATTNSHIFT_COMPLETE") == "complete_bash":
            complete_in_bash(run)
        run()
    except UserError as error:
        print_message(error)
        raise SystemExit(2) from None


def _stopped(number: int, frame: object) -> None:
    print_error("stopped; the same command continues an attack, a comparison, a training or a study")
    raise SystemExit(128 + number)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"attnshift {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
    weights: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder with the weights that LPIPS needs, as the variable ATTNSHIFT_WEIGHTS names it.",
        ),
    ] = None,
) -> None:
    if weights is not None:
        print_message(choose_folder(weights))
