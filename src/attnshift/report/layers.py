"""How far attention to the class's phrase moved in each layer of the denoiser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from attnshift.results.rows import ResultRow

__all__ = ["LayerFigures", "layer_figures"]

_ALL = "all"


@dataclass(frozen=True)
class LayerFigures:
    """Means over images of one cross-attention layer.

    ``before`` and ``after`` are the mass of the phrase on the attack's own path, and ``moved`` the
    total variation distance of its map there; ``file_after`` and ``file_moved`` are those of the
    saved file, encoded and inverted again. All are in [0,1].
    """

    name: str
    before: float
    after: float
    moved: float
    file_after: float
    file_moved: float


def layer_figures(results: Sequence[ResultRow]) -> tuple[LayerFigures, ...]:
    """Figures of every layer in the order of the denoiser; none for a baseline."""
    rows = [row for row in results if row.class_on_path and row.class_on_file]
    names = [name for name in (rows[0].class_on_path if rows else ()) if name != _ALL]
    return tuple(_of_layer(name, rows) for name in names)


def _of_layer(name: str, rows: Sequence[ResultRow]) -> LayerFigures:
    before, after, moved = _means([row.class_on_path for row in rows], name)
    _, file_after, file_moved = _means([row.class_on_file for row in rows], name)
    return LayerFigures(name, before, after, moved, file_after, file_moved)


def _means(series: Sequence[Mapping[str, Sequence[float]]], name: str) -> list[float]:
    return [fmean(values) for values in zip(*(each[name] for each in series), strict=True)]
