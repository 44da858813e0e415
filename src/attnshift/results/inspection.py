"""Folder of an inspection: which terms point where other networks are weak.

inspection.json     what the inspection is (InspectionSpec)
measured/ID.json    all rows of one image, written when it is finished
alignment.parquet   one row per image, point of the path and probe (AlignmentRow)
maps.parquet        one row per image, point of the path and map (MapRow)
pictures.parquet    maps of the images that the page shows (PictureRow)
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, Field, ValidationError

from attnshift.errors import RunError
from attnshift.files import atomic_write, writing
from attnshift.registry import STRICT, describe
from attnshift.results.row_files import AnyRow, read_rows, write_rows
from attnshift.results.rows import Row
from attnshift.results.spec import RunSpec

__all__ = [
    "EVERY",
    "INSPECTION_ROWS",
    "AlignmentRow",
    "InspectedImage",
    "InspectionSpec",
    "InspectionStore",
    "MapRow",
    "PictureRow",
]

INSPECTION_FORMAT = 1
"""Version of the folder and of what a row means; part of an inspection's identity."""

EVERY = -1
"""Head or step of a row that takes all of them together."""


@dataclass(frozen=True)
class AlignmentRow(Row):
    """One direction at the start latents of one image, against the tuning classifiers' descent."""

    TABLE: ClassVar[str] = "alignment"
    WRITER: ClassVar[str] = "inspect"

    id: Annotated[str, "id of the image"]
    file: Annotated[str, "its name in the source of the images"]
    iteration: Annotated[int, "updates of the attack before this point of its path"]
    kind: Annotated[str, "term, surrogate, classification, direction or random"]
    name: Annotated[str, "the term with its options, the surrogate, or the direction"]
    place: Annotated[str, "down, mid or up; own, as the recipe selects; empty where no site is read"]
    side: Annotated[int, "side of the grid of these sites; 0 where place is none of the three"]
    head: Annotated[int, "the head alone, from 0; -1: all heads"]
    step: Annotated[int, "the denoising step alone, from 0; -1: all steps"]
    cosine: Annotated[float | None, "cosine with the tuning classifiers' descent, in [-1,1]; null without a gradient"]
    ratio: Annotated[
        float | None,
        "norm of the gradient, at weight 1, over that of classification; null where either has none",
    ] = None


@dataclass(frozen=True)
class MapRow(Row):
    """One map of the class phrase's cross-attention in one image."""

    TABLE: ClassVar[str] = "maps"
    WRITER: ClassVar[str] = "inspect"

    id: Annotated[str, "id of the image"]
    file: Annotated[str, "its name in the source of the images"]
    iteration: Annotated[int, "updates of the attack before this point of its path"]
    place: Annotated[str, "down, mid or up"]
    side: Annotated[int, "side of the grid of these sites"]
    head: Annotated[int, "the head alone, from 0; -1: all heads"]
    step: Annotated[int, "the denoising step alone, from 0; -1: all steps"]
    mass: Annotated[float, "attention that a position pays to the phrase, the mean over positions, in [0,1]"]
    entropy: Annotated[float, "entropy of the map over positions, relative to the highest, in [0,1]"]
    peak_inside: Annotated[
        bool | None, "whether the map's maximum lies on the object: its mask, or the reference's Grad-CAM"
    ] = None
    share_inside: Annotated[float | None, "share of the map's mass on the object"] = None
    area: Annotated[float | None, "share of the picture that the object covers: what chance would give"] = None


@dataclass(frozen=True)
class PictureRow(Row):
    """One map that the page shows, with values in [0,1], row by row."""

    TABLE: ClassVar[str] = "pictures"
    WRITER: ClassVar[str] = "inspect"

    id: Annotated[str, "id of the image"]
    file: Annotated[str, "its name in the source of the images"]
    class_name: Annotated[str, "name of its true class"]
    iteration: Annotated[int, "updates of the attack before this point of its path"]
    name: Annotated[str, "image, object, or the sites of a map, such as up 16 x 16"]
    side: Annotated[int, "rows and columns"]
    values: Annotated[tuple[float, ...], "side x side values, of an image three for each pixel"]


INSPECTION_ROWS: tuple[type[Row], ...] = (AlignmentRow, MapRow, PictureRow)


