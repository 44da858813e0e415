"""Images of a run under their own names, and at their own size with the change pasted back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import torch
from PIL import Image
from torch import Tensor

from attnshift.data.datasets import Item, identify
from attnshift.data.images import decode_image, encode_png, read_image
from attnshift.data.references import fetch, scheme_of, shown
from attnshift.errors import ImageError, RunError, UserError
from attnshift.files import atomic_write, writing
from attnshift.registry import suggest
from attnshift.results.plan import read_plan
from attnshift.results.store import Store
from attnshift.sizes import Size, size_of

__all__ = ["export_run"]


def export_run(
    store: Store,
    folder: Path,
    arm: str = "attack",
    own_size: bool = False,
    within: str = "",
) -> dict[str, PurePosixPath]:
    """Write the finished images of ``arm`` into ``folder``, and return their names there, by id.

    Each has its source's name, with folders, and the ending .png; where two would have one name,
    both carry their ids. With ``own_size`` an image has its source's size: the difference between
    ``arm`` and the clean image is resized and added to the source. Such pixels have not been
    judged. The images go into the subfolder ``within``, from which their names start.

    Raises ``RunError`` where nothing is finished or ``folder`` holds anything, and ``ImageError``
    where a source cannot be read or has changed. Nothing is overwritten, and nothing is written
    outside ``folder``.
    """
    arms = store.spec().arms
    if arm not in arms:
        raise UserError(f"`arm` is {arm}{suggest(arm, [*arms])}; this run has {', '.join(arms)}")
    items = [item for item in read_plan(store.plan_path) if store.is_finished(item.id)]
    if not items:
        raise RunError(f"{store.folder} has no finished image yet; run the attack to its end first")
    names = dict(_names(items))
    _check_empty(folder)
    for item in items:
        content = _at_own_size(store, item, arm) if own_size else store.image_path(item.id, arm).read_bytes()
        target = folder / within / names[item.id]
        with writing(target.parent):
            target.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(target, content)
    return names


def _check_empty(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunError(f"{folder} holds files already, which are never overwritten; give a new or an empty folder")


def _names(items: list[Item]) -> Iterator[tuple[str, PurePosixPath]]:
    """Identity and path in the folder of each image."""
    paths = [_path(item) for item in items]
    # Some file systems do not tell upper from lower case.
    count = Counter(str(path).casefold() for path in paths)
    for item, path in zip(items, paths, strict=True):
        once = count[str(path).casefold()] == 1
        yield item.id, path if once else path.with_stem(f"{path.stem}-{item.id}")


def _path(item: Item) -> PurePosixPath:
    file = item.file.partition("://")[2].partition("?")[0] if scheme_of(item.file) else item.file
    path = PurePosixPath(file.replace("\\", "/"))
    inside = PurePosixPath(*path.parts[1:]) if path.is_absolute() else path
    if not inside.name or ".." in inside.parts or ":" in inside.parts[0]:
        raise RunError(f"the name {shown(item.file)} is no path inside a folder; rename that image and attack it again")
    # A row of a table has no ending of its own: "b.parquet row 0".
    stem = inside.stem if inside.suffix[1:].isalnum() else inside.name
    return inside.with_name(f"{stem}.png")


def _at_own_size(store: Store, item: Item, arm: str) -> bytes:
    """PNG of the source of ``item`` with the change that ``arm`` has made to the clean image."""
    source, made = _source(item), store.image_path(item.id, arm)
    change = read_image(made, None) - read_image(store.image_path(item.id, "clean"), None)
    left, top, right, bottom = _region(size_of(source), size_of(change), item.size is not None)
    part = source[:, top:bottom, left:right]
    if part.shape != change.shape:
        change = torch.nn.functional.interpolate(change[None], part.shape[1:], mode="bicubic", antialias=True)[0]
    part += change
    with Image.open(made, formats=["PNG"]) as opened:
        text = {str(key): value for key, value in opened.info.items() if isinstance(value, str)}
    return encode_png(source.clamp(0, 1), text)


def _source(item: Item) -> Tensor:
    """The image that was attacked, at its own size, [3,height,width] in [0,1]."""
    content = fetch(item.image)
    mask = None if item.mask is None else fetch(item.mask)
    if identify(content, item.label, item.class_name, item.target, mask, item.caption) != item.id:
        raise ImageError(f"{item.file}: changed since the run was planned; put it back, or leave `own_size` out")
    return decode_image(content, None, item.file)


def _region(source: Size, attacked: Size, whole: bool) -> tuple[int, int, int, int]:
    """The part of the source that was attacked, in pixels: left, top, right and bottom."""
    if whole:
        return 0, 0, source.columns, source.rows
    scale = min(source.rows / attacked.rows, source.columns / attacked.columns)
    width, height = (max(1, round(scale * side)) for side in (attacked.columns, attacked.rows))
    left, top = (source.columns - width) // 2, (source.rows - height) // 2
    return left, top, left + width, top + height
