"""`attnshift report`: a run as one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["report"]


def report(run: Annotated[Path, typer.Argument(help="Run folder.")]) -> None:
    """Write RUN/report.html, one self-contained page."""
    from attnshift.report.page import write_report
    from attnshift.results.store import Store

    print(write_report(Store.open(run)))
