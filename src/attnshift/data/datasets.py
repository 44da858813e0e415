"""Which images a run is about, one after the other, wherever they are."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NoReturn

from attnshift.data.entries import Entries, Entry
from attnshift.data.folders import inside
from attnshift.data.references import Reference, check_name, fetch, shown
from attnshift.data.sources import open_source
from attnshift.errors import LabelError, UserError
from attnshift.registry import suggest

__all__ = ["Item", "check_class", "check_target", "identify", "inside", "read_items"]


@dataclass(frozen=True)
class Item:
    """One image of a run. ``identity``, a hash that ``identify`` makes, names its results and draws."""

    identity: str
    file: str
    """What it is called where it comes from."""
    image: Reference
    label: int
    class_name: str
    mask: Reference | None = None
    """Where its object is, as an image of its own."""
    target: int | None = None
    """The class that it shall be seen as, called ``target_name``; absent in an untargeted attack."""
    target_name: str = ""

    def to_row(self) -> dict[str, str | int | None]:
        """Its fields as plain values, from which ``from_row`` makes it again."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return values | {"image": str(self.image), "mask": None if self.mask is None else str(self.mask)}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Item:
        values = {each.name: row[each.name] for each in fields(cls)}
        mask = None if row["mask"] is None else Reference.parse(row["mask"])
        return cls(**values | {"image": Reference.parse(row["image"]), "mask": mask})


def read_items(
    source: str | Path,
    labels: Path | None,
    class_names: tuple[str, ...],
    classes: int,
    limit: int = 0,
    masks: Path | None = None,
    target: str | None = None,
    problems: Callable[[UserError], None] | None = None,
    examine: Callable[[Reference, bytes], None] | None = None,
) -> Iterator[Item]:
    """Items of ``source`` in its order, the first ``limit`` of them if that is not 0, each read when it is asked for.

    ``open_source`` says what a source may be. ``class_names`` gives the name of a label where the source has none;
    ``classes`` is how many there are. ``masks`` is a folder that holds a mask under the name of each image. ``target``
    is a class by number or name, for all images; else the source's column of that name may give each its own.

    Every complaint is a ``UserError`` that names the place. With ``problems``, what is found while reading goes there
    and reading goes on without it, with the next row or the next file; what makes ``source`` none at all is raised.
    ``examine`` is shown all that is fetched, image and mask, so that nobody needs to fetch it again; the ``UserError``
    that it may raise is the entry's.
    """
    entries = open_source(source, labels, class_names, masks)
    for_all = None if target is None else _find(target, class_names, classes, "--target")
    make = _Maker(class_names, classes, for_all, examine or (lambda reference, content: None))
    return _items(entries, make, labels or Path(source), limit, problems or _refuse)


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


def _items(
    entries: Entries, make: _Maker, listed: Path, limit: int, problems: Callable[[UserError], None]
) -> Iterator[Item]:
    seen: set[int] = set()
    targeted, empty = None, True
    for entry in entries:
        empty = False
        try:
            if isinstance(entry, UserError):
                raise entry
            item = make(entry)
            number = int(item.identity, 16)
            if number in seen:
                where = f"{entry.where}: {item.file} with label {item.label}"
                raise LabelError(f"{where} was listed before; remove one")
            if targeted is not None and targeted != (item.target is not None):
                found = "no target" if item.target is None else "a target"
                every = "give every image a target, or none"
                raise LabelError(f"{entry.where}: {found}, unlike the images before; {every}")
        except UserError as error:
            problems(error)
            continue
        seen.add(number)
        targeted = item.target is not None
        yield item
        if len(seen) == limit:
            return
    if empty:
        raise LabelError(f"{listed}: no images are listed")


def _refuse(error: UserError) -> NoReturn:
    raise error


@dataclass(frozen=True)
class _Maker:
    """Makes an item of what a source says."""

    class_names: tuple[str, ...]
    classes: int
    for_all: int | None
    examine: Callable[[Reference, bytes], None]

    def __call__(self, entry: Entry) -> Item:
        where = entry.where
        check_name(entry.file, where)
        label = _label(entry.values.get("label"), entry.typed, where)
        check_class("label", label, self.classes, where)
        known = self.class_names[label] if label < len(self.class_names) else ""
        name = _text("class_name", entry.values.get("class_name"), where) or known
        if not name:
            raise LabelError(f"{where}: no class name for label {label}; add a class_name column")
        target, target_name = self._target(entry), ""
        if target is not None:
            check_target(target, label, f"{where}, {entry.file}")
            target_name = self.class_names[target] if target < len(self.class_names) else str(target)
        image = self._fetch(entry.image, entry.content, where)
        mask = None if entry.mask is None else self._fetch(entry.mask, None, where)
        identity = identify(image, label, name, target, mask)
        return Item(identity, entry.file, entry.image, label, name, entry.mask, target, target_name)

    def _target(self, entry: Entry) -> int | None:
        value = entry.values.get("target")
        number = entry.typed and isinstance(value, int) and not isinstance(value, bool)
        own = str(value) if number else _text("target", value, entry.where)
        if not own:
            return self.for_all
        if self.for_all is not None:
            what = f"target {shown(own)} contradicts --target"
            raise LabelError(f"{entry.where}: {what}; leave the option out or empty the column")
        return _find(own, self.class_names, self.classes, entry.where)

    def _fetch(self, reference: Reference, content: bytes | None, where: str) -> bytes:
        try:
            content = fetch(reference) if content is None else content
            self.examine(reference, content)
        except UserError as error:
            raise type(error)(f"{where}: {error}") from None
        return content


def _label(value: object, typed: bool, where: str) -> int:
    if typed and isinstance(value, int) and not isinstance(value, bool):
        return value
    text = value if typed else str(value or "").strip()
    # int() takes underscores for thousands, which no spreadsheet writes.
    if not typed and "_" not in str(text):
        with suppress(ValueError):
            return int(str(text))
    quotes = "; write it without quotes" if typed and isinstance(value, str) else ""
    raise LabelError(f"{where}: label {shown(text)} is not a whole number; labels count from 0{quotes}")


def _text(kind: str, value: object, where: str) -> str:
    """A name without the spaces around it; nothing where there is none."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise LabelError(f"{where}: {kind} {shown(value)} is not text; give a name, or leave it out")
    check_name(value.strip(), where, kind)
    return value.strip()


def _find(text: str, class_names: Sequence[str], classes: int, where: str) -> int:
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
        what = f"target {shown(text)} is neither a number nor a class that the surrogates know"
        raise LabelError(f"{where}: {what}{near}")
    if len(called) > 1:
        raise LabelError(f"{where}: target {shown(text)} is the name of classes {called}; give the number of one")
    return called[0]
