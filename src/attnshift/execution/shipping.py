"""Models that a worker's host lacks: found on the coordinator's host,
sent in blocks, loaded under their names.

Only data travels: weights as safetensors files, configurations, vocabularies and lists of class
names. Code and pickles stay where they are.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from attnshift.data.references import is_folder, is_regular
from attnshift.defences.names import undefended
from attnshift.diffusion import BACKBONES
from attnshift.diffusion.names import split_options
from attnshift.errors import RunError
from attnshift.recipes.schema import Recipe
from attnshift.results.spec import RunSpec

__all__ = ["LARGEST_MODEL", "Parts", "files_of", "loaded_as", "local_models", "read_blocks", "temporary_folder"]

LARGEST_MODEL = 32 * 10**9
"""Most bytes of one model that are sent to a host."""

Parts = tuple[str | Path, ...]
"""A model's name in parts: a ``Path`` for each path in it that exists on the coordinator's host."""

_BLOCK = 64 * 2**20
"""Bytes that are read, sent and written at once."""
_DATA = (".json", ".txt", ".md", ".model", ".safetensors")
"""Endings of the files that are sent; a model card may say which classes a model knows."""
_FOLDER = "attnshift-models-"
_BUSY, _LOCKED = "busy.lock", "locked"
"""Files of a temporary folder: the lock of its process, and the sign that it has been taken."""
_UNUSED = ("safety_checker", "feature_extractor", "image_encoder")
"""Folders of a pipeline that are never read."""


def local_models(spec: RunSpec) -> dict[str, Parts]:
    """Those models of ``spec`` whose names hold paths of this host, by name.

    The names of plug-ins' sources are their own affair: nothing is a path in them.
    """
    parts = {name: _classifier_parts(name) for name in spec.surrogates}
    parts[spec.pipeline] = _pipeline_parts(spec.pipeline)
    if isinstance(spec.recipe, Recipe) and spec.recipe.diffusion.decoder == "tiny":
        decoder = spec.recipe.diffusion.decoder_source
        parts[decoder] = _model_parts(decoder)
    return {name: each for name, each in parts.items() if any(isinstance(part, Path) for part in each)}


def loaded_as(models: Mapping[str, Parts], places: Mapping[Path, Path]) -> dict[str, str]:
    """Names under which models are loaded where ``places`` says where their files were written."""
    return {
        name: "".join(str(places.get(part, part)) if isinstance(part, Path) else part for part in parts)
        for name, parts in models.items()
        if any(part in places for part in parts)
    }


def files_of(path: Path) -> dict[str, Path]:
    """Files of the model at ``path`` that a worker needs, by their place in its folder.

    A ``RunError`` where they are more than ``LARGEST_MODEL``.
    """
    # Loaders read a folder and the folders in it. A pattern follows links, and ends.
    beside = [path.with_suffix(".json"), path.with_suffix(".classes.json"), path.with_name("class_names.txt")]
    found = [*path.glob("*"), *path.glob("*/*")] if is_folder(path) else [path, *beside]
    top = path if is_folder(path) else path.parent
    pipeline = (path / "model_index.json").is_file()
    files = {}
    for file in sorted({*found}):
        place = file.relative_to(top)
        # A pipeline's folder may hold the same weights once more, in one file for other programs.
        needless = pipeline and (place.parts[0] in _UNUSED or (place.name == str(place) and file.suffix != ".json"))
        if file.suffix in _DATA and file.is_file() and not needless:
            files[place.as_posix()] = file
    size = sum(file.stat().st_size for file in files.values())
    if size > LARGEST_MODEL:
        most = f"at most {LARGEST_MODEL / 1e9:g} GB of a model are sent to a host that lacks it"
        raise RunError(f"{path} holds {size / 1e9:.1f} GB, and {most}; put it on every host under this name")
    return files


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder below ``TMPDIR``, removed at the end of the block.

    Where the process is killed first, the next call on this host removes it: the process holds a
    lock in it, which the system releases.
    """
    _remove_abandoned()
    with tempfile.TemporaryDirectory(prefix=_FOLDER, ignore_cleanup_errors=True) as made:
        folder = Path(made)
        with FileLock(folder / _BUSY):
            # Only from now on may others look whether the lock is held.
            (folder / _LOCKED).touch()
            yield folder


def _remove_abandoned() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{_FOLDER}*"):
        if not (folder / _LOCKED).exists():
            continue
        try:
            with FileLock(folder / _BUSY, timeout=0):
                shutil.rmtree(folder, ignore_errors=True)
        except (Timeout, OSError):
            # It is at work, or somebody else's.
            continue


def read_blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            yield block


def _pipeline_parts(name: str) -> Parts:
    prefix, colon, model = name.partition(":")
    before, model = (f"{prefix}{colon}", model) if prefix in BACKBONES else ("", name)
    return (before, *_model_parts(model))


def _model_parts(model: str) -> Parts:
    place, options = split_options(model)
    parts = [*_path(place)]
    for key, value in options:
        parts += [f",{key}=", *(_path(value) if key in ("config", "lora") else (value,))]
    return tuple(parts)


def _classifier_parts(name: str) -> Parts:
    source, _, model = undefended(name).partition(":")
    before = name.removesuffix(model)
    match source:
        case "timm" | "huggingface":
            return (before, *_folder(model))
        case "checkpoint" if is_regular(Path(model)):
            return (before, Path(model))
        case "checkpoint":
            architecture, _, file = model.partition("@")
            return (f"{before}{architecture}@", *_file(file))
        case "zeroshot":
            # Its import loads transformers.
            from attnshift.classifiers.zeroshot_source import model_and_names

            network, names = model_and_names(model)
            return (before, *_folder(network), "@", *_file(str(names)))
    return (name,)


def _folder(text: str) -> Parts:
    return (Path(text),) if text and is_folder(Path(text)) else (text,)


def _path(text: str) -> Parts:
    return (Path(text),) if is_regular(Path(text)) else _folder(text)


def _file(text: str) -> Parts:
    return (Path(text),) if is_regular(Path(text)) else (text,)
