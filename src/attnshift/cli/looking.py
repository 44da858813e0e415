"""Commands that only look at what is there: they answer at once and import nothing heavy."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

__all__ = ["list_command", "report"]


def list_command(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List every preset, term, rule, source, metric, defence and backbone, with where it comes from."""
    from attnshift.catalogue import catalogue

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
            grid.add_row(Text(f"  {each['name']}"), Text(each["summary"] + source))
        console.print(grid if entries else "  none")


def report(run: Annotated[Path, typer.Argument(help="Run folder.")]) -> None:
    """Write RUN/report.html, one self-contained page."""
    from attnshift.report.page import write_report
    from attnshift.runs.store import Store

    print(write_report(Store.open(run)))
