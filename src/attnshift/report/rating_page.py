"""The page on which people rate a run: one file that needs no network and sends nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attnshift.errors import RunError
from attnshift.files import atomic_write
from attnshift.randomness import generator
from attnshift.report.figures import data_url, pixels
from attnshift.report.rating_plan import ORDERS, RatingOrder, chosen_images, draw_order
from attnshift.report.rendering import render_page
from attnshift.results.ratings import RATINGS_FORMAT
from attnshift.results.rows import ResultRow
from attnshift.results.store import Store, finished_rows

__all__ = ["RatingPage", "write_rating_page"]

_SECONDS = 5
"""Time of an answer, to say how long a session takes."""


@dataclass(frozen=True)
class RatingPage:
    """The page's ``path``, and how many ``pairs`` of clean and attacked images it asks about."""

    path: Path
    pairs: int


def write_rating_page(store: Store, out: Path | None = None, count: int = 0, seed: int = 0) -> RatingPage:
    """Write the rating page of a run, as rate.html into its folder unless ``out`` says otherwise.

    It asks about ``count`` finished images, drawn with ``seed``, or about all where it is 0 or
    there are no more. A ``RunError`` where no image is finished, or where a saved image is gone.
    """
    rows = {row.id: row for row in finished_rows(store)}
    ids = chosen_images(list(rows), count, seed)
    spec = store.spec()
    arms = [arm for arm in ("clean", "reconstruction", "attack") if arm in spec.arms]
    others = {id: _other_name(rows[id], list(rows.values()), seed) for id in ids}
    orders = (draw_order(number, ids, seed, "reconstruction" in arms, all(others.values())) for number in range(ORDERS))
    page = render_page(
        "rate.html.jinja",
        ("rate.js",),
        pairs=len(ids),
        minutes=max(1, round(2 * len(ids) * _SECONDS / 60)),
        data={
            "format": RATINGS_FORMAT,
            "run": spec.digest,
            "seed": seed,
            "pairs": [
                {
                    "id": id,
                    "name": rows[id].class_name,
                    "other": others[id],
                    "images": {arm: _image(store, id, arm) for arm in arms},
                }
                for id in ids
            ],
            "orders": [_order_data(order) for order in orders],
        },
    )
    path = out or store.folder / "rate.html"
    atomic_write(path, page)
    return RatingPage(path, len(ids))


def _image(store: Store, id: str, arm: str) -> str:
    path = store.image_path(id, arm)
    if not path.is_file():
        raise RunError(f"there is no file {path}, which the run should hold; copy the run folder whole")
    return data_url(pixels(path))


def _other_name(row: ResultRow, rows: list[ResultRow], seed: int) -> str:
    """Name of another class of the run, but for the attack's target; empty where there is none."""
    taken = {row.class_name, row.target_name}
    names = sorted({each.class_name for each in rows if each.label != row.label} - taken)
    return names[generator(seed, row.id, "rating", "other").integers(len(names))] if names else ""


def _order_data(order: RatingOrder) -> dict[str, Any]:
    return {
        "labels": [[each.place, each.arm, int(each.other)] for each in order.labels],
        "pairs": [[each.place, each.arm, int(each.clean_first)] for each in order.pairs],
    }
