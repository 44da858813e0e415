"""Items of a run: its images with labels, targets and masks, read one after the other."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, NoReturn

from attnshift.classifiers.names import NAMES_FILE
from attnshift.data.captions import phrases_of
from attnshift.data.class_names import ClassNames
from attnshift.data.references import Reference, check_name, fetch, shown
from attnshift.data.samples import Sample, Samples
from attnshift.data.sources import open_source
from attnshift.errors import LabelError, UserError
from attnshift.registry import suggest
from attnshift.sizes import Size, read_size

__all__ = ["ChooseTarget", "Item", "check_class", "check_target", "identify", "read_items"]

_NO_TARGET = "none"
"""Target that ignores the targets of a source."""

ChooseTarget = Callable[[bytes, int, str, str], int]
"""Image's bytes, its label, the id that it has without a target, and its file -> its target,
another class."""


@dataclass(frozen=True)
class Item:
    """One image of a run.

    ``id`` is a hash made by ``identify``; it names results and random draws.
    """

    id: str
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
    caption: str = ""
    """Prompt of the image's own, in which its class is named; empty where the recipe makes one."""
    size: Size | None = None
    """Size to which the whole image is brought; None where the run has one, to which images are
    cropped."""

    def to_row(self) -> dict[str, str | int | None]:
        """Fields as plain values; ``from_row`` reverses this."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        texts = {name: None if values[name] is None else str(values[name]) for name in ("mask", "size")}
        return values | texts | {"image": str(self.image)}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Item:
        """Item from the values of ``to_row``."""
        values: dict[str, Any] = {
            "size": None,
            "caption": "",
            **{each.name: row[each.name] for each in fields(cls) if each.name in row},
        }
        mask = None if row["mask"] is None else Reference.parse(row["mask"])
        size = None if values["size"] is None else read_size(values["size"])
        return cls(**values | {"image": Reference.parse(row["image"]), "mask": mask, "size": size})


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
    checked_names: tuple[str, ...] = (),
    choices: Mapping[str, ChooseTarget] = {},
    own_size: Callable[[bytes, str], Size | None] = lambda content, name: None,
    captions: bool = False,
) -> Iterator[Item]:
    """Items of ``source`` in its order, each read on demand.

    A ``limit`` above 0 is the largest number of items. ``open_source`` describes the kinds of
    source. ``class_names`` gives the names of labels that the source does not name; ``classes`` is
    the number of classes. ``masks`` is a folder with a mask under the name of each image.
    ``target`` is a class, by number or name, for all images, or one of ``choices``, which chooses
    each image's own; without it, a column ``target`` of the source may give each image its own,
    which the target "none" ignores. A class of such a name comes first. ``checked_names`` are class
    names in label order that those of the source must not contradict.

    Every error is a ``UserError`` that names the place. If ``problems`` is given, it receives the
    errors found while reading, and reading goes on with the next row or file. An error that makes
    the whole ``source`` unusable is raised. ``examine`` receives all fetched bytes of images and
    masks, so they need not be fetched twice. A ``UserError`` that it raises counts as an error of
    that image. ``own_size`` takes an image's bytes and its name, and gives the item's ``size``.
    With ``captions`` every item has the caption that the source states, in which its class is
    named.
    """
    samples = open_source(source, labels, class_names, masks)
    ignored = target == _NO_TARGET and _NO_TARGET not in class_names
    choose = None if target is None or target in class_names else choices.get(target)
    for_all = None if target is None or ignored or choose else _find(target, class_names, classes, "`target`")
    vocabulary, checked = ClassNames(class_names), ClassNames(checked_names)
    examine = examine or (lambda reference, content: None)
    make = _Maker(vocabulary, checked, classes, for_all, choose, ignored, examine, own_size, captions)
    return _items(samples, make, labels or Path(source), limit, problems or _refuse)


def identify(
    content: bytes,
    label: int,
    class_name: str,
    target: int | None = None,
    mask: bytes | None = None,
    caption: str = "",
) -> str:
    """Hash of an image's bytes, class, target, mask and caption, which define its task: 16 hex
    digits."""
    digest = hashlib.sha256(content)
    digest.update(f"{label}\0{class_name}".encode())
    if target is not None:
        digest.update(f"\0target\0{target}".encode())
    if mask is not None:
        digest.update(b"\0mask\0" + mask)
    if caption:
        digest.update(f"\0caption\0{caption}".encode())
    return digest.hexdigest()[:16]


def check_class(kind: str, number: int, classes: int, where: str) -> None:
    """Raise ``LabelError`` unless ``number``, a label or a target, lies in 0 to ``classes - 1``."""
    if not 0 <= number < classes:
        hint = f" (do the {kind}s count from 1?)" if number == classes else ""
        known = f"the surrogates have classes 0 to {classes - 1}"
        raise LabelError(f"{where}: {kind} {number} is out of range; {known}{hint}")


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
            number = int(item.id, 16)
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

    vocabulary: ClassNames
    checked: ClassNames
    classes: int
    for_all: int | None
    choose: ChooseTarget | None
    untargeted: bool
    examine: Callable[[Reference, bytes], None]
    own_size: Callable[[bytes, str], Size | None]
    captions: bool

    def __call__(self, sample: Sample) -> Item:
        where, names = sample.where, self.vocabulary.names
        check_name(sample.file, where)
        label, own = self._label(sample)
        known = names[label] if label < len(names) else ""
        given = _text("class_name", sample.values.get("class_name"), where)
        self._check_name(label, given or sample.stated, where)
        name = given or known or own
        if not name:
            raise LabelError(
                f"{where}: no class name for label {label}; add a class_name column, or {NAMES_FILE} beside the weights"
            )
        caption = self._caption(sample, name) if self.captions else ""
        target, target_name = self._target(sample), ""
        if target is not None:
            check_target(target, label, f"{where}, {sample.file}")
        image = self._fetch(sample.image, sample.content, where)
        if self.choose is not None:
            target = self.choose(image, label, identify(image, label, name, caption=caption), sample.file)
        if target is not None:
            target_name = names[target] if target < len(names) else str(target)
        mask = None if sample.mask is None else self._fetch(sample.mask, None, where)
        id = identify(image, label, name, target, mask, caption)
        size = self.own_size(image, f"{where}: {sample.file}")
        return Item(id, sample.file, sample.image, label, name, sample.mask, target, target_name, caption, size)

    def _caption(self, sample: Sample, name: str) -> str:
        caption, where = _text("caption", sample.values.get("caption"), sample.where), sample.where
        if not caption:
            raise LabelError(f"{where}: {sample.file} has no caption; add a column caption, or leave `captions` out")
        phrases_of(caption, name, where)
        return caption

    def _label(self, sample: Sample) -> tuple[int, str]:
        """Label in the surrogates' order, and the name that the source gives that class, if any."""
        number = _label(sample.values.get("label"), sample.typed, sample.where, self.vocabulary)
        return self._placed("label", number, sample)

    def _placed(self, kind: Literal["label", "target"], number: int | str, sample: Sample) -> tuple[int, str]:
        """Class ``number`` of the source in the surrogates' order, and its name in the source."""
        where = sample.where
        if isinstance(number, str):
            return _find(number, self.vocabulary, self.classes, where, kind), ""
        if sample.first and not sample.first <= number < self.classes + sample.first:
            known = f"{sample.first} to {self.classes - 1 + sample.first}"
            raise LabelError(f"{where}: {kind} {number} is out of range; in this layout classes are {known}")
        own = sample.own_names
        if not own:
            check_class(kind, number - sample.first, self.classes, where)
            return number - sample.first, ""
        if not 0 <= number < len(own):
            raise LabelError(f"{where}: {kind} {number} is out of range; the file names classes 0 to {len(own) - 1}")
        place = self._by_name(kind, number, own[number], where)
        check_class(kind, place, self.classes, where)
        return place, own[number]

    def _by_name(self, kind: str, number: int, name: str, where: str) -> int:
        if not self.checked.names or name.isdecimal():
            return number
        if number in self.checked.alike(name):
            return number
        found = self.checked.find(name)
        if len(found) != 1:
            known = f"the name of classes {list(found)}" if found else "no class that the surrogates know"
            what = f"{kind} {number} is {shown(name)} in the file, {known}"
            raise LabelError(f"{where}: {what}; rename it, or set `accept_labels`")
        return found[0]

    def _check_name(self, label: int, name: str, where: str) -> None:
        other = self.checked.contradicts(label, name) if name else ""
        if other:
            known = f"class {label} is {shown(self.checked.names[label])}"
            what = f"class name {shown(name)} contradicts label {label}: for the surrogates {known}"
            raise LabelError(f"{where}: {what}; correct one of them, or set `accept_labels`")

    def _target(self, sample: Sample) -> int | None:
        value = None if self.untargeted else sample.values.get("target")
        number = sample.typed and isinstance(value, int) and not isinstance(value, bool)
        own = str(value) if number else _text("target", value, sample.where)
        if not own:
            return self.for_all
        if self.for_all is not None or self.choose is not None:
            what = f"target {shown(own)} contradicts `target`"
            raise LabelError(f"{sample.where}: {what}; leave the option out or empty the column")
        with suppress(ValueError):
            return self._placed("target", int(own), sample)[0]
        return _find(own, self.vocabulary, self.classes, sample.where)

    def _fetch(self, reference: Reference, content: bytes | None, where: str) -> bytes:
        try:
            content = fetch(reference) if content is None else content
            self.examine(reference, content)
        except UserError as error:
            raise type(error)(f"{where}: {error}") from None
        return content


