"""Images that are files of their own: listed in a manifest, or sorted into class subfolders."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn
from urllib.parse import quote

from attnshift.data.class_names import ClassNames
from attnshift.data.manifests import ManifestRow, read_label_lines, read_manifest
from attnshift.data.references import Reference, check_name, is_regular, is_there, scheme_of, shown
from attnshift.data.samples import IMAGE_SUFFIXES, Sample, Samples
from attnshift.errors import LabelError

__all__ = [
    "CLASS_LIST",
    "SCHEMES",
    "check_url",
    "class_folders",
    "class_samples",
    "images_in",
    "inside",
    "manifest_samples",
    "mask_of",
]

CLASS_LIST = "classes.txt"
"""File beside class subfolders that lists their names, one a line, in label order."""

SCHEMES = ("http", "https", "s3", "gs", "az", "abfs", "hf", "memory")
"""Schemes of URLs that a source may have."""

_LISTED = ("http", "https", "s3")
"""Schemes of URLs that a manifest may list.

Others may have written it, so local files are excluded.
"""

_LEFT_ALONE = ("thumbs.db", "desktop.ini")


def inside(root: Path, file: str, where: str) -> Path:
    """Path of ``file`` below ``root``, a resolved path.

    Raises ``LabelError`` unless it is a file inside.
    """
    check_name(file, where)
    path = root / file
    if not file or not path.resolve().is_relative_to(root):
        raise LabelError(f"{where}: file {shown(file)} does not lie inside {root}")
    if not is_regular(path):
        named = path if len(file) < 256 else f"file {shown(file)}"
        raise LabelError(f"{where}: {named} {'is not a regular file' if is_there(path) else 'does not exist'}")
    return path


def mask_of(masks: Path, file: str, where: str) -> Path:
    """Path of the mask of the image ``file`` below ``masks``, a resolved folder.

    It has the image's own name, or the name with another ending of an image: ``a.png`` for
    ``a.jpg``. Raises ``LabelError`` where there is none, or where several are and none has the
    image's own name.
    """
    check_name(file, where)
    path = masks / file
    if is_there(path) or not file:
        return inside(masks, file, where)
    others = [path.with_suffix(end).name for end in dict.fromkeys((*IMAGE_SUFFIXES, *map(str.upper, IMAGE_SUFFIXES)))]
    found = [name for name in others if path.parent.resolve().is_relative_to(masks) and is_there(path.parent / name)]
    different = [name for at, name in enumerate(found) if not _same_file(path.parent, name, found[:at])]
    if len(different) > 1:
        raise LabelError(f"{where}: the masks {' and '.join(different)} both fit {shown(file)}; keep one in {masks}")
    return inside(masks, (Path(file).parent / different[0]).as_posix() if different else file, where)


def _same_file(folder: Path, name: str, others: Sequence[str]) -> bool:
    """Whether ``name`` is one of ``others`` on a file system that does not tell a from A."""
    return any((folder / name).samefile(folder / other) for other in others)


def manifest_samples(root: Path | str, labels: Path, masks: Path | None) -> Samples:
    """Samples of the manifest ``labels``: files below ``root``, or URLs.

    ``root`` is a folder or a prefix of URLs. ``masks`` is a folder with a mask under the name of
    each image.
    """
    for row in _rows(root, labels):
        if isinstance(row, LabelError):
            yield row
            continue
        file = str(row.file or "").strip()
        try:
            image = _locate(root, file, row.where)
            mask = None if masks is None else Reference("file", str(mask_of(masks, file, row.where)))
        except LabelError as error:
            yield error
            continue
        yield Sample(row.where, file, image, row.values, mask, typed=row.typed, first=row.first)


def _rows(root: Path | str, labels: Path) -> Iterator[ManifestRow | LabelError]:
    if labels.suffix.lower() != ".txt":
        return read_manifest(labels)
    if not isinstance(root, Path):
        raise LabelError(f"{labels}: one label a line needs a folder to list, which {root} is not; use a CSV")
    return read_label_lines(labels, images_in(root))


def images_in(folder: Path) -> list[str]:
    """Names of the images that lie in ``folder`` itself."""
    try:
        with os.scandir(folder) as found:
            names = [each.name for each in found if not each.is_dir() and not each.name.startswith(".")]
    except OSError as error:
        _complain(error)
    return [name for name in names if name.lower().endswith(IMAGE_SUFFIXES)]


def check_url(url: str, where: str, schemes: Sequence[str] = SCHEMES) -> None:
    """Raise ``LabelError`` for a URL that cannot be fetched or holds a user or password."""
    if "@" in re.split(r"[/?#]", url.partition("://")[2])[0]:
        raise LabelError(f"{where}: the URL holds a user or password, which a run would store; use the environment")
    if scheme_of(url) not in schemes:
        known = ", ".join(f"{each}://" for each in schemes)
        raise LabelError(f"{where}: {shown(url)} cannot be fetched; use a file of the folder or one of {known}")


def class_folders(root: Path) -> list[str]:
    """Sorted names of the subfolders of ``root``, without hidden ones."""
    try:
        with os.scandir(root) as found:
            return sorted(each.name for each in found if each.is_dir() and not each.name.startswith("."))
    except OSError as error:
        _complain(error)


def class_samples(root: Path, class_names: Sequence[str], masks: Path | None) -> Samples:
    """Samples of the class subfolders of ``root``, at any depth, by label and then by name."""
    labels = _labels_of(root, class_folders(root), class_names)
    with os.scandir(root) as beside:
        for each in beside:
            if each.name.lower().endswith(IMAGE_SUFFIXES) and each.name not in labels:
                advice = "lies in none of the subfolders; move it into its class"
                yield LabelError(f"{root}: image {shown(each.name)} {advice}")
    for name, label in sorted(labels.items(), key=lambda each: (each[1], each[0])):
        called = class_names[label] if label < len(class_names) else "" if name.isdecimal() else name
        for file in _files_below(root, name):
            try:
                image = Reference("file", str(inside(root, file, str(root))))
                if not file.lower().endswith(IMAGE_SUFFIXES):
                    raise LabelError(f"{root / file}: not the name of an image ({' '.join(IMAGE_SUFFIXES)}); remove it")
                mask = None if masks is None else Reference("file", str(mask_of(masks, file, str(root / file))))
            except LabelError as error:
                yield error
            else:
                values = {"label": label, "class_name": called}
                stated = "" if name.isdecimal() else name
                yield Sample(str(root / file), file, image, values, mask, typed=True, stated=stated)


def _locate(root: Path | str, file: str, where: str) -> Reference:
    check_name(file, where)
    if scheme_of(file):
        check_url(file, where, _LISTED)
        return Reference("url", file)
    if isinstance(root, Path):
        return Reference("file", str(inside(root, file, where)))
    if not file or file.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", file):
        raise LabelError(f"{where}: file {shown(file)} does not lie inside {root}")
    return Reference("url", f"{root.rstrip('/')}/{quote(file) if scheme_of(root) in ('http', 'https') else file}")


def _labels_of(root: Path, names: Sequence[str], class_names: Sequence[str]) -> dict[str, int]:
    """Map from subfolder to label. The order of names (1, 10, 2) is never used as label order."""
    for name in names:
        check_name(name, str(root), "subfolder")
    listed = root / CLASS_LIST
    if is_regular(listed):
        return _known(names, _read_classes(listed), f"{listed}: it has no line for subfolder")
    if all(name.isascii() and name.isdecimal() for name in names):
        labels = {name: int(name) for name in names}
        if len(set(labels.values())) < len(labels):
            raise LabelError(
                f"{root}: two subfolders have the same number, one of them with zeros before it; join them"
            )
        return labels
    order = "their lexicographic order (1, 10, 2) is not label order"
    advice = f"name all subfolders by label or by the surrogates' class names, or list them in {CLASS_LIST}; {order}"
    known, called = ClassNames(class_names), dict[int, str]()
    for name in names:
        found = known.find(name)
        if len(found) > 1:
            raise LabelError(
                f"{root}: subfolder {shown(name)} is the name of several classes; list all in {CLASS_LIST}"
            )
        for label in found:
            if called.setdefault(label, name) != name:
                raise LabelError(
                    f"{root}: subfolders {shown(called[label])} and {shown(name)} are one class; join them"
                )
        if not found:
            raise LabelError(f"{root}: {advice}; unknown is subfolder {shown(name)}")
    return {name: label for label, name in called.items()}


def _known(names: Sequence[str], order: Sequence[str], complaint: str) -> dict[str, int]:
    places = {name: place for place, name in enumerate(order)}
    for name in names:
        if name not in places:
            raise LabelError(f"{complaint} {shown(name)}")
    return {name: places[name] for name in names}


def _read_classes(path: Path) -> list[str]:
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError:
        raise LabelError(f"{path} is not UTF-8 text; save it as UTF-8") from None
    while names and not names[-1]:
        names.pop()
    for number, name in enumerate(names, 1):
        if not name or names.index(name) < number - 1:
            what = f"{shown(name)} is listed before" if name else "an empty line, which would count as a class"
            raise LabelError(f"{path} line {number}: {what}; give every class one line")
    return names


def _files_below(root: Path, name: str) -> Iterator[str]:
    """Files below ``root / name``, relative to ``root``.

    Memory holds the names of one folder at a time.
    """
    for folder, below, files in os.walk(root / name, onerror=_complain):
        # os.walk skips links to folders. They are listed here, so that they are refused, as are
        # folders with the name of an image.
        odd = [each for each in below if each.lower().endswith(IMAGE_SUFFIXES) or Path(folder, each).is_symlink()]
        below[:] = sorted(each for each in below if not each.startswith(".") and each not in odd)
        for file in sorted(files + odd):
            if not file.startswith(".") and file.lower() not in _LEFT_ALONE:
                yield Path(folder, file).relative_to(root).as_posix()


def _complain(error: OSError) -> NoReturn:
    raise LabelError(f"{error.filename}: cannot be listed ({error.strerror}); check its permissions")
