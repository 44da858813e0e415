"""Images of a run of which only the centre was attacked."""

from __future__ import annotations

from PIL import Image

from attnshift.results.rows import ResultRow
from attnshift.results.store import CROPPED, Store
from attnshift.terminal import plural

__all__ = ["cropped_line"]


def cropped_line(store: Store) -> str:
    """A sentence without its full stop; nothing where no image was cropped."""
    rows = store.table(ResultRow)
    count = sum(_is_cropped(store, row.id) for row in rows)
    if not count:
        return ""
    size = store.spec().size
    shape = f"of the shape {size}" if isinstance(size, str) else "square"
    counted = f"{plural(count, 'image')} of {len(rows)} {'was' if count == 1 else 'were'}"
    return f"{counted} not {shape}; the centre was attacked"


def _is_cropped(store: Store, id: str) -> bool:
    """Whether the clean image says so. Only the head of its file is read."""
    path = store.image_path(id, "clean")
    if not path.exists():
        return False
    with Image.open(path, formats=["PNG"]) as opened:
        return CROPPED in opened.info
