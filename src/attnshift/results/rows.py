"""Rows of the tables of a run folder, one class a table,
and the columns of a parquet file that keep it.

A field is a column of the same name. A field marked ``Wide`` is a mapping and has one column for
each of its keys. ``docs/results-format.md`` is made from these classes
(``attnshift.results.format``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from types import NoneType
from typing import Annotated, Any, ClassVar, Self, get_args, get_origin, get_type_hints

import pyarrow

from attnshift.errors import RunError

__all__ = [
    "ROLES",
    "ROW_TYPES",
    "Column",
    "FailedRow",
    "GradCamRow",
    "QualityRow",
    "ResultRow",
    "Row",
    "Series",
    "SetRow",
    "UnavailableRow",
    "VerdictRow",
    "VisibilityRow",
    "Wide",
    "columns_of",
    "images_digest",
]

Series = Mapping[str, tuple[float, ...]]
"""Name -> values, such as the losses of one term in every iteration."""

ROLES = ("surrogate", "tuning", "reference", "judge", "defended")
"""Roles of a classifier in a run, in the order in which they are shown. ``defended`` is a judge
behind a defence."""


@dataclass(frozen=True)
class Wide:
    """Marks a field whose keys are columns, called after ``pattern``,
    in which ``{}`` stands for the key."""

    pattern: str

    def name(self, key: str) -> str:
        return self.pattern.format(key)

    def key(self, name: str) -> str | None:
        """The key of the column ``name``, or None for a column that is not one of these.

        >>> Wide("{}_margins").key("attack_margins"), Wide("{}_margins").key("seconds")
        ('attack', None)
        """
        before, _, after = self.pattern.partition("{}")
        ours = name.startswith(before) and name.endswith(after) and len(name) > len(before) + len(after)
        return name[len(before) : len(name) - len(after)] if ours else None


@dataclass(frozen=True)
class Column:
    """A field of a row: its meaning, its type in parquet,
    how its value is written and read, and if it is wide."""

    name: str
    about: str
    kind: pyarrow.DataType
    dump: Callable[[Any], Any]
    load: Callable[[Any], Any]
    required: bool
    wide: Wide | None = None


class Row:
    """A row of the table ``TABLE``, kept in the file ``TABLE.parquet`` of a run folder."""

    TABLE: ClassVar[str]
    WRITER: ClassVar[str]
    """The command that writes the table."""

    @classmethod
    def schema(cls, rows: Iterable[Row] = (), keys: Iterable[str] = ()) -> pyarrow.Schema:
        """Columns of the table: those that every table has, then one for each of the ``keys`` and
        of those that the wide field of any of ``rows`` has."""
        names: list[tuple[str, pyarrow.DataType]] = []
        for column in columns_of(cls):
            if column.wide is None:
                names.append((column.name, column.kind))
                continue
            held = dict.fromkeys(keys) | dict.fromkeys(key for row in rows for key in getattr(row, column.name))
            names += [(column.wide.name(key), column.kind) for key in held]
        return pyarrow.schema(names)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """The row that ``to_record`` made ``record`` of. Columns that a run of an earlier version
        lacks have their defaults; a ``RunError`` where there is none."""
        own = columns_of(cls)
        fixed = {column.name for column in own if column.wide is None}
        values: dict[str, Any] = {}
        for column in own:
            if column.wide is not None:
                keyed = {column.wide.key(name): value for name, value in record.items() if name not in fixed}
                # What could not be measured has no value.
                held = {key: column.load(value) for key, value in keyed.items() if key and value is not None}
                values[column.name] = held
            elif column.name in record:
                values[column.name] = column.load(record[column.name])
            elif column.required:
                raise RunError(f"there is no column {column.name}; make the run again with this version")
        return cls(**values)

    def to_record(self) -> dict[str, Any]:
        """Column -> value, of lists, texts, numbers and None alone, as in JSON."""
        record: dict[str, Any] = {}
        for column in columns_of(type(self)):
            value = getattr(self, column.name)
            if column.wide is None:
                record[column.name] = column.dump(value)
            else:
                record |= {column.wide.name(key): column.dump(each) for key, each in value.items()}
        return record


@dataclass(frozen=True)
class ResultRow(Row):
    """A finished image. Fields from ``iteration`` on have defaults,
    which a baseline leaves as they are."""

    TABLE: ClassVar[str] = "results"
    WRITER: ClassVar[str] = "attack"

    id: Annotated[str, "id of the image, which names its files"]
    file: Annotated[str, "its name in the source of the images"]
    label: Annotated[int, "its true class, from 0"]
    class_name: Annotated[str, "name of its true class"]
    target: Annotated[int | None, "the class that the attack aims at; null in an untargeted attack"] = None
    target_name: Annotated[str, "name of that class; empty in an untargeted attack"] = ""
    key: Annotated[str, "hash of all that decides the attack on this image; equal in runs that would do the same"] = ""
    run: Annotated[str, "digest of the run"] = ""
    surrogates: Annotated[tuple[str, ...], "names of the attacked classifiers"] = ()
    seconds: Annotated[float, "time of its micro-batch, divided by the images in it"] = 0.0
    cpu_seconds: Annotated[float | None, "CPU time of its micro-batch on all threads, divided so as well"] = None
    surrogate_gradients: Annotated[
        float | None, "images that surrogates were shown for a gradient, each view one; the mean of the micro-batch"
    ] = None
    denoiser_evaluations: Annotated[
        float | None, "evaluations of the denoiser after the preparation; the mean of the micro-batch"
    ] = None
    spent: Annotated[float | None, "share of the budget that the saved image spends; null without a budget"] = None
    pixel_share: Annotated[
        float | None,
        "share of the pixels added to what the latents show, in the squares of the change; null where none are",
    ] = None
    batch: Annotated[int, "images that were attacked together"] = 1
    iteration: Annotated[int, "the iterate that was kept, from 0"] = 0
    evaluated: Annotated[int, "iterates that were compared; 0 in a baseline"] = 0
    losses: Annotated[Series, "each weighted loss term in every iteration"] = field(default_factory=dict)
    margin_curves: Annotated[
        Series, "logits by which each surrogate still resists in every iteration, on the image of that iterate"
    ] = field(default_factory=dict)
    measured: Annotated[tuple[int, ...], "iterations in which the pulls of the terms were measured"] = ()
    gradients: Annotated[
        Series,
        "norm at the latents of the classification's gradient and of each term's before weight and balance, in these "
        "iterations; 0 where a term was switched off",
    ] = field(default_factory=dict)
    pulls: Annotated[Series, "norm of their parts in the update, in these iterations"] = field(default_factory=dict)
    idle_terms: Annotated[tuple[str, ...], "one line for each term that never acted, with the reason"] = ()
    shares: Annotated[Series, "each surrogate's share of the fused direction in every iteration, in [0,1]"] = field(
        default_factory=dict
    )
    effective_models: Annotated[
        float | None, "1 / sum of squared shares, the mean over the iterations; null in a baseline"
    ] = None
    attention_clean: Annotated[
        tuple[float, ...],
        "map of the attention to the class's phrase, clean, row by row; empty in a baseline",
    ] = ()
    attention_attack: Annotated[tuple[float, ...], "the same map of the attacked image"] = ()
    attention_side: Annotated[int, "rows of these two maps"] = 0
    class_on_path: Annotated[
        Series,
        "the class's phrase on the attack's own path: for `all` cross-attention layers and for each, its mass (the "
        "mean attention to it, in [0,1]) before and after, and the total variation distance of its map",
    ] = field(default_factory=dict)
    class_on_file: Annotated[
        Series, "the same on the saved file against the clean image, both encoded and inverted again"
    ] = field(default_factory=dict)
    interference_on_path: Annotated[
        Series, "the same of the interference phrase, read beside the prompt as a probe, on the attack's own path"
    ] = field(default_factory=dict)
    interference_on_file: Annotated[Series, "the same of the interference phrase on the saved file"] = field(
        default_factory=dict
    )
    interference: Annotated[str, "the phrase that attention is steered towards; empty without one"] = ""
    known: Annotated[
        tuple[bool, ...],
        "for each surrogate, true where it sees the true class in the clean image; empty in runs of earlier versions",
    ] = ()
    margins: Annotated[
        Series, Wide("{}_margins"), "logits by which each surrogate still resists on the saved image of an arm"
    ] = field(default_factory=dict)

    @property
    def knows(self) -> tuple[bool, ...]:
        """``known``; in a row of an earlier version as far as its clean margins say it,
        and true where they do not."""
        if self.known or not self.surrogates:
            return self.known
        clean = self.margins.get("clean")
        untargeted = clean is not None and self.target is None
        return tuple(each > 0 for each in clean) if clean and untargeted else (True,) * len(self.surrogates)


@dataclass(frozen=True)
class FailedRow(Row):
    """An image that could not be attacked."""

    TABLE: ClassVar[str] = "failed"
    WRITER: ClassVar[str] = "attack"

    id: Annotated[str, "id of the image"]
    file: Annotated[str, "its name in the source of the images"]
    label: Annotated[int, "its true class, from 0"]
    reason: Annotated[str, "why it failed"]


@dataclass(frozen=True)
class VerdictRow(Row):
    """The answer of a classifier to the saved image of an arm."""

    TABLE: ClassVar[str] = "verdicts"
    WRITER: ClassVar[str] = "evaluate"

    id: Annotated[str, "id of the image"]
    arm: Annotated[str, "clean, round_trip, reconstruction, noise or attack"]
    classifier: Annotated[str, "its name, with the defences in front of it"]
    role: Annotated[str, "its role in the run: surrogate, tuning, reference, judge or defended (judge with a defence)"]
    predicted: Annotated[int, "the class that it sees, from 0; those that it alone has come after the run's"]
    predicted_name: Annotated[str, "name of that class, or its number"]
    correct: Annotated[bool, "true where that is the true class"]
    success: Annotated[
        bool | None,
        "true where that is another class, or in a targeted attack the target; null where the classifier is wrong "
        "about the clean image, so that the mean of the column is over the images that it knows",
    ]
    true_probability: Annotated[float, "its probability of the true class, in [0,1]"]
    predicted_probability: Annotated[float, "its probability of the class that it sees, in [0,1]"]


@dataclass(frozen=True)
class QualityRow(Row):
    """Distances of the saved image of an arm to the clean image."""

    TABLE: ClassVar[str] = "quality"
    WRITER: ClassVar[str] = "evaluate"

    id: Annotated[str, "id of the image"]
    arm: Annotated[str, "round_trip, reconstruction, noise or attack"]
    values: Annotated[
        Mapping[str, float],
        Wide("{}"),
        "a metric of `attnshift list`, such as ssim; null where not taken; equal images have infinite psnr",
    ] = field(default_factory=dict)


@dataclass(frozen=True)
class UnavailableRow(Row):
    """A metric of images that could not be taken."""

    TABLE: ClassVar[str] = "unavailable"
    WRITER: ClassVar[str] = "evaluate"

    metric: Annotated[str, "its name"]
    reason: Annotated[str, "why it could not be taken"]


@dataclass(frozen=True)
class VisibilityRow(Row):
    """Visibility of the object in the saved image of an arm."""

    TABLE: ClassVar[str] = "visibility"
    WRITER: ClassVar[str] = "evaluate --masks"

    id: Annotated[str, "id of the image"]
    arm: Annotated[str, "round_trip, reconstruction, noise or attack"]
    values: Annotated[
        Mapping[str, float],
        Wide("{}"),
        "a measure of visibility of `attnshift list`, such as contrast_kept; nan where the mask does not allow it",
    ] = field(default_factory=dict)


@dataclass(frozen=True)
class SetRow(Row):
    """Distance of the images of an arm, as a set, to the clean images."""

    TABLE: ClassVar[str] = "sets"
    WRITER: ClassVar[str] = "evaluate --sets"

    metric: Annotated[str, "fid, kid or cmmd"]
    arm: Annotated[str, "round_trip, reconstruction, noise or attack"]
    features: Annotated[str, "name of the network whose features are compared"]
    usual: Annotated[bool, "true for the features that the metric was published with"]
    images: Annotated[int, "images in each set"]
    value: Annotated[float | None, "the distance; null where there is a reason"]
    low: Annotated[float | None, "lower end of its 95 % interval; nan for fid, which has none"]
    high: Annotated[float | None, "upper end of its 95 % interval; nan for fid"]
    reason: Annotated[str, "why it could not be taken; empty where it was"]
    digest: Annotated[str, "digest of the ids of the images"] = ""


@dataclass(frozen=True)
class GradCamRow(Row):
    """Grad-CAM of a classifier for the true class of an image."""

    TABLE: ClassVar[str] = "grad_cam"
    WRITER: ClassVar[str] = "evaluate --grad-cam"

    id: Annotated[str, "id of the image"]
    arm: Annotated[str, "clean or attack"]
    classifier: Annotated[str, "its name"]
    side: Annotated[int, "rows of the map"]
    values: Annotated[
        tuple[float, ...], "the map, row by row, in [0,1]: how much a place speaks for the class; its own highest is 1"
    ]


def images_digest(ids: Iterable[str]) -> str:
    """Digest of a set of images, whatever their order: 16 hex digits."""
    return hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()[:16]


ROW_TYPES: dict[str, type[Row]] = {
    kind.TABLE: kind
    for kind in (
        ResultRow,
        FailedRow,
        VerdictRow,
        QualityRow,
        UnavailableRow,
        VisibilityRow,
        SetRow,
        GradCamRow,
    )
}
"""Every table of a run folder by its name."""


@cache
def columns_of(kind: type[Row]) -> tuple[Column, ...]:
    """The fields of a row, in the order of the columns."""
    hints = get_type_hints(kind, include_extras=True)
    return tuple(
        _column(each.name, hints[each.name], each.default is MISSING and each.default_factory is MISSING)
        for each in fields(kind)  # type: ignore[arg-type]  # every row is a dataclass
    )


def _column(name: str, hint: Any, required: bool) -> Column:
    kind, *marks = get_args(hint)
    wide = next((mark for mark in marks if isinstance(mark, Wide)), None)
    about = next(mark for mark in marks if isinstance(mark, str))
    return Column(name, about, *_codec(get_args(kind)[1] if wide else kind), required, wide)


_PLAIN: dict[Any, pyarrow.DataType] = {
    str: pyarrow.string(),
    int: pyarrow.int64(),
    float: pyarrow.float64(),
    bool: pyarrow.bool_(),
}


def _codec(kind: Any) -> tuple[pyarrow.DataType, Callable[[Any], Any], Callable[[Any], Any]]:
    """Type in parquet of values of the type ``kind``,
    and the functions that write and read them."""
    if get_origin(kind) is tuple:
        return pyarrow.list_(_PLAIN[get_args(kind)[0]]), list, tuple
    if get_origin(kind) in (Mapping, dict):
        values = pyarrow.struct([("name", pyarrow.string()), ("values", pyarrow.list_(pyarrow.float64()))])
        return pyarrow.list_(values), _dump_series, _load_series
    alone = [each for each in get_args(kind) if each is not NoneType] or [kind]
    return _PLAIN[alone[0]], _same, _same


def _same(value: Any) -> Any:
    return value


def _dump_series(series: Series) -> list[dict[str, Any]]:
    return [{"name": name, "values": list(values)} for name, values in series.items()]


def _load_series(kept: Iterable[Mapping[str, Any]]) -> Series:
    return {each["name"]: tuple(each["values"]) for each in kept}
