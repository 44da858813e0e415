"""A finished or unfinished run, to be read from Python:
`attnshift.open_run(folder)`. Free of torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy
from numpy.typing import NDArray

from attnshift.errors import RunError, UserError
from attnshift.recipes.schema import BaselineRecipe, Recipe
from attnshift.registry import suggest
from attnshift.results.generations import generations_of
from attnshift.results.plan import Generation
from attnshift.results.rows import (
    ROW_TYPES,
    FailedRow,
    GradCamRow,
    QualityRow,
    ResultRow,
    SetRow,
    UnavailableRow,
    VerdictRow,
    VisibilityRow,
)
from attnshift.results.spec import RunSpec
from attnshift.results.store import Store

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["Run", "open_run"]

AttentionMap = NDArray[numpy.float64]


def open_run(folder: str | os.PathLike[str]) -> Run:
    """Open the run folder ``folder`` for reading; a ``RunError``
    where it holds no run that this version reads."""
    return Run(Store.open(Path(folder)))


@dataclass(frozen=True)
class Run:
    """A run folder. Each table is read once, when it is first asked for;
    one that is not written is empty.

    The columns of all tables are in docs/results-format.md. ``results`` and ``failed`` are written
    when a command ends, so that images which are finished since then are missing in them.
    """

    store: Store

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.store.folder

    @cached_property
    def spec(self) -> RunSpec:
        """All that decides the result: weights, size, micro-batch, device,
        versions, and the recipe."""
        return self.store.spec()

    @property
    def recipe(self) -> Recipe | BaselineRecipe:
        """The recipe of the run, complete."""
        return self.spec.recipe

    @cached_property
    def generations(self) -> tuple[Generation, ...]:
        """The lists of images that the run was given, from the first to the newest."""
        return generations_of(self.folder)

    @cached_property
    def results(self) -> list[ResultRow]:
        """The finished images, in the order of the plan."""
        return self.store.table(ResultRow)

    @cached_property
    def failed(self) -> list[FailedRow]:
        """The images that could not be attacked, with reasons."""
        return self.store.table(FailedRow)

    @cached_property
    def verdicts(self) -> list[VerdictRow]:
        """One row for each image, arm and classifier; empty before `attnshift evaluate`."""
        return self.store.table(VerdictRow)

    @cached_property
    def quality(self) -> list[QualityRow]:
        """Metrics of each image and arm against the clean image."""
        return self.store.table(QualityRow)

    @cached_property
    def unavailable(self) -> list[UnavailableRow]:
        """The metrics that could not be taken, with reasons."""
        return self.store.table(UnavailableRow)

    @cached_property
    def visibility(self) -> list[VisibilityRow]:
        """Visibility of the object in each image and arm;
        empty unless the run was evaluated with masks."""
        return self.store.table(VisibilityRow)

    @cached_property
    def sets(self) -> list[SetRow]:
        """Distances of each arm, as a set, to the clean images;
        empty unless the run was evaluated with sets."""
        return self.store.table(SetRow)

    @cached_property
    def grad_cam(self) -> list[GradCamRow]:
        """Which places speak for the true class, clean and attacked;
        empty unless the run was evaluated with a classifier for it."""
        return self.store.table(GradCamRow)

    def image_paths(self, id: str) -> dict[str, Path]:
        """Arm -> PNG file of the image called ``id``, from the clean image to the attack."""
        self._row(id)
        return {arm: self.store.image_path(id, arm) for arm in self.spec.arms}

    def attention(self, id: str) -> tuple[AttentionMap, AttentionMap]:
        """Attention of each place to the phrase of the true class,
        before and after the attack, both [rows,columns].

        A value is a probability in [0,1]: the attention to all tokens of the phrase, averaged over
        heads, layers and steps. A ``RunError`` where the attack recorded none, such as an attack on
        pixels.
        """
        row = self._row(id)
        rows = row.attention_side
        if not rows:
            raise RunError(f"{self.folder} holds no attention maps of {id}: a baseline has none")
        return _grid(row.attention_clean, rows), _grid(row.attention_attack, rows)

    def losses(self, id: str) -> Mapping[str, NDArray[numpy.float64]]:
        """Loss term -> its weighted value in every iteration, [iterations];
        empty for a baseline."""
        return {name: numpy.array(values) for name, values in self._row(id).losses.items()}

    def to_pandas(self, table: str = "results") -> DataFrame:
        """The table of that name as a data frame; without rows where it has not been written.

        A ``UserError`` where pandas is not installed, or where there is no such table.
        """
        if table not in ROW_TYPES:
            raise UserError(f"`table` is {table}{suggest(table, ROW_TYPES)}; known: {', '.join(ROW_TYPES)}")
        try:
            import pandas  # noqa: F401
        except ModuleNotFoundError:
            raise UserError(
                "data frames need pandas, which is not installed: pip install 'attnshift[pandas]'"
            ) from None
        import pyarrow.parquet

        kind = ROW_TYPES[table]
        path = self.store.table_path(kind)
        return (pyarrow.parquet.read_table(path) if path.exists() else kind.schema().empty_table()).to_pandas()

    @cached_property
    def _by_id(self) -> dict[str, ResultRow]:
        return {row.id: row for row in self.results}

    def _row(self, id: str) -> ResultRow:
        if id not in self._by_id:
            raise RunError(f"{self.folder} has no finished image {id}; take an id of its table results")
        return self._by_id[id]


def _grid(values: tuple[float, ...], rows: int) -> AttentionMap:
    return numpy.array(values).reshape(rows, -1)
