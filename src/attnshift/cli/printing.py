"""Lines and tables that several commands print."""

from __future__ import annotations

import json
import re
import sys
from functools import cache
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from attnshift.terminal import one_line, plural, print_error

if TYPE_CHECKING:
    from attnshift.cli.options import OutputOptions
    from attnshift.results.store import Store

__all__ = [
    "Quiet",
    "plain_console",
    "print_figures",
    "print_json",
    "print_message",
    "print_next",
    "print_remark",
    "print_summary",
    "with_flags",
]


class _Remarks:
    """Remarks are told, unless the command that runs is quiet."""

    told = True


def _told_unless(quiet: bool) -> bool:
    _Remarks.told = not quiet
    return quiet


Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", callback=_told_unless, help="Print errors and the final result, and nothing else."),
]


def print_message(text: object) -> None:
    """Print ``text`` as a line on standard error, with the flags of the options that it names."""
    print_error(with_flags(text))


def print_remark(text: object) -> None:
    """As ``print_message``, for what is no error: nothing where the command is quiet."""
    if _Remarks.told:
        print_message(text)


def print_next(commands: str) -> None:
    """Print the ``commands`` that come next, on one line of standard error; nothing where the
    command is quiet."""
    if _Remarks.told:
        print(f"next: {one_line(commands)}", file=sys.stderr)


def plain_console(stderr: bool = False) -> Console:
    """Console for tables and lines; where it is no terminal, nothing is wrapped."""
    is_terminal = (sys.stderr if stderr else sys.stdout).isatty()
    return Console(stderr=stderr, width=None if is_terminal else _WIDEST)


_WIDEST = 100_000
"""Characters of a line of a file, which nobody reaches."""


def with_flags(text: object) -> str:
    """``text`` with each option as the command line writes it;
    in messages an option's name stands in backticks.

    >>> with_flags("`size` is 60; see `attnshift --help`")
    '--size is 60; see `attnshift --help`'
    """
    return re.sub(r"`(\w+)`", lambda found: _flags().get(found[1], found[0]), str(text))


@cache
def _flags() -> dict[str, str]:
    """Name of an option in Python -> its flag, over all commands."""
    from typer.core import TyperGroup
    from typer.main import get_command

    from attnshift.cli import app

    root = get_command(app)
    assert isinstance(root, TyperGroup)
    options = [option for command in root.commands.values() for option in command.params]
    return {str(option.name): option.opts[0] for option in options if option.opts[0].startswith("--")}


def print_json(data: object) -> None:
    """Print ``data`` as JSON on standard output;
    a value that is not finite is a mistake of ours."""
    print(json.dumps(data, indent=1, allow_nan=False))


def print_figures(store: Store, output: OutputOptions, **more: object) -> bool:
    """Print the figures of a run as ``output`` asks for, with ``more`` values in JSON;
    False where it asks for none."""
    from attnshift.report.run_tables import run_data, run_tables
    from attnshift.report.tables import write_tables

    if output.as_json:
        print_json({**run_data(store), **more})
    elif output.table:
        print(write_tables(run_tables(store), output.table))
    return output.as_json or bool(output.table)


def print_summary(store: Store) -> None:
    """Print the figures of a judged run on standard output."""
    from rich.table import Table
    from rich.text import Text

    from attnshift.report.cropped import cropped_line
    from attnshift.report.figures import percent
    from attnshift.report.label import label_lines
    from attnshift.report.missing import missing
    from attnshift.report.naturalness import naturalness
    from attnshift.report.outdated import outdated
    from attnshift.report.people import people_of
    from attnshift.report.people_tables import people_summary
    from attnshift.report.summary import summarise_run
    from attnshift.results.arms import ARMS

    summary = summarise_run(store)
    table = Table(title=Text(f"{plural(summary.images, 'image')}{summary.aim}, 95 % intervals"), title_justify="left")
    arms = [arm for arm in ARMS if arm in summary.quality]
    counted = ("judged",) if summary.partly else ()
    shown = (arm.replace("_", " ") for arm in arms)
    for column in ("classifier", "role", *counted, "clean accuracy", *shown, "attributable"):
        table.add_column(column)
    for row in (*summary.classifiers, *summary.defended, *([summary.judges] if summary.judges else [])):
        success = [percent(row.success[arm]) for arm in arms]
        # As text: a table would read its names as markup.
        name = Text(one_line(row.name))
        judged = (str(row.accuracy.count),) if counted else ()
        table.add_row(name, row.role, *judged, percent(row.accuracy), *success, percent(row.attributable))
    console = plain_console()
    console.print(table)
    for arm, metrics in summary.quality.items():
        values = ", ".join(f"{name} {estimate.value:.3f}" for name, estimate in metrics.items())
        console.print(f"{arm}: {values}", markup=False, highlight=False, soft_wrap=True)
    admitted = (f"admitted: {each}" for each in store.spec().admitted)
    said = filter(None, [missing(store).line, cropped_line(store), *map(with_flags, outdated(store))])
    for line in (*admitted, *said, *naturalness(store), *label_lines(summary), *people_summary(people_of(store))):
        console.print(one_line(line), markup=False, highlight=False, soft_wrap=True)
    console.print(f"seconds per image: {summary.seconds.value:.2f}", markup=False, highlight=False)
