"""Items of a run: its images with labels, targets and masks, read one after the other."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NoReturn

from attnshift.data.folders import inside
from attnshift.data.references import Reference, check_name, fetch, shown
from attnshift.data.samples import Sample, Samples
from attnshift.data.sources import open_source
from attnshift.errors import LabelError, UserError
from attnshift.registry import suggest

__all__ = ["Item", "check_class", "check_target", "identify", "inside", "read_items"]


@dataclass(frozen=True)
class Item:
    """One image of a run.

    ``identity`` is a hash made by ``identify``; it names results and random draws.
    """

    identity: str
    file: str
    """Name of the image in its source."""
    image: Reference
    label: int
    class_name: str
    mask: Reference | None = None
    """Mask of the object, an image of its own."""
    target: int | None = None
    """Number of the target class, from 0; None in an untargeted attack."""
    target_name: str = ""

    def to_row(self) -> dict[str, str | int | None]:
        """Fields as plain values; ``from_row`` reverses this."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return values | {"image": str(self.image), "mask": None if self.mask is None else str(self.mask)}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Item:
        """Item from the values of ``to_row``."""
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
    """Items of ``source`` in its order, each read on demand.

    A ``limit`` above 0 is the largest number of items. ``open_source`` describes the kinds of
    source. ``class_names`` gives the names of labels that the source does not name; ``classes`` is
    the number of classes. ``masks`` is a folder with a mask under the name of each image.
    ``target`` is a class, by number or name, for all images; without it, a column ``target`` of the
    source may give each image its own.

    Every error is a ``UserError`` that names the place. If ``problems`` is given, it receives the
    errors found while reading, and reading goes on with the next row or file. An error that makes
    the whole ``source`` unusable is raised. ``examine`` receives all fetched bytes of images and
    masks, so they need not be fetched twice. A ``UserError`` that it raises counts as an error of
    that image.
    """
    samples = open_source(source, labels, class_names, masks)
    for_all = None if target is None else _find(target, class_names, classes, "`target`")
    make = _Maker(class_names, classes, for_all, examine or (lambda reference, content: None))
    return _items(samples, make, labels or Path(source), limit, problems or _refuse)


def identify(content: bytes, label: int, class_name: str, target: int | None = None, mask: bytes | None = None) -> str:
    """Hash of an image's bytes, class, target and mask, which define its task: 16 hex digits."""
    digest = hashlib.sha256(content)
    digest.update(f"{label}\0{class_name}".encode())
    if target is not None:
        digest.update(f"\0target\0{target}".encode())
    if mask is not None:
        digest.update(b"\0mask\0" + mask)
    return digest.hexdigest()[:16]


def check_class(kind: str, number: int, classes: int, where: str) -> None:
    """Raise ``LabelError`` unless ``number``, a label or a target, lies in 0 to ``classes - 1``."""
    if not 0 <= number < classes:
        raise LabelError(f"{where}: {kind} {number} is out of range; the surrogates have classes 0 to {classes - 1}")


def check_target(target: int, label: int, where: str) -> None:
    """Raise ``LabelError`` if ``target`` is the image's own ``label``."""
    if target == label:
        raise LabelError(f"{where}: target {target} is the image's true class; choose another, or leave the image out")


def _items(
    samples: Samples, make: _Maker, listed: Path, limit: int, problems: Callable[[UserError], None]
) -> Iterator[Item]:
    seen: set[int] = set()
    targeted, empty = None, True
    for sample in samples:
        empty = False
        try:
            if isinstance(sample, UserError):
                raise sample
            item = make(sample)
            number = int(item.identity, 16)
            if number in seen:
                where = f"{sample.where}: {item.file} with label {item.label}"
                raise LabelError(f"{where} was listed before; remove one")
            if targeted is not None and targeted != (item.target is not None):
                found = "no target" if item.target is None else "a target"
                every = "give every image a target, or none"
                raise LabelError(f"{sample.where}: {found}, unlike the images before; {every}")
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
    """Function from a sample of a source to an item."""

    class_names: tuple[str, ...]
    classes: int
    for_all: int | None
    examine: Callable[[Reference, bytes], None]

    def __call__(self, sample: Sample) -> Item:
        where = sample.where
        check_name(sample.file, where)
        label = _label(sample.values.get("label"), sample.typed, where)
        check_class("label", label, self.classes, where)
        known = self.class_names[label] if label < len(self.class_names) else ""
        name = _text("class_name", sample.values.get("class_name"), where) or known
        if not name:
            raise LabelError(f"{where}: no class name for label {label}; add a class_name column")
        target, target_name = self._target(sample), ""
        if target is not None:
            check_target(target, label, f"{where}, {sample.file}")
            target_name = self.class_names[target] if target < len(self.class_names) else str(target)
        image = self._fetch(sample.image, sample.content, where)
        mask = None if sample.mask is None else self._fetch(sample.mask, None, where)
        identity = identify(image, label, name, target, mask)
        return Item(identity, sample.file, sample.image, label, name, sample.mask, target, target_name)

    def _target(self, sample: Sample) -> int | None:
        value = sample.values.get("target")
        number = sample.typed and isinstance(value, int) and not isinstance(value, bool)
        own = str(value) if number else _text("target", value, sample.where)
        if not own:
            return self.for_all
        if self.for_all is not None:
            what = f"target {shown(own)} contradicts `target`"
            raise LabelError(f"{sample.where}: {what}; leave the option out or empty the column")
        return _find(own, self.class_names, self.classes, sample.where)

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
    # int() reads underscores between digits, which no spreadsheet writes.
    if not typed and "_" not in str(text):
        with suppress(ValueError):
            return int(str(text))
    quotes = "; write it without quotes" if typed and isinstance(value, str) else ""
    raise LabelError(f"{where}: label {shown(text)} is not a whole number; labels count from 0{quotes}")


def _text(kind: str, value: object, where: str) -> str:
    """Name without the spaces around it; empty if there is none."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise LabelError(f"{where}: {kind} {shown(value)} is not text; give a name, or leave it out")
    check_name(value.strip(), where, kind)
    return value.strip()


def _find(text: str, class_names: Sequence[str], classes: int, where: str) -> int:
    """Number of the target class that ``text`` gives, as a number or as an exact name."""
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
