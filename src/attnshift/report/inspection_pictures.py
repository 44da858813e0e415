"""Two pictures of an inspection: alignment by term, site and step, and class word maps beside the
object."""

from __future__ import annotations

from collections.abc import Sequence

import numpy
from PIL import Image, ImageDraw, ImageFont

from attnshift.report.figures import heat_overlay
from attnshift.report.inspection import AlignmentLine, InspectionSummary
from attnshift.results.inspection import EVERY, PictureRow

__all__ = ["alignment_picture", "map_picture"]

_INK, _SOFT, _NONE = (28, 29, 34), (102, 107, 119), (236, 238, 242)
_GOOD, _BAD = (29, 95, 168), (194, 65, 12)
"""Colours of a positive and of a negative cosine."""
_CELL, _NAMES, _HEAD, _GAP = 38, 190, 66, 8
_THUMB, _LABEL = 128, 18

_Read = tuple[str, int, int]
"""Place, side and step of a column."""


def alignment_picture(summary: InspectionSummary) -> numpy.ndarray | None:
    """Cosines times 100 as uint8 pixels [height,width,3]: a row for each term, a column for each
    group of sites and step.

    A cell is blue where the term is aligned, red where it points against the unseen classifiers; it
    is pale and its number grey where the interval contains 0. The scale is that of the largest
    mean of all cells, the yardsticks among them. None where no term reads sites.
    """
    cells = [line for line in summary.lines if _in_column(line) and line.head == EVERY]
    if not cells:
        return None
    columns, names = _columns(cells), _names(summary)
    beside = [line for line in summary.lines if not _in_column(line)]
    counted = [line for line in (*summary.yardsticks, *cells, *beside) if line.path.count]
    largest = max((abs(line.path.value) for line in counted), default=1.0) or 1.0
    places = {read: _NAMES + _CELL + _GAP + at * _CELL + _gaps(columns, at) for at, read in enumerate(columns)}
    width = max(places.values()) + _CELL + _GAP
    height = _HEAD + 24 * (len(names) + len(summary.yardsticks)) + _GAP * 3
    picture = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(picture)
    _heads(draw, places)
    tops = {name: _HEAD + 24 * at for at, name in enumerate(names)}
    for name, top in tops.items():
        draw.text((4, top + 5), name[:30], fill=_INK, font=_font(12))
    for line in beside:
        _cell(draw, _NAMES, tops[line.name], line, largest)
    for line in cells:
        _cell(draw, places[line.place, line.side, line.step], tops[line.name], line, largest)
    top = _HEAD + 24 * len(names) + _GAP
    for at, line in enumerate(summary.yardsticks):
        draw.text((4, top + 24 * at + 5), line.name[-30:], fill=_SOFT, font=_font(12))
        _cell(draw, _NAMES, top + 24 * at, line, largest)
    return numpy.asarray(picture)


def map_picture(summary: InspectionSummary) -> numpy.ndarray | None:
    """Images, the maps of their objects and their class word maps side by side, as uint8 pixels
    [height,width,3]; one row for each image, at the first point of the path. None without images.
    """
    first = min((row.iteration for row in summary.pictures), default=0)
    images: dict[str, list[PictureRow]] = {}
    for row in summary.pictures:
        if row.iteration == first:
            images.setdefault(row.id, []).append(row)
    if not images:
        return None
    columns = list(dict.fromkeys(row.name for rows in images.values() for row in rows))
    picture = Image.new("RGB", (len(columns) * (_THUMB + 4), _LABEL + len(images) * (_THUMB + _LABEL + 4)), "white")
    draw = ImageDraw.Draw(picture)
    for at, name in enumerate(columns):
        draw.text((at * (_THUMB + 4) + 2, 2), name, fill=_INK, font=_font(12))
    for at, rows in enumerate(images.values()):
        top = _LABEL + at * (_THUMB + _LABEL + 4)
        image = next(_photo(row) for row in rows if row.name == "image")
        draw.text((2, top + 1), f"{rows[0].class_name}, {rows[0].file}"[:80], fill=_SOFT, font=_font(11))
        for row in rows:
            shown = image if row.name == "image" else heat_overlay(image, row.values, row.side, max(row.values))
            picture.paste(Image.fromarray(shown), (columns.index(row.name) * (_THUMB + 4), top + _LABEL))
    return numpy.asarray(picture)


def _in_column(line: AlignmentLine) -> bool:
    """Whether a row is about one group of sites, or about one step alone."""
    return bool(line.side) or line.step != EVERY


def _names(summary: InspectionSummary) -> list[str]:
    """Names of the rows: terms in the order in which they were asked for, then directions."""
    found = dict.fromkeys(line.name for line in summary.lines)
    return [*(name for name in summary.spec.terms if name in found), *sorted(found.keys() - set(summary.spec.terms))]


def _columns(cells: Sequence[AlignmentLine]) -> list[_Read]:
    order = ("", "down", "mid", "up")
    reads = {(line.place, line.side, line.step) for line in cells}
    return sorted(reads, key=lambda each: (order.index(each[0]), each[1] * (1 if each[0] == "up" else -1), each[2]))


def _gaps(columns: Sequence[_Read], at: int) -> int:
    """Pixels between groups of sites before the column ``at``."""
    groups = [read[:2] for read in columns[: at + 1]]
    return _GAP * (len(dict.fromkeys(groups)) - 1)


def _heads(draw: ImageDraw.ImageDraw, places: dict[_Read, int]) -> None:
    draw.text((4, 4), "cosine x 100 with the unseen descent", fill=_SOFT, font=_font(11))
    draw.text((_NAMES + 4, 44), "own", fill=_INK, font=_font(12))
    named: set[tuple[str, int]] = set()
    for (place, side, step), left in places.items():
        if (place, side) not in named:
            draw.text((left + 2, 24), f"{place} {side} x {side}" if side else "prompts", fill=_INK, font=_font(12))
            named.add((place, side))
        draw.text((left + 4, 44), "all" if step == EVERY else f"s{step}", fill=_SOFT, font=_font(12))


def _cell(draw: ImageDraw.ImageDraw, left: int, top: int, line: AlignmentLine, largest: float) -> None:
    box = (left, top, left + _CELL - 2, top + 22)
    if not line.path.count:
        draw.rectangle(box, fill=_NONE)
        return
    value, certain = line.path.value, line.verdict in ("aligned", "against")
    share = min(1.0, abs(value) / largest) * (1 if certain else 0.25)
    colour = _GOOD if value > 0 else _BAD
    draw.rectangle(box, fill=tuple(round(255 + share * (each - 255)) for each in colour))
    ink = (255, 255, 255) if share > 0.55 else _INK if certain else _SOFT
    draw.text((left + 4, top + 4), f"{100 * value:+.1f}", fill=ink, font=_font(11))


def _photo(row: PictureRow) -> numpy.ndarray:
    pixels = numpy.asarray(row.values, dtype=numpy.float32).reshape(row.side, row.side, 3)
    image = Image.fromarray((pixels * 255).round().astype(numpy.uint8))
    return numpy.asarray(image.resize((_THUMB, _THUMB), Image.Resampling.BICUBIC))


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
