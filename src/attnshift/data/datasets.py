"""Which images a run is about: a folder with a CSV of ``file,label[,class_name][,target]``."""

from __future__ import annotations

import csv
import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

from attnshift.errors import LabelError
from attnshift.tables import suggest

__all__ = ["Item", "check_class", "check_target", "identify", "inside", "read_folder"]


@dataclass(frozen=True)
class Item:
    """One image of a run. ``identity``, a hash that ``identify`` makes, names its results and draws."""

    identity: str
    file: str
    path: Path
    label: int
    class_name: str
    mask: Path | None = None
    """Where its object is, as an image of its own."""
    target: int | None = None
    """The class that it shall be seen as, called ``target_name``; absent in an untargeted attack."""
    target_name: str = ""


def read_folder(
    folder: Path,
    labels: Path,
    class_names: tuple[str, ...],
    classes: int,
    limit: int = 0,
    masks: Path | None = None,
    target: str | None = None,
) -> list[Item]:
    """Items in the order of the CSV, the first ``limit`` of them if that is not 0.

    ``class_names`` gives the name of a label where the CSV has no class_name column; ``classes`` is how many there
    are. ``masks`` is a folder that holds a mask under the name of each image. ``target`` is a class by number or name,
    for all images; else the CSV's column of that name may give each its own. Every complaint is a ``LabelError`` that
    names the line.
    """
    if not folder.is_dir():
        raise LabelError(f"{folder}: no such folder of images")
    if not labels.is_file():
        raise LabelError(f"{labels}: no such label file; it holds the columns file,label[,class_name][,target]")
    if masks is not None and not masks.is_dir():
        raise LabelError(f"{masks}: no such folder of masks")
    root = folder.resolve()
    for_all = None if target is None else _find(target, class_names, classes, "--target")
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
            item = _item(row, where, root, class_names, classes, masks, for_all)
            if item.identity in items:
                raise LabelError(f"{where}: {item.file} with label {item.label} was listed before; remove one")
            items[item.identity] = item
            if (item.target is None) != (next(iter(items.values())).target is None):
                found = "no target" if item.target is None else "a target"
                raise LabelError(f"{where}: {found}, unlike the images before; give every image a target, or none")
    except csv.Error as error:
        raise LabelError(f"{labels} line {reader.line_num}: not valid CSV ({error})") from None
    if not items:
        raise LabelError(f"{labels}: no images are listed")
    return list(items.values())


def identify(content: bytes, label: int, class_name: str, target: int | None = None, mask: bytes | None = None) -> str:
    """Hash of all that makes an image another task: its own bytes, its class, its target and its mask's bytes."""
    digest = hashlib.sha256(content)
    digest.update(f"{label}\0{class_name}".encode())
    if target is not None:
        digest.update(f"\0target\0{target}".encode())
    if mask is not None:
        digest.update(b"\0mask\0" + mask)
    return digest.hexdigest()[:16]


def check_class(kind: str, number: int, classes: int, where: str) -> None:
    """Raise a ``LabelError`` where none of so many ``classes`` has that number, which is a label or a target."""
    if not 0 <= number < classes:
        raise LabelError(f"{where}: {kind} {number} is out of range; the surrogates have classes 0 to {classes - 1}")


def check_target(target: int, label: int, where: str) -> None:
    """Raise a ``LabelError`` where an image is of the ``target`` class already."""
    if target == label:
        raise LabelError(f"{where}: target {target} is the image's true class; choose another, or leave the image out")


def _item(
    row: dict[str, str | None],
    where: str,
    root: Path,
    class_names: tuple[str, ...],
    classes: int,
    masks: Path | None,
    for_all: int | None,
) -> Item:
    file = (row["file"] or "").strip()
    path = inside(root, file, where)
    mask = None if masks is None else inside(masks.resolve(), file, where)
    text = (row["label"] or "").strip()
    try:
        label = int(text)
    except ValueError:
        raise LabelError(f"{where}: label {text!r} is not a whole number; labels count from 0") from None
    check_class("label", label, classes, where)
    name = (row.get("class_name") or "").strip() or (class_names[label] if label < len(class_names) else "")
    if not name:
        raise LabelError(f"{where}: no class name for label {label}; add a class_name column")
    target, target_name = for_all, ""
    if own := (row.get("target") or "").strip():
        if for_all is not None:
            raise LabelError(f"{where}: target {own!r} contradicts --target; leave the option out or empty the column")
        target = _find(own, class_names, classes, where)
    if target is not None:
        check_target(target, label, f"{where}, {file}")
        target_name = class_names[target] if target < len(class_names) else str(target)
    identity = identify(path.read_bytes(), label, name, target, None if mask is None else mask.read_bytes())
    return Item(identity, file, path, label, name, mask, target, target_name)


def _find(text: str, class_names: tuple[str, ...], classes: int, where: str) -> int:
    """The target that ``text`` gives by its number, or else by its exact name."""
    try:
        number = int(text)
    except ValueError:
        called = [number for number, name in enumerate(class_names) if name == text]
    else:
        check_class("target", number, classes, where)
        called = [number]
    if not called:
        near = suggest(text, list(class_names))
        raise LabelError(f"{where}: target {text!r} is neither a number nor a class that the surrogates know{near}")
    if len(called) > 1:
        raise LabelError(f"{where}: target {text!r} is the name of classes {called}; give the number of one")
    return called[0]


def inside(root: Path, file: str, where: str) -> Path:
    """The path of ``file`` below ``root``, which is resolved; a ``LabelError`` where it is no file inside of it."""
    path = root / file
    if not file or not path.resolve().is_relative_to(root):
        raise LabelError(f"{where}: file {file!r} does not lie inside {root}")
    if not path.is_file():
        raise LabelError(f"{where}: {path} does not exist")
    return path