class InspectionSpec(BaseModel):
    """All that changes what an inspection measures of an image."""

    model_config = STRICT

    format: int = INSPECTION_FORMAT
    run: RunSpec
    """The attack whose path is followed."""
    tuning: tuple[str, ...] = Field(min_length=1)
    reference: str = ""
    weights: dict[str, str] = {}
    """Fingerprints of the tuning classifiers and of the reference, by their names."""
    points: tuple[int, ...]
    """Iterations at which it is measured."""
    terms: tuple[str, ...]
    heads: bool = False

    def differences(self, other: InspectionSpec) -> list[str]:
        """``key: ours, not theirs`` for everything that differs, but for the images."""
        mine, theirs = (each.model_dump(mode="json", exclude={"run"}) for each in (self, other))
        own = [f"{key}: {mine[key]!r}, not {theirs[key]!r}" for key in sorted(mine) if mine[key] != theirs[key]]
        return own + self.run.differences(other.run)


@dataclass(frozen=True)
class InspectedImage:
    """All rows of one image."""

    alignment: tuple[AlignmentRow, ...]
    maps: tuple[MapRow, ...]
    pictures: tuple[PictureRow, ...] = ()

    def __add__(self, other: InspectedImage) -> InspectedImage:
        """These rows, and behind them those of ``other``."""
        return InspectedImage(self.alignment + other.alignment, self.maps + other.maps, self.pictures + other.pictures)

    def to_json(self) -> dict[str, Any]:
        return {name: [row.to_record() for row in rows] for name, rows in vars(self).items()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> InspectedImage:
        return cls(
            tuple(AlignmentRow.from_record(each) for each in values["alignment"]),
            tuple(MapRow.from_record(each) for each in values["maps"]),
            tuple(PictureRow.from_record(each) for each in values["pictures"]),
        )


class InspectionStore:
    """The files of an inspection in ``folder``."""

    def __init__(self, folder: Path):
        self.folder = folder

    def open(self, spec: InspectionSpec) -> None:
        """Make the folder hold the inspection of ``spec``: new, empty, or holding it already. Else
        a ``RunError``."""
        path = self.folder / "inspection.json"
        if path.exists():
            changed = spec.differences(self.spec())
            if changed:
                raise RunError(
                    f"{self.folder} holds another inspection; this one differs in {'; '.join(changed[:4])}. "
                    "Use another `out`, or the settings of that inspection"
                )
            return
        if self.folder.exists() and not (self.folder.is_dir() and not any(self.folder.iterdir())):
            raise RunError(f"{self.folder} exists and is not an inspection; choose another `out`")
        with writing(self.folder):
            (self.folder / "measured").mkdir(parents=True, exist_ok=True)
        atomic_write(path, (spec.model_dump_json(indent=1) + "\n").encode())

    def spec(self) -> InspectionSpec:
        path = self.folder / "inspection.json"
        try:
            return InspectionSpec.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            raise RunError(f"{self.folder} holds no inspection; make one with attnshift inspect") from None
        except ValidationError as error:
            raise RunError(f"{path}: {describe(error)}") from None

    def measured(self, id: str) -> InspectedImage | None:
        """Rows of the image ``id``; None where it is not finished."""
        path = self._path(id)
        if not path.exists():
            return None
        try:
            return InspectedImage.from_json(json.loads(path.read_bytes()))
        except (ValueError, KeyError) as error:
            raise RunError(f"{path} is damaged ({error}); remove it, and it is made anew") from None

    def keep(self, id: str, rows: InspectedImage) -> None:
        """Declare the image ``id`` finished."""
        with writing(self._path(id)):
            self._path(id).parent.mkdir(exist_ok=True)
        atomic_write(self._path(id), json.dumps(rows.to_json(), allow_nan=False).encode())

    def write_table(self, kind: type[AnyRow], rows: Sequence[AnyRow]) -> None:
        """Write the table of ``kind``, in place of the one that there may be."""
        write_rows(self.folder / f"{kind.TABLE}.parquet", kind.schema(rows), rows)

    def table(self, kind: type[AnyRow]) -> list[AnyRow]:
        """Rows of the table of ``kind``; a ``RunError`` where it has not been written."""
        path = self.folder / f"{kind.TABLE}.parquet"
        if not path.exists():
            raise RunError(f"{self.folder} has no {path.name} yet; run its inspect command again to the end")
        return read_rows(path, kind)

    def _path(self, id: str) -> Path:
        return self.folder / "measured" / f"{id}.json"
