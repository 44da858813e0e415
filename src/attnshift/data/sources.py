"""Of what kind a source of images is: recognised by what is there, and refused where that leaves a choice."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from attnshift.data.entries import Entries
from attnshift.data.folders import check_url, class_entries, class_folders, manifest_entries
from attnshift.data.references import check_name, is_folder, is_regular, path_of, scheme_of, shown
from attnshift.errors import LabelError

__all__ = ["open_source"]

_MANIFESTS = ("metadata.csv", "metadata.jsonl")
_COMPRESSED = re.compile(r"\.(gz|bz2|xz|zst|lz4|tgz|tbz2?|txz|tzst|zip|7z)$", re.IGNORECASE)
# Compressed ones count as well, to be refused rather than passed over.
_SHARD = re.compile(r"\.((tar|parquet)(\.(gz|bz2|xz|zst|lz4))?|tgz|tbz2?|txz|tzst)$", re.IGNORECASE)
_BRACES = re.compile(r"\{(\d{1,9})\.\.(\d{1,9})\}")
_MOST_SHARDS = 100_000


def open_source(source: str | Path, labels: Path | None, class_names: Sequence[str], masks: Path | None) -> Entries:
    """What ``source`` holds, read when it is asked for. With ``labels``, a CSV or JSON lines file:

    - a folder, or the prefix of URLs such as s3://bucket/photos, below which the files lie.

    Without it:

    - a folder that has metadata.csv or metadata.jsonl, or such a file alone: files lie beside it, or are URLs;
    - a folder of class subfolders, whose names give the labels, or have a place in classes.txt;
    - a parquet file or a folder of them; a tar shard, a folder of them, or shard-{000..009}.tar.

    ``masks`` go with files in a folder alone. What is none of these, or two at once, is a ``LabelError``.
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
        return manifest_entries(path.parent.resolve(), path, _resolved(masks))
    _refuse_masks(masks, text)
    return _in_files(_expanded(path), text)


def _below_url(prefix: str, labels: Path | None, masks: Path | None) -> Entries:
    check_url(prefix, "the source")
    _refuse_masks(masks, prefix)
    if prefix.lower().endswith((".tar", ".parquet", ".csv", ".jsonl")) or _COMPRESSED.search(prefix):
        raise LabelError(f"{prefix}: a file that holds or lists images is read from disk alone; download it first")
    if "?" in prefix or "#" in prefix:
        raise LabelError(f"{prefix}: files cannot lie below a URL with ? or #; write whole URLs into the label file")
    if labels is None:
        raise LabelError(f"{prefix}: give --labels, a file that lists what lies there")
    return manifest_entries(prefix, labels, None)


def _listed(folder: Path, labels: Path, masks: Path | None) -> Entries:
    if is_regular(folder) and folder.suffix.lower() in (".tar", ".parquet", ".csv", ".jsonl"):
        raise LabelError(f"{folder}: it holds labels of its own; leave --labels {labels} out, or give a folder")
    if not is_folder(folder):
        raise LabelError(f"{folder}: no such folder of images")
    if not is_regular(labels):
        raise LabelError(f"{labels}: no such label file; it holds the columns file,label[,class_name][,target]")
    return manifest_entries(folder.resolve(), labels, _resolved(masks))


def _in_folder(folder: Path, class_names: Sequence[str], masks: Path | None) -> Entries:
    found: dict[str, list[Path]] = {}
    for path in _shards(folder):
        found.setdefault("parquet files" if ".parquet" in path.name.lower() else "tar files", []).append(path)
    found |= {name: [folder / name] for name in _MANIFESTS if is_regular(folder / name)}
    # A manifest beside subfolders lists what lies in them; anything else there is a second kind of source.
    if class_folders(folder) and not (len(found) == 1 and set(found) <= set(_MANIFESTS)):
        found["subfolders"] = []
    if len(found) > 1:
        raise LabelError(f"{folder} has {' and '.join(found)}; give --labels, or the one that is meant")
    if not found:
        raise LabelError(f"{folder}: nothing there says what the labels are; give --labels, a CSV with file,label")
    (paths,) = found.values()
    if not paths:
        return class_entries(folder.resolve(), class_names, _resolved(masks))
    if paths[0].name in _MANIFESTS:
        return manifest_entries(folder.resolve(), paths[0], _resolved(masks))
    _refuse_masks(masks, str(folder))
    return _in_files(paths, str(folder))


def _shards(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as found:
            return sorted(Path(each) for each in found if _SHARD.search(each.name) and not each.name.startswith("."))
    except OSError as error:
        raise LabelError(f"{folder}: cannot be listed ({error.strerror}); check its permissions") from None


def _in_files(paths: Sequence[Path], source: str) -> Entries:
    from attnshift.data.archives import tar_entries
    from attnshift.data.parquet import parquet_entries

    for path in paths:
        if _COMPRESSED.search(path.name):
            raise LabelError(f"{path}: compressed archives cannot be read in places; unpack it to a .tar or a folder")
        if not is_regular(path):
            raise LabelError(f"{path}: no such folder of images, and no file of them")
    suffixes = {path.suffix.lower() for path in paths}
    if suffixes == {".tar"}:
        return tar_entries(paths)
    if suffixes == {".parquet"}:
        return parquet_entries(paths)
    kinds = "a folder, a .csv or .jsonl that lists images, .parquet, or .tar"
    raise LabelError(f"{source}: not a source of images; give {kinds}")


def _expanded(path: Path) -> list[Path]:
    """The shards that ``shard-{000..009}.tar`` stands for, numbers as wide as the first; or ``path`` itself."""
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
        raise LabelError(f"--masks {masks}: masks go with a folder of image files, and {source} is none; leave it out")


def _resolved(masks: Path | None) -> Path | None:
    return None if masks is None else masks.resolve()
