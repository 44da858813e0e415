"""`attnshift report`: a run as one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from attnshift.cli.options import OutputOptions, expand_options
from attnshift.cli.printing import print_figures, print_message

__all__ = ["report"]


@expand_options
def report(*, run: Annotated[Path, typer.Argument(help="Run folder.")], output: OutputOptions) -> None:
    """Write RUN/report.html, which needs no network, and print its path, or figures if asked."""
    from attnshift.report.page import write_report
    from attnshift.results.store import Store

    store = Store.open(run)
    page = write_report(store)
    if print_figures(store, output, page=str(page)):
        print_message(f"wrote {page}")
    else:
        print(page)
