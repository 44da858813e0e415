"""Commands that only look at what is there: they answer at once and import nothing heavy."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from attnshift.terminal import one_line, print_error

__all__ = ["list_command", "report", "status"]


def list_command(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List every preset, term, rule, source, metric, defence and backbone, with where it comes from."""
    from attnshift.catalogue import catalogue, clashes

    families = catalogue()
    if as_json:
        print(json.dumps(families, indent=1))
        return
    from rich.table import Table
    from rich.text import Text

    console = Console(width=None if sys.stdout.isatty() else 160)
    for family, entries in families.items():
        console.print(f"\n[bold]{family}[/bold]")
        grid = Table.grid(padding=(0, 2))
        grid.add_column(no_wrap=True, min_width=24)
        for each in entries:
            source = f" ({each['reference']})" if each["reference"] else ""
            grid.add_row(Text("  " + one_line(each["name"])), Text(one_line(each["summary"] + source)))
        console.print(grid if entries else "  none")
    for line in clashes():
        print_error(line)


def status(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """How far a run is: what is done, what failed and why, at what rate, and when it will end."""
    from attnshift.results.status import read_status

    found = read_status(run)
    if as_json:
        print(json.dumps(asdict(found) | {"left": found.left, "seconds_left": found.seconds_left}, indent=1))
        return
    counts = f"{found.done} done, {len(found.failed)} failed, {found.left} left"
    print(one_line(f"{found.recipe}, {found.images} images: {counts}"))
    if found.rate is not None and found.left:
        ends = datetime.now().astimezone() + timedelta(seconds=found.seconds_left or 0)
        when = f", ends about {ends:%Y-%m-%d %H:%M}" if found.working else ""
        print(f"{found.rate * 3600:.0f} images an hour lately{when}")
    if not found.working and found.left:
        print("nobody works on it; the same attack command continues")
    for file, times in found.troubled.items():
        print(one_line(f"{file}: ended its worker {times} times"))
    for each in found.failed:
        print(one_line(f"failed: {each.file}: {each.reason}"))


def report(run: Annotated[Path, typer.Argument(help="Run folder.")]) -> None:
    """Write RUN/report.html, one self-contained page."""
    from attnshift.report.page import write_report
    from attnshift.results.store import Store

    print(write_report(Store.open(run)))
