"""`attnshift list`: everything that a recipe can name."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from attnshift.cli.printing import plain_console
from attnshift.terminal import one_line, print_error

__all__ = ["list_command"]


def list_command(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List every preset, term, rule, source, metric, defence and backbone, with its origin."""
    from attnshift.catalogue import catalogue, clashes

    families = catalogue()
    if as_json:
        print(json.dumps(families, indent=1))
        return
    from rich.table import Table
    from rich.text import Text

    console = plain_console()
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