def _label(value: object, typed: bool, where: str, names: ClassNames) -> int | str:
    """Number of a class, or its name as ``names`` has it."""
    if typed and isinstance(value, int) and not isinstance(value, bool):
        return value
    text = value if typed else str(value or "").strip()
    # int() reads underscores between digits, which no spreadsheet writes.
    if not typed and "_" not in str(text):
        with suppress(ValueError):
            return int(str(text))
    if isinstance(text, str) and names.find(text):
        return text
    quotes = "; write it without quotes" if typed and isinstance(value, str) and value.strip().isdecimal() else ""
    near = suggest(text, list(names.names)) if isinstance(text, str) and len(text) < 100 else ""
    raise LabelError(f"{where}: label {shown(text)} is not a whole number; labels count from 0{quotes}{near}")


def _text(kind: str, value: object, where: str) -> str:
    """Name without the spaces around it; empty if there is none."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise LabelError(f"{where}: {kind} {shown(value)} is not text; give a name, or leave it out")
    check_name(value.strip(), where, kind)
    return value.strip()


def _find(
    text: str, names: ClassNames | Sequence[str], classes: int, where: str, kind: Literal["label", "target"] = "target"
) -> int:
    """Number of the class that ``text`` gives, as a number or as a name."""
    names = names if isinstance(names, ClassNames) else ClassNames(names)
    called: tuple[int, ...]
    try:
        number = int(text)
    except ValueError:
        called = names.find(text)
    else:
        check_class(kind, number, classes, where)
        called = (number,)
    if len(called) == 1:
        return called[0]
    if called:
        raise LabelError(f"{where}: {kind} {shown(text)} is the name of classes {list(called)}; give the number of one")
    near = suggest(text, list(names.names))
    what = f"{kind} {shown(text)} is neither a number nor a class that the surrogates know"
    raise LabelError(f"{where}: {what}{near}")
