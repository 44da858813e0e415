"""Manifests, files that list images: CSV with column names, or one JSON object a line.

Layouts of published data sets are read as they are: TransferAttack's
``filename,label,targeted_label`` and NIPS 2017's ``ImageId,TrueLabel,TargetClass``, whose classes
count from 1.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TextIO

from attnshift.data.references import is_regular, shown
from attnshift.errors import LabelError

__all__ = ["ManifestRow", "natural_order", "parse_object", "read_label_lines", "read_manifest"]

_LONGEST = 2**20
"""Largest number of characters of a line."""

_COLUMNS = {
    "file": ("file", "file_name", "filename", "ImageId"),
    "label": ("label", "TrueLabel"),
    "class_name": ("class_name",),
    "caption": ("caption",),
    "target": ("target", "targeted_label", "TargetClass"),
}
"""Names of the columns of a CSV, by their meaning."""

_FROM_ONE = "TrueLabel"
"""Column whose layout counts classes from 1."""

_SEPARATORS = (",", ";", "\t")


@dataclass(frozen=True)
class ManifestRow:
    """Row of a manifest, about one image. ``typed`` means the same as in a ``Sample``."""

    where: str
    values: Mapping[str, object]
    typed: bool
    first: int = 0
    """Number of the first class."""

    @property
    def file(self) -> object:
        """Value of the column ``file``, or of Hugging Face's ``file_name``."""
        return self.values.get("file", self.values.get("file_name"))


def read_manifest(labels: Path) -> Iterator[ManifestRow | LabelError]:
    """Rows of ``labels``, read line by line: JSON lines if its name ends in .jsonl, else CSV.

    An error takes the place of a row that cannot be used. If the rows after it cannot be separated,
    the error is the last value.
    """
    if not is_regular(labels):
        raise LabelError(f"{labels}: no such label file; it holds the columns file,label[,class_name][,target]")
    rows = _json_rows(labels) if labels.suffix.lower() == ".jsonl" else _csv_rows(labels)
    return _until_broken(rows)


def read_label_lines(labels: Path, files: Sequence[str]) -> Iterator[ManifestRow | LabelError]:
    """Rows of ``labels``, a .txt with one label a line, from 1:
    those of ``files`` in their natural order.

    This is DiffAttack's layout of the ImageNet-compatible images.
    """
    with _opened(labels) as file:
        lines = [line.strip() for line in _lines(file, labels)]
    while lines and not lines[-1]:
        lines.pop()
    if len(lines) != len(files):
        what = f"{len(lines)} labels, one a line, for {len(files)} images; give every image one, or use a CSV"
        yield LabelError(f"{labels}: {what}")
        return
    for number, (line, name) in enumerate(zip(lines, sorted(files, key=natural_order), strict=True), 1):
        yield ManifestRow(f"{labels} line {number}", {"file": name, "label": line}, typed=False, first=1)


def natural_order(name: str) -> list[tuple[int, str, int]]:
    """Key that sorts the numbers in names as numbers.

    >>> sorted(["10.png", "9.png", "a2"], key=natural_order)
    ['9.png', '10.png', 'a2']
    """
    parts = re.split(r"([0-9]+)", name)
    return [(0, "", int(part)) if part.isdecimal() else (1, part, 0) for part in parts if part]


def parse_object(text: str | bytes) -> dict[str, object]:
    """JSON object in ``text``. Raises ``ValueError`` with the reason if there is none."""
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"not valid JSON ({error.msg} at column {error.colno})") from None
    except UnicodeDecodeError:
        raise ValueError("not UTF-8 text") from None
    except ValueError:
        raise ValueError("a number has too many digits") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(values, dict):
        raise ValueError('not a JSON object such as {"file": "a.png", "label": 3}')
    return values


def _until_broken(rows: Iterator[ManifestRow | LabelError]) -> Iterator[ManifestRow | LabelError]:
    try:
        yield from rows
    except LabelError as error:
        yield error


