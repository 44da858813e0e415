"""Images of a run that were not square, of which the centre was attacked."""

from __future__ import annotations

from PIL import Image

from attnshift.results.rows import ResultRow
from attnshift.results.store import CROPPED, Store
from attnshift.terminal import plural

__all__ = ["cropped_line"]


def cropped_line(store: Store) -> str:
    """A sentence without its full stop; nothing where every image was square."""
    rows = store.table(ResultRow)
    count = sum(_is_cropped(store, row.id) for row in rows)
    if not count:
        return ""
    return (
        f"{plural(count, 'image')} of {len(rows)} {'was' if count == 1 else 'were'} not square; the centre was attacked"
    )


def _is_cropped(store: Store, id: str) -> bool:
    """Whether the clean image says so. Only the head of its file is read."""
    path = store.image_path(id, "clean")
    if not path.exists():
        return False
    with Image.open(path, formats=["PNG"]) as opened:
        return CROPPED in opened.info
