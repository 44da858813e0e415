"""What several commands show: an attack as it goes on, and what judges say of a run."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console

if TYPE_CHECKING:
    from attnshift.runs.store import Store

__all__ = ["images_done", "print_summary"]


@contextmanager
def images_done(console: Console) -> Iterator[Callable[..., None]]:
    """What an attack tells its progress, on ``console``: a bar on a terminal and one line per image that is done."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("attack"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("attack", total=None)

        def done(item: Any, row: dict[str, Any], count: int, total: int, run: str = "") -> None:
            bar.update(task, completed=count, total=total)
            reached = sum(margin < 0 for margin in row["attack_margins"])
            classes = item.class_name if item.target is None else f"{item.class_name} → {item.target_name}"
            kept = f", iterate {row['iteration']} of {row['evaluated']}" if row["evaluated"] else ""
            line = (
                f"{run and f'{run} '}{count}/{total} {item.file} ({classes}): succeeds on {reached} of "
                f"{len(row['attack_margins'])} surrogates{kept}, {row['seconds']:.2f} s"
            )
            console.print(line, markup=False, highlight=False, soft_wrap=True)

        yield done


def print_summary(store: Store) -> None:
    """The figures of a run that is judged, on standard output."""
    from rich.table import Table
    from rich.text import Text

    from attnshift.evaluation import ARMS
    from attnshift.report.figures import percent
    from attnshift.report.label import label_lines
    from attnshift.report.naturalness import naturalness
    from attnshift.report.summary import summarise

    summary = summarise(*(store.table(name) for name in ("results", "verdicts", "quality", "visibility")))
    table = Table(title=Text(f"{summary.images} images{summary.aim}, 95 % intervals"), title_justify="left")
    arms = [arm for arm in ARMS if arm in summary.quality]
    for column in ("classifier", "role", "clean accuracy", *(arm.replace("_", " ") for arm in arms), "attributable"):
        table.add_column(column)
    for row in (*summary.classifiers, *summary.defended, *([summary.judges] if summary.judges else [])):
        success = [percent(row.success[arm]) for arm in arms]
        table.add_row(row.name, row.role, percent(row.accuracy), *success, percent(row.attributable))
    console = Console(width=None if sys.stdout.isatty() else 150)
    console.print(table)
    for arm, metrics in summary.quality.items():
        values = ", ".join(f"{name} {estimate.value:.3f}" for name, estimate in metrics.items())
        console.print(f"{arm}: {values}", markup=False, highlight=False)
    for line in (*naturalness(store), *label_lines(summary)):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    console.print(f"seconds per image: {summary.seconds.value:.2f}", markup=False, highlight=False)