def _csv_rows(labels: Path) -> Iterator[ManifestRow | LabelError]:
    with _opened(labels) as file:
        lines = _lines(file, labels)
        header = next(lines, "")
        separator = max(_SEPARATORS, key=lambda each: len(_meanings(next(csv.reader([header], delimiter=each), []))))
        reader = csv.reader(chain([header], lines), delimiter=separator)
        try:
            names = next(reader, [])
            _check_columns(labels, names)
            meanings = _meanings(names)
            first = int(_FROM_ONE in names)
            for values in reader:
                where = f"{labels} line {reader.line_num}"
                if any(values[len(names) :]):
                    yield LabelError(f"{where}: {len(values)} values for {len(names)} columns; {_QUOTE}")
                elif values:
                    yield ManifestRow(where, _row(values, names, meanings), typed=False, first=first)
        except csv.Error as error:
            raise LabelError(f"{labels} line {reader.line_num}: not valid CSV ({error})") from None


_QUOTE = 'put quotes around a name that holds the separator, as in "tench, Tinca tinca"'


def _meanings(names: list[str]) -> dict[str, str]:
    """Meaning -> name of its column, for those that are there."""
    found = {meaning: [each for each in known if each in names] for meaning, known in _COLUMNS.items()}
    return {meaning: present[0] for meaning, present in found.items() if present}


def _row(values: list[str], names: list[str], meanings: Mapping[str, str]) -> dict[str, object]:
    # A row that ends early has no values in its last columns.
    given = dict(zip(names, values, strict=False))
    row: dict[str, object] = {meaning: given.get(name) for meaning, name in meanings.items()}
    if meanings["file"] == "ImageId" and row["file"] and not Path(str(row["file"])).suffix:
        row["file"] = f"{row['file']}.png"
    return row


def _check_columns(labels: Path, names: list[str]) -> None:
    meanings = _meanings(names)
    missing = {"file", "label"} - meanings.keys()
    if missing:
        absent = " and ".join(sorted(missing))
        lacks = f"column {absent} is" if len(missing) == 1 else f"columns {absent} are"
        raise LabelError(f"{labels}: {lacks} missing; the first line names columns")
    for meaning, known in _COLUMNS.items():
        present = [each for each in names if each in known]
        if len(present) > 1 and len(set(present)) == 1:
            raise LabelError(f"{labels}: column {present[0]} is there {len(present)} times; keep one of them")
        if len(present) > 1:
            raise LabelError(f"{labels}: columns {' and '.join(present)} both give the {meaning}; keep one of them")


def _json_rows(labels: Path) -> Iterator[ManifestRow | LabelError]:
    with _opened(labels) as file:
        for number, line in enumerate(_lines(file, labels), 1):
            where = f"{labels} line {number}"
            if not line.strip():
                continue
            try:
                row = ManifestRow(where, parse_object(line), typed=True)
            except ValueError as error:
                yield LabelError(f"{where}: {error}; correct or remove the line")
                continue
            missing = [key for key, value in (("file", row.file), ("label", row.values.get("label"))) if value is None]
            if missing:
                yield LabelError(f"{where}: key {' and '.join(missing)} is missing; add it, or remove the line")
            elif not isinstance(row.file, str):
                yield LabelError(f"{where}: file {shown(row.file)} is not text; give the image's name")
            else:
                yield row


def _opened(labels: Path) -> TextIO:
    try:
        return labels.open(encoding="utf-8-sig", newline="")
    except OSError as error:
        raise LabelError(f"{labels}: cannot be read ({error.strerror}); check its permissions") from None


def _lines(file: TextIO, labels: Path) -> Iterator[str]:
    """Lines of ``file``. Raises ``LabelError`` at a line that is too long for memory."""
    try:
        while line := file.readline(_LONGEST):
            if len(line) == _LONGEST:
                raise LabelError(f"{labels}: a line has more than {_LONGEST} characters; is it a label file?")
            yield line
    except UnicodeDecodeError:
        raise LabelError(f"{labels} is not UTF-8 text; save it as UTF-8") from None
