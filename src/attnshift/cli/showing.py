"""What several commands show: an attack as it goes on, and what judges say of a run."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from rich.console import Console

from attnshift.terminal import one_line

if TYPE_CHECKING:
    from attnshift.results.store import Store

__all__ = ["print_summary"]


def print_summary(store: Store) -> None:
    """The figures of a run that is judged, on standard output."""
    from rich.table import Table
    from rich.text import Text

    from attnshift.report.figures import percent
    from attnshift.report.label import label_lines
    from attnshift.report.missing import missing
    from attnshift.report.naturalness import naturalness
    from attnshift.report.summary import summarise
    from attnshift.results.arms import ARMS

    summary = summarise(*(store.table(name) for name in ("results", "verdicts", "quality", "visibility")))
    table = Table(title=Text(f"{summary.images} images{summary.aim}, 95 % intervals"), title_justify="left")
    arms = [arm for arm in ARMS if arm in summary.quality]
    for column in ("classifier", "role", "clean accuracy", *(arm.replace("_", " ") for arm in arms), "attributable"):
        table.add_column(column)
    for row in (*summary.classifiers, *summary.defended, *([summary.judges] if summary.judges else [])):
        success = [percent(row.success[arm]) for arm in arms]
        # As text: a table would read its names as markup.
        name = Text(one_line(row.name))
        table.add_row(name, row.role, percent(row.accuracy), *success, percent(row.attributable))
    console = Console(width=None if sys.stdout.isatty() else 150)
    console.print(table)
    for arm, metrics in summary.quality.items():
        values = ", ".join(f"{name} {estimate.value:.3f}" for name, estimate in metrics.items())
        console.print(f"{arm}: {values}", markup=False, highlight=False)
    for line in (*filter(None, [missing(store).line]), *naturalness(store), *label_lines(summary)):
        console.print(one_line(line), markup=False, highlight=False, soft_wrap=True)
    console.print(f"seconds per image: {summary.seconds.value:.2f}", markup=False, highlight=False)
