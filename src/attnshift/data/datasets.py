"""Which images a run is about: a folder with a CSV of ``file,label[,class_name]``."""

from __future__ import annotations

import csv
import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

from attnshift.errors import LabelError

__all__ = ["Item", "read_folder"]


@dataclass(frozen=True)
class Item:
    """One image of a run. ``identity`` is a hash of the bytes of image and mask and of the
    label: it names results and draws."""

    identity: str
    file: str
    path: Path
    label: int
    class_name: str
    mask: Path | None = None
    """Where its object is, as an image of its own."""


def read_folder(
    folder: Path,
    labels: Path,
    class_names: tuple[str, ...],
    classes: int,
    limit: int = 0,
    masks: Path | None = None,
) -> list[Item]:
    """Items in the order of the CSV, the first ``limit`` of them if that is not 0.

    ``class_names`` gives the name of a label where the CSV has no class_name column; ``classes`` is how many there
    are. ``masks`` is a folder that holds a mask under the name of each image. Every complaint is a ``LabelError`` that
    names the line.
    """
    if not folder.is_dir():
        raise LabelError(f"{folder}: no such folder of images")
    if not labels.is_file():
        raise LabelError(f"{labels}: no such label file; it holds the columns file,label[,class_name]")
    if masks is not None and not masks.is_dir():
        raise LabelError(f"{masks}: no such folder of masks")
    root = folder.resolve()
    items: dict[str, Item] = {}
    try:
        text = labels.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise LabelError(f"{labels} is not UTF-8 text; save it as UTF-8") from None
    reader = csv.DictReader(io.StringIO(text, newline=""))
    try:
        missing = {"file", "label"} - set(reader.fieldnames or ())
        if missing:
            absent = " and ".join(sorted(missing))
            raise LabelError(f"{labels}: column {absent} is missing; the first line names columns")
        for row in reader:
            if limit and len(items) == limit:
                break
            where = f"{labels} line {reader.line_num}"
            item = _item(row, where, root, class_names, classes, masks)
            if item.identity in items:
                raise LabelError(f"{where}: {item.file} with label {item.label} was listed before; remove one")
            items[item.identity] = item
    except csv.Error as error:
        raise LabelError(f"{labels} line {reader.line_num}: not valid CSV ({error})") from None
    if not items:
        raise LabelError(f"{labels}: no images are listed")
    return list(items.values())


def _item(
    row: dict[str, str | None], where: str, root: Path, class_names: tuple[str, ...], classes: int, masks: Path | None
) -> Item:
    file = (row["file"] or "").strip()
    path = _inside(root, file, where)
    mask = None if masks is None else _inside(masks.resolve(), file, where)
    text = (row["label"] or "").strip()
    try:
        label = int(text)
    except ValueError:
        raise LabelError(f"{where}: label {text!r} is not a whole number; labels count from 0") from None
    if not 0 <= label < classes:
        raise LabelError(f"{where}: label {label} is out of range; the surrogates have classes 0 to {classes - 1}")
    name = (row.get("class_name") or "").strip() or (class_names[label] if label < len(class_names) else "")
    if not name:
        raise LabelError(f"{where}: no class name for label {label}; add a class_name column")
    digest = hashlib.sha256(path.read_bytes())
    digest.update(f"{label}\0{name}".encode())
    if mask is not None:
        digest.update(b"\0mask\0" + mask.read_bytes())
    return Item(digest.hexdigest()[:16], file, path, label, name, mask)


def _inside(root: Path, file: str, where: str) -> Path:
    path = root / file
    if not file or not path.resolve().is_relative_to(root):
        raise LabelError(f"{where}: file {file!r} does not lie inside {root}")
    if not path.is_file():
        raise LabelError(f"{where}: {path} does not exist")
    return path
