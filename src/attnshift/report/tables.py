"""Tables of text and figures, written as Markdown, CSV or LaTeX."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from attnshift.metrics.statistics import Estimate
from attnshift.terminal import one_line

__all__ = ["TABLE_FORMATS", "Cell", "FigureTable", "estimate_data", "write_tables"]


@dataclass(frozen=True)
class Cell:
    """A figure: its ``text`` for people and its ``data`` for programs,
    an estimate with its interval or a number."""

    text: str
    data: Estimate | float | None = None


@dataclass(frozen=True)
class FigureTable:
    """``rows`` of cells under the names of ``columns``;
    a cell that is a text alone has no figure."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell | str, ...], ...]


def write_tables(tables: Sequence[FigureTable], form: str) -> str:
    """The ``tables`` one below the other, a blank line between them;
    ``form`` is a name in ``TABLE_FORMATS``."""
    return "\n\n".join(map(TABLE_FORMATS[form], tables))


def estimate_data(estimate: Estimate | None) -> dict[str, Any] | None:
    """``estimate`` as values that JSON holds: null in place of what is not finite."""
    if estimate is None:
        return None
    return {name: _finite(value) for name, value in vars(estimate).items()}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _text(cell: Cell | str) -> str:
    """The text of ``cell`` on one line that cannot steer a terminal."""
    return one_line(cell if isinstance(cell, str) else cell.text)


def _markdown(table: FigureTable) -> str:
    rows = [[_text(cell).replace("|", "\\|") for cell in row] for row in (table.columns, *table.rows)]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], f"|{'|'.join(['---'] * len(table.columns))}|", *lines[1:]])


def _csv(table: FigureTable) -> str:
    """Figures with all of their digits. A column with estimates has two more
    for the ends of their intervals."""
    wide = [any(_is_estimate(row[place]) for row in table.rows) for place in range(len(table.columns))]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    names: list[object] = []
    for name, more in zip(table.columns, wide, strict=True):
        names += [name, f"{name} low", f"{name} high"] if more else [name]
    writer.writerow(names)
    for row in table.rows:
        writer.writerow([each for cell, more in zip(row, wide, strict=True) for each in _values(cell, more)])
    return stream.getvalue().rstrip("\n")


def _is_estimate(cell: Cell | str) -> bool:
    return isinstance(cell, Cell) and isinstance(cell.data, Estimate)


def _values(cell: Cell | str, wide: bool) -> list[object]:
    if isinstance(cell, Cell) and isinstance(cell.data, Estimate):
        # An estimate over no image has no figure; infinity is one, of a PSNR.
        value, *ends = cell.data.value, cell.data.low, cell.data.high
        return ["", "", ""] if math.isnan(value) else [value, *("" if math.isnan(end) else end for end in ends)]
    alone = cell if isinstance(cell, str) else cell.text if cell.data is None else cell.data
    return [alone, "", ""] if wide else [alone]


_SPECIAL: Mapping[str, str] = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "[": "{[}",  # behind a line break, LaTeX would read it as an option
    "]": "{]}",
    "–": "--",
    "×": r"\ensuremath{\times}",
    "…": r"\ldots{}",
} | {each: f"\\{each}" for each in "&%$#_{}"}


def _latex(table: FigureTable) -> str:
    r"""In the style of booktabs; the document needs ``\usepackage{booktabs}`` and is read as
    UTF-8."""
    lines = [" & ".join(map(_escaped, map(_text, row))) + r" \\" for row in (table.columns, *table.rows)]
    kinds = "".join("r" if any(isinstance(row[place], Cell) for row in table.rows) else "l" for place in _places(table))
    head, *body = lines
    return "\n".join(
        [rf"\begin{{tabular}}{{{kinds}}}", r"\toprule", head, r"\midrule", *body, r"\bottomrule", r"\end{tabular}"]
    )


def _places(table: FigureTable) -> range:
    return range(len(table.columns))


def _escaped(text: str) -> str:
    """``text`` as LaTeX shows it: no character of it is a command.

    >>> _escaped("62 % of my_run") == r"62 \\% of my\\_run"
    True
    """
    return "".join(_SPECIAL.get(each, each) for each in text)


TABLE_FORMATS: Mapping[str, Callable[[FigureTable], str]] = {"markdown": _markdown, "csv": _csv, "latex": _latex}
