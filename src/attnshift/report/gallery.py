"""Every image of a run as data for the grid of the report: columns of figures that the page itself
holds, and parts with the rest, which it loads when an image is opened."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy
from PIL import Image

from attnshift.errors import RunError
from attnshift.metrics import METRICS
from attnshift.report.figures import pixels
from attnshift.report.verdicts import Verdicts, knows
from attnshift.results.rows import GradCamRow, ResultRow
from attnshift.results.store import Store
from attnshift.sizes import Size

__all__ = ["Gallery", "gallery_data", "paired_maps", "part_files", "typical", "worst_first"]

_PART = 64
"""Images in a part."""

_POINTS, _SIDE = 100, 32
"""Most points of a curve, and rows of a map of attention, that a part holds of an image."""

_KEPT, _FOOLED, _MISSED, _WRONG, _UNASKED = "kfmw-"
"""An answer to an attacked image: still right, fooled, another class than the target, wrong when
clean already, and not asked."""


@dataclass(frozen=True)
class Gallery:
    """The tables that the grid is made of. ``classifiers`` is name -> role, in the order in which
    they are shown; ``deciding`` are those whose answers are counted; ``quality`` has the metrics of
    each attacked image by its id; ``grad_cam`` has the two maps of an image by its id, clean and
    attacked."""

    store: Store
    results: Sequence[ResultRow]
    classifiers: Mapping[str, str]
    deciding: Sequence[str]
    verdicts: Verdicts
    quality: Mapping[str, Mapping[str, float]]
    grad_cam: Mapping[str, tuple[GradCamRow, GradCamRow]]

    def outcome(self, name: str, id: str) -> str:
        """The answer of the classifier ``name`` to the attacked image, one letter."""
        if (name, "clean", id) not in self.verdicts:
            return _UNASKED
        if not knows(name, id, self.verdicts):
            return _WRONG
        attack = self.verdicts[name, "attack", id]
        return _FOOLED if attack.success else _KEPT if attack.correct else _MISSED

    def fooled(self, id: str) -> tuple[int, int]:
        """How many of the classifiers that count are fooled, and how many know the clean image."""
        outcomes = [self.outcome(name, id) for name in self.deciding]
        return outcomes.count(_FOOLED), sum(each not in (_WRONG, _UNASKED) for each in outcomes)

    def seen(self, id: str) -> str:
        """What the classifiers that are fooled see, the most frequent name; empty where none is."""
        names = [
            self.verdicts[name, "attack", id].predicted_name
            for name in self.deciding
            if self.outcome(name, id) in (_FOOLED, _MISSED)
        ]
        return max(names, key=names.count) if names else ""

    def check_files(self) -> None:
        """Raise a ``RunError`` where a saved image is gone, which the page would show."""
        for row in self.results:
            for arm in ("clean", "attack"):
                path = self.store.image_path(row.id, arm)
                if not path.is_file():
                    raise RunError(f"there is no file {path}, which the run should hold; copy the run folder whole")


def worst_first(gallery: Gallery) -> list[int]:
    """Places of the images: first those that fool the largest share of the classifiers, and of
    these the least changed, by SSIM. Images that no classifier knows when clean are left out."""

    def rank(place: int) -> tuple[float, float]:
        id = gallery.results[place].id
        fooled, known = gallery.fooled(id)
        return -fooled / known, -gallery.quality.get(id, {}).get("ssim", 0.0)

    known = [place for place, row in enumerate(gallery.results) if gallery.fooled(row.id)[1]]
    return sorted(known, key=rank)


def typical(gallery: Gallery) -> int | None:
    """Place of the image with the median SSIM of those that fool at least half of the classifiers
    that know them, or of all where there is none; None where no image is known."""
    known = worst_first(gallery)
    shares = {place: gallery.fooled(gallery.results[place].id) for place in known}
    fooling = [place for place in known if 2 * shares[place][0] >= shares[place][1]] or known
    by_change = sorted(fooling, key=lambda each: gallery.quality.get(gallery.results[each].id, {}).get("ssim", 0.0))
    return by_change[len(by_change) // 2] if by_change else None


def gallery_data(gallery: Gallery, parts: Sequence[str]) -> dict[str, Any]:
    """What the page holds of all images, a list for each column. ``parts`` are the addresses of the
    files of ``part_files``."""
    rows, names = gallery.results, _Names()
    metrics = [name for name in METRICS if any(name in each for each in gallery.quality.values())]
    return {
        "arms": list(gallery.store.spec().arms),
        "classifiers": [[name, role] for name, role in gallery.classifiers.items()],
        "deciding": [list(gallery.classifiers).index(name) for name in gallery.deciding],
        "part": _PART,
        "parts": list(parts),
        "id": [row.id for row in rows],
        "file": [row.file for row in rows],
        "class": [names[row.class_name] for row in rows],
        "aim": [names[row.target_name or row.interference] for row in rows],
        "seen": [names[gallery.seen(row.id)] for row in rows],
        "outcomes": ["".join(gallery.outcome(name, row.id) for name in gallery.classifiers) for row in rows],
        "largest": [_largest_change(gallery, row.id) for row in rows],
        "values": {
            metric: [_short(gallery.quality.get(row.id, {}).get(metric, math.nan)) for row in rows]
            for metric in metrics
        },
        "names": names.all,
    }


def part_files(gallery: Gallery) -> Iterator[bytes]:
    """Scripts that hand ``_PART`` images each to the page: a page that is opened from a disk may
    load a script, and no other data."""
    for number, start in enumerate(range(0, len(gallery.results), _PART)):
        rows = gallery.results[start : start + _PART]
        content = json.dumps([_image(gallery, row) for row in rows], separators=(",", ":"), allow_nan=False)
        yield f"takePart({number}, {content})\n".encode()


class _Names:
    """Names, each once, by number."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def __getitem__(self, name: str) -> int:
        return self.numbers.setdefault(name, len(self.numbers))

    @property
    def all(self) -> list[str]:
        return list(self.numbers)


