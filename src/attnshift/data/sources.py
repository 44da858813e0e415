"""Recognition of the kind of a source of images. An ambiguous source is refused."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from attnshift.data.folders import check_url, class_folders, class_samples, images_in, manifest_samples
from attnshift.data.references import check_name, is_folder, is_regular, path_of, scheme_of, shown
from attnshift.data.samples import Samples
from attnshift.errors import LabelError

__all__ = ["open_source"]

_MANIFESTS = ("metadata.csv", "metadata.jsonl")
_LABEL_LINES = "labels.txt"
_COMPRESSED = re.compile(r"\.(gz|bz2|xz|zst|lz4|tgz|tbz2?|txz|tzst|zip|7z)$", re.IGNORECASE)
# Compressed shards match too: they are refused and not skipped.
_SHARD = re.compile(r"\.((tar|parquet)(\.(gz|bz2|xz|zst|lz4))?|tgz|tbz2?|txz|tzst)$", re.IGNORECASE)
_BRACES = re.compile(r"\{(\d{1,9})\.\.(\d{1,9})\}")
_MOST_SHARDS = 100_000


def open_source(source: str | Path, labels: Path | None, class_names: Sequence[str], masks: Path | None) -> Samples:
    """Samples of ``source``, read on demand. With ``labels``, a CSV or JSON lines file, it is

    - a folder, or a prefix of URLs such as s3://bucket/photos, that contains the listed files; a
      folder may also go with a .txt that has one label a line.

    Without ``labels`` it is one of

    - a folder with metadata.csv or metadata.jsonl, or that file itself: it lists files beside it,
      or URLs;
    - a folder with labels.txt, one label a line from 1, beside images or beside a folder images;
    - a folder of class subfolders, whose names are labels or class names, or are listed in
      classes.txt;
    - a parquet file, or a folder of them;
    - a tar shard, a folder of them, or shard-{000..009}.tar.

    ``masks`` are allowed for files in a folder only. Raises ``LabelError`` if ``source`` is none of
    these kinds, or two at once.
    """
    text = str(source)
    check_name(text, "the source", "name")
    if text.startswith("pipe:"):
        raise LabelError(f"{shown(text)}: a command is never run for its output; save it, and give the file")
    if masks is not None and not is_folder(masks):
        raise LabelError(f"{masks}: no such folder of masks")
    if scheme_of(text) == "file":
        source = path_of(text)
    elif scheme_of(text):
        return _below_url(text, labels, masks)
    path = Path(source)
    if labels is not None:
        return _listed(path, labels, masks)
    if is_folder(path):
        return _in_folder(path, class_names, masks)
    if is_regular(path) and path.suffix.lower() in (".csv", ".jsonl"):
        return manifest_samples(path.parent.resolve(), path, _resolved(masks))
    _refuse_masks(masks, text)
    return _in_files(_expanded(path), text)


def _below_url(prefix: str, labels: Path | None, masks: Path | None) -> Samples:
    check_url(prefix, "the source")
    _refuse_masks(masks, prefix)
    if prefix.lower().endswith((".tar", ".parquet", ".csv", ".jsonl")) or _COMPRESSED.search(prefix):
        raise LabelError(f"{prefix}: a file that holds or lists images is only read from disk; download it first")
    if "?" in prefix or "#" in prefix:
        raise LabelError(f"{prefix}: files cannot lie below a URL with ? or #; write whole URLs into the label file")
    if labels is None:
        raise LabelError(f"{prefix}: give `labels`, a file that lists what lies there")
    return manifest_samples(prefix, labels, None)


def _listed(folder: Path, labels: Path, masks: Path | None) -> Samples:
    if is_regular(folder) and folder.suffix.lower() in (".tar", ".parquet", ".csv", ".jsonl"):
        raise LabelError(f"{folder}: it holds labels of its own; leave out `labels` ({labels}), or give a folder")
    if not is_folder(folder):
        raise LabelError(f"{folder}: no such folder of images")
    if not is_regular(labels):
        raise LabelError(f"{labels}: no such label file; it holds the columns file,label[,class_name][,target]")
    return manifest_samples(folder.resolve(), labels, _resolved(masks))


def _in_folder(folder: Path, class_names: Sequence[str], masks: Path | None) -> Samples:
    found: dict[str, list[Path]] = {}
    for path in _shards(folder):
        found.setdefault("parquet files" if ".parquet" in path.name.lower() else "tar files", []).append(path)
    found |= {name: [folder / name] for name in _MANIFESTS if is_regular(folder / name)}
    counted = _beside_label_lines(folder)
    if counted is not None:
        found[_LABEL_LINES] = [folder / _LABEL_LINES]
    # A manifest beside subfolders lists the files in them. Anything else there is a second kind of
    # source.
    if class_folders(folder) and not (len(found) == 1 and set(found) <= {*_MANIFESTS, _LABEL_LINES}):
        found["subfolders"] = []
    if len(found) > 1:
        raise LabelError(f"{folder} has {' and '.join(found)}; give `labels`, or the one that is meant")
    if not found:
        raise LabelError(f"{folder}: nothing there gives labels; give `labels`, a CSV with file,label")
    (paths,) = found.values()
    if not paths:
        return class_samples(folder.resolve(), class_names, _resolved(masks))
    if counted is not None:
        return manifest_samples(counted.resolve(), paths[0], _resolved(masks))
    if paths[0].name in _MANIFESTS:
        return manifest_samples(folder.resolve(), paths[0], _resolved(masks))
    _refuse_masks(masks, str(folder))
    return _in_files(paths, str(folder))


def _beside_label_lines(folder: Path) -> Path | None:
    """Folder of the images that labels.txt in ``folder`` counts: itself,
    or images/ in it; None without both."""
    if not is_regular(folder / _LABEL_LINES):
        return None
    beside = [each for each in (folder, folder / "images") if is_folder(each) and images_in(each)]
    return beside[0] if beside else None


def _shards(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as found:
            return sorted(Path(each) for each in found if _SHARD.search(each.name) and not each.name.startswith("."))
    except OSError as error:
        raise LabelError(f"{folder}: cannot be listed ({error.strerror}); check its permissions") from None


def _in_files(paths: Sequence[Path], source: str) -> Samples:
    from attnshift.data.archives import tar_samples
    from attnshift.data.parquet import parquet_samples

    for path in paths:
        if _COMPRESSED.search(path.name):
            raise LabelError(f"{path}: compressed archives cannot be read in places; unpack it to a .tar or a folder")
        if not is_regular(path):
            raise LabelError(f"{path}: no such folder of images, and no file of them")
    suffixes = {path.suffix.lower() for path in paths}
    if suffixes == {".tar"}:
        return tar_samples(paths)
    if suffixes == {".parquet"}:
        return parquet_samples(paths)
    kinds = "a folder, a .csv or .jsonl that lists images, .parquet, or .tar"
    raise LabelError(f"{source}: not a source of images; give {kinds}")


def _expanded(path: Path) -> list[Path]:
    """Shards of a range such as ``shard-{000..009}.tar``, or ``path`` itself if it has no range.

    All numbers are as wide as the first.
    """
    braces = _BRACES.search(path.name)
    if braces is None or is_regular(path):
        return [path]
    first, last = braces.groups()
    count = int(last) - int(first) + 1
    if not 0 < count <= _MOST_SHARDS or _BRACES.search(path.name, braces.end()):
        raise LabelError(f"{path}: give one range with the lower number first, such as shard-{{000..009}}.tar")
    before, after = path.name[: braces.start()], path.name[braces.end() :]
    return [path.with_name(f"{before}{number:0{len(first)}d}{after}") for number in range(int(first), int(last) + 1)]


def _refuse_masks(masks: Path | None, source: str) -> None:
    if masks is not None:
        raise LabelError(f"`masks` ({masks}): masks need a folder of image files, which {source} is not; leave it out")


def _resolved(masks: Path | None) -> Path | None:
    return None if masks is None else masks.resolve()
