"""Manifests, files that list images: CSV with column names, or one JSON object a line."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from attnshift.data.references import is_regular, shown
from attnshift.errors import LabelError

__all__ = ["ManifestRow", "parse_object", "read_manifest"]

_LONGEST = 2**20
"""Largest number of characters of a line."""


@dataclass(frozen=True)
class ManifestRow:
    """Row of a manifest, about one image. ``typed`` means the same as in a ``Sample``."""

    where: str
    values: Mapping[str, object]
    typed: bool

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
        reader = csv.DictReader(_lines(file, labels))
        try:
            _check_columns(labels, list(reader.fieldnames or ()))
            for values in reader:
                yield ManifestRow(f"{labels} line {reader.line_num}", values, typed=False)
        except csv.Error as error:
            raise LabelError(f"{labels} line {reader.line_num}: not valid CSV ({error})") from None


def _check_columns(labels: Path, names: list[str]) -> None:
    missing = {"file", "label"} - {"file" if name == "file_name" else name for name in names}
    if missing:
        absent = " and ".join(sorted(missing))
        raise LabelError(f"{labels}: column {absent} is missing; the first line names columns")
    for name in ("file", "file_name", "label", "class_name", "target"):
        if names.count(name) > 1:
            raise LabelError(f"{labels}: column {name} is there {names.count(name)} times; keep one of them")


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