def _image(gallery: Gallery, row: ResultRow) -> dict[str, Any]:
    every = math.ceil(max([1, *map(len, row.losses.values())]) / _POINTS)
    return {
        "verdicts": [_answers(gallery, name, row.id) for name in gallery.classifiers],
        "losses": _thinned(row.losses, every),
        "margins": _thinned(row.margin_curves, every),
        "every": every,
        "iterate": [row.iteration, row.evaluated],
        "models": _short(row.effective_models) if len(row.shares) > 1 else None,
        "interference": row.interference,
        "maps": list(_maps(gallery, row)),
        "layers": [[name, *map(_short, figures)] for name, figures in row.class_on_path.items() if name != "all"],
    }


def _answers(gallery: Gallery, name: str, id: str) -> list[str | float] | None:
    """Name and probability of the class that is seen, clean and attacked; None where the classifier
    was not asked."""
    if (name, "clean", id) not in gallery.verdicts:
        return None
    rows = (gallery.verdicts[name, arm, id] for arm in ("clean", "attack"))
    return [each for row in rows for each in (row.predicted_name, round(row.predicted_probability, 3))]


def paired_maps(rows: Sequence[GradCamRow]) -> dict[str, tuple[GradCamRow, GradCamRow]]:
    """The ``rows`` of the table ``grad_cam`` by image: clean and attacked."""
    by_arm = {arm: {row.id: row for row in rows if row.arm == arm} for arm in ("clean", "attack")}
    return {id: (row, by_arm["attack"][id]) for id, row in by_arm["clean"].items() if id in by_arm["attack"]}


def _maps(gallery: Gallery, row: ResultRow) -> Iterator[tuple[str, dict[str, Any]]]:
    """Titles, and the maps before and after that the image has."""
    if row.attention_side:
        attention = _in_bytes(row.attention_side, row.attention_clean, row.attention_attack)
        yield "attention to the class, both on one scale", attention
    if row.id in gallery.grad_cam:
        clean, attack = gallery.grad_cam[row.id]
        title = f"pixels that speak for the class to {clean.classifier} (Grad-CAM), dark where none does"
        yield f"{title}, each on its own scale", _in_bytes(clean.side, clean.values, attack.values)


def _in_bytes(rows: int, *maps: Sequence[float]) -> dict[str, Any]:
    """Maps of so many ``rows`` in 8 bits, on one scale, of which 255 is the highest value."""
    grids = [_pooled(numpy.asarray(each, dtype=numpy.float64).reshape(rows, -1)) for each in maps]
    peak = max(float(grid.max()) for grid in grids) or 1.0
    levels = [(255 * grid / peak).round().clip(0, 255).astype(numpy.uint8) for grid in grids]
    rows, columns = levels[0].shape
    return {"rows": rows, "columns": columns, "maps": [base64.b64encode(each.tobytes()).decode() for each in levels]}


def _pooled(grid: numpy.ndarray) -> numpy.ndarray:
    """``grid`` with at most ``_SIDE`` rows and columns, each value the mean of a square."""
    size = Size(*grid.shape).within(_SIDE)
    small = Image.fromarray(grid.astype(numpy.float32)).resize((size.columns, size.rows), Image.Resampling.BOX)
    return numpy.asarray(small)


def _largest_change(gallery: Gallery, id: str) -> int:
    """Largest change of a value of the image, in levels of 255."""
    value = gallery.quality.get(id, {}).get("linf", math.nan)
    if math.isfinite(value):
        return round(255 * value)
    clean, attack = (pixels(gallery.store.image_path(id, arm)).astype(int) for arm in ("clean", "attack"))
    return int(abs(attack - clean).max())


def _thinned(series: Mapping[str, Sequence[float]], every: int) -> dict[str, list[float | None]]:
    return {name: [_short(each) for each in values[::every]] for name, values in series.items()}


def _short(value: float | None) -> float | None:
    """``value`` with four digits; None where it is not finite."""
    return float(f"{value:.4g}") if value is not None and math.isfinite(value) else None
