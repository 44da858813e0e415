"""Options that several commands share, each declared once, and checks that need no import."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer

from attnshift.cli import completion
from attnshift.cli.tolerance import MaxFailed
from attnshift.errors import UserError

__all__ = [
    "PIPELINE",
    "AfterOptions",
    "AsJson",
    "AttackOptions",
    "Changes",
    "CompareOptions",
    "ImageOptions",
    "InputOptions",
    "Judges",
    "MinCleanAccuracy",
    "OutputOptions",
    "Preset",
    "ReferenceName",
    "RetryFailed",
    "TelemetryOptions",
    "WorkOptions",
    "check_share",
    "expand_options",
]

Preset = Annotated[
    str, typer.Option(help="Preset, baseline (pgd, mifgsm, …) or recipe file.", autocompletion=completion.recipes)
]
Changes = Annotated[
    tuple[str, ...],
    typer.Option("--set", help="Change a key: optimiser.iterations=10.", autocompletion=completion.recipe_keys),
]
Judges = Annotated[
    tuple[str, ...],
    typer.Option(
        "--judge",
        help="Held-out classifier, as source:name or defence+source:name; repeat for several.",
        autocompletion=completion.classifiers,
    ),
]
MinCleanAccuracy = Annotated[
    float, typer.Option(help="Least accuracy on the clean images, as a share of the best classifier's; 0 admits all.")
]
ReferenceName = Annotated[
    str,
    typer.Option(
        metavar="SOURCE:NAME",
        help="Classifier that speaks for the label, neither attacked nor a judge, such as "
        "smoothing(sigma=0.1)+source:name; an image in which it no longer sees the true class is no success.",
        autocompletion=completion.classifiers,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on standard output.")]
PIPELINE = (
    "Folder in diffusers' layout, hub name, FILE.safetensors,config=FOLDER, 'lab' or 'lab-flow'; behind it "
    ",variant=fp16 for a variant, ,lora=FILE,scale=0.8 for a LoRA and ,weights=int8 for weights of 8 bits."
)
RetryFailed = Annotated[bool, typer.Option("--retry-failed", help="Try again what failed before.")]


@dataclass(frozen=True, kw_only=True)
class ImageOptions:
    """Images of an attack, and the classifiers that it meets."""

    images: Annotated[
        str,
        typer.Argument(help="Folder, parquet file, tar shards or URL prefix; docs/inputs.md has the list."),
    ]
    labels: Annotated[
        Path | None,
        typer.Option(help="CSV or JSON lines with file,label[,class_name][,target], where the images do not say it."),
    ] = None
    surrogates: Annotated[
        tuple[str, ...],
        typer.Option(
            "--surrogate",
            help="Classifier to attack, as source:name or defence+source:name; repeat for several.",
            autocompletion=completion.classifiers,
        ),
    ] = ()
    size: Annotated[
        str,
        typer.Option(
            metavar="SIDE|WIDTHxHEIGHT|keep",
            help="Pixels to which images are cropped, such as 512 or 768x512, or keep: each image whole, at the "
            "nearest size that fits; default: the pipeline's.",
            show_default=False,
        ),
    ] = ""
    limit: Annotated[int, typer.Option(help="Only the first so many images.")] = 0
    device: Annotated[str, typer.Option(help="cpu or cuda.", autocompletion=completion.one_of("cpu", "cuda"))] = "cpu"
    precision: Annotated[
        str,
        typer.Option(
            help="Of the pipeline's weights and the surrogates' gradients: float32 or bfloat16. Losses, steps and "
            "what surrogates answer stay in float32.",
            autocompletion=completion.one_of("float32", "bfloat16"),
        ),
    ] = "float32"
    masks: Annotated[Path | None, typer.Option(help="Folder with a mask under each image's name.")] = None
    captions: Annotated[
        bool,
        typer.Option("--captions", help="Prompt each image by its caption, a column that names its class."),
    ] = False
    accept_labels: Annotated[
        bool, typer.Option("--accept-labels", help="Attack even where names or clean accuracy contradict the labels.")
    ] = False
    accept_pipeline: Annotated[
        bool, typer.Option("--accept-pipeline", help="Attack even where measures of the pipeline speak against it.")
    ] = False
    target: Annotated[
        str | None,
        typer.Option(
            metavar="CLASS",
            help="Class that every image shall be seen as, by number or name; nearest, the wrong class that the "
            "surrogates find most likely; random, drawn for each image; or none.",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class InputOptions(ImageOptions):
    """Input of an attack: its images, and the networks that it meets."""

    pipeline: Annotated[str, typer.Option(help=PIPELINE, autocompletion=completion.pipelines)] = "lab"


@dataclass(frozen=True, kw_only=True)
class WorkOptions:
    """Size of a piece of work."""

    batch: Annotated[int, typer.Option(help="Images attacked together; part of a run's identity.")] = 0
    threads: Annotated[int, typer.Option(help="CPU threads; part of a run's identity.")] = 0


@dataclass(frozen=True, kw_only=True)
class AttackOptions(InputOptions, WorkOptions):
    """Input of an attack that is carried out."""


BudgetOption = Annotated[
    str,
    typer.Option(
        metavar="METRIC=LIMIT[,…]",
        help="Naturalness that every saved image keeps and the attack spends, such as ssim=0.95; "
        "ssim=0.95,lpips-squeeze=0.05 keeps both.",
        autocompletion=completion.budgets,
    ),
]


_STANDARD_OUTPUT = Path("-")


@dataclass(frozen=True, kw_only=True)
class TelemetryOptions:
    """Consumers of what an attack tells."""

    log: Annotated[
        Path | None, typer.Option(help="File to which every event goes as a line of JSON; - is standard output.")
    ] = None
    tensorboard: Annotated[Path | None, typer.Option(help="Folder for TensorBoard's curves.")] = None
    mlflow: Annotated[
        str | None, typer.Option(metavar="EXPERIMENT", help="MLflow experiment for curves and parameters.")
    ] = None
    wandb: Annotated[
        str | None,
        typer.Option(
            metavar="PROJECT",
            help="Weights & Biases project for curves and facts; files in ./wandb unless WANDB_MODE is online.",
        ),
    ] = None
    others: Annotated[
        tuple[str, ...],
        typer.Option(
            "--telemetry",
            metavar="NAME=PLACE",
            help="Plug-in that is told, and where it writes; repeat for several.",
            autocompletion=completion.telemetry_names,
        ),
    ] = ()

    @contextmanager
    def places(self) -> Iterator[dict[str, Any]]:
        """Arguments of ``open_telemetry``: where each consumer writes.

        If the log goes to standard output, all else that is printed there within the block goes to
        standard error.
        """
        places = self._places()
        if self.log != _STANDARD_OUTPUT:
            yield places
            return
        out = sys.stdout
        with redirect_stdout(sys.stderr):
            yield places | {"log": out}

    def _places(self) -> dict[str, Any]:
        pairs = [each.partition("=") for each in self.others]
        for name, separator, place in pairs:
            if not (name and separator and place):
                raise UserError(f"`telemetry` is {name}{separator}{place}; it must have the form NAME=PLACE")
        return vars(self) | {"others": {name: place for name, _, place in pairs}}


@dataclass(frozen=True, kw_only=True)
class AfterOptions:
    """Parts that follow an attack: judging, and the report."""

    judges: Judges = ()
    reference: ReferenceName = ""
    min_clean_accuracy: MinCleanAccuracy = 0.25
    report: Annotated[
        bool, typer.Option("--report", help="Write the report once the attack, and judging if asked for, are done.")
    ] = False

    def __post_init__(self) -> None:
        check_share("min_clean_accuracy", self.min_clean_accuracy)

    @property
    def judged(self) -> bool:
        return bool(self.judges or self.reference)


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """Form of the figures on standard output."""

    as_json: AsJson = False
    table: Annotated[
        str,
        typer.Option(
            metavar="FORMAT",
            help="Print tables alone, as markdown, csv or latex (booktabs).",
            autocompletion=completion.one_of("markdown", "csv", "latex"),
        ),
    ] = ""

    def __post_init__(self) -> None:
        if self.table not in ("", "markdown", "csv", "latex"):
            raise UserError(f"`table` is {self.table}; known are markdown, csv and latex")
        if self.table and self.as_json:
            raise UserError("`as_json` prints no tables; leave `table` out, or `as_json`")


@dataclass(frozen=True, kw_only=True)
class CompareOptions:
    """Options of a comparison beside its input and its recipes."""

    strengths: Annotated[
        tuple[float, ...],
        typer.Option(
            "--strength",
            help="Factor on a recipe's learning rate or a baseline's radius; 1 changes nothing; repeat for several.",
        ),
    ] = ()
    budgets: Annotated[
        tuple[str, ...],
        typer.Option(
            "--budget",
            metavar="METRIC=LIMIT[,…]",
            help="Naturalness that every image keeps, such as ssim=0.95, or ssim=0.95,lpips-squeeze=0.05 to keep "
            "both, in place of strengths; repeat for several tables.",
            autocompletion=completion.budgets,
        ),
    ] = ()
    adaptive: Annotated[
        tuple[str, ...],
        typer.Option(
            metavar="DEFENCE",
            help="Let every recipe attack once more, as RECIPE+DEFENCE, with its surrogates behind this defence, such "
            "as 'purification(gradient=bpda,draws=4)'; repeat for several.",
            autocompletion=completion.defences,
        ),
    ] = ()
    seeds: Annotated[int, typer.Option(help="Runs of each recipe within a budget, each with another seed.")] = 1
    at: Annotated[
        tuple[float, ...], typer.Option(help="SSIM at which success is read off the curves; repeat for several.")
    ] = (0.9, 0.95)
    changes: Annotated[
        tuple[str, ...],
        typer.Option(
            "--set",
            help="Change a key of every recipe: optimiser.iterations=10.",
            autocompletion=completion.recipe_keys,
        ),
    ] = ()
    sweeps: Annotated[
        tuple[str, ...],
        typer.Option(
            "--sweep",
            metavar="KEY=VALUE,…",
            help="Let every recipe attack once for each value of a key, as RECIPE,KEY=VALUE, such as "
            "terms.contrast.weight=0,0.2,0.5; repeat for all combinations of several keys.",
            autocompletion=completion.recipe_keys,
        ),
    ] = ()
    judges: Judges = ()
    reference: ReferenceName = ""
    min_clean_accuracy: MinCleanAccuracy = 0.25
    retry_failed: RetryFailed = False
    max_failed: MaxFailed = "0"

    def __post_init__(self) -> None:
        if self.reference and not self.budgets:
            raise UserError("`reference` goes with `budgets`; give a budget such as ssim=0.95, or leave it out")
        if self.budgets and self.strengths:
            raise UserError("`budgets` and `strengths` exclude each other; leave one of them out")
        if self.seeds < 1:
            raise UserError(f"`seeds` is {self.seeds}; give at least 1")
        if self.seeds > 1 and not self.budgets:
            raise UserError("`seeds` goes with `budgets`; give a budget such as ssim=0.95, or leave it out")


def expand_options(command: Callable[..., None]) -> Callable[..., None]:
    """Make ``command`` take the fields of its option records one by one, as typer reads a
    signature.

    Every parameter becomes keyword-only. A tuple is read as typer's list of values.
    """
    hints = get_type_hints(command, include_extras=True)
    records: dict[str, Any] = {name: kind for name, kind in hints.items() if is_dataclass(kind)}
    parameters = list(_expanded(command, hints))
    tuples = [each.name for each in parameters if _is_tuple(each.annotation)]

    def run(**values: Any) -> None:
        values |= {name: tuple(values[name]) for name in tuples}
        for name, kind in records.items():
            values[name] = kind(**{each.name: values.pop(each.name) for each in fields(kind)})
        command(**values)

    run.__name__, run.__doc__ = command.__name__, command.__doc__
    parameters = [each.replace(annotation=_listed(each.annotation)) for each in parameters]
    run.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    return run


def check_share(option: str, value: float) -> None:
    """Refuse a ``value`` that is no share; ``option`` is its name."""
    if not 0 <= value <= 1:
        raise UserError(f"`{option}` is {value}; it must lie between 0 and 1")


def _expanded(command: Callable[..., None], hints: dict[str, Any]) -> Iterator[Parameter]:
    for parameter in signature(command).parameters.values():
        kind = hints[parameter.name]
        if not is_dataclass(kind):
            yield parameter.replace(annotation=kind, kind=Parameter.KEYWORD_ONLY)
            continue
        annotations = get_type_hints(kind, include_extras=True)
        for each in fields(kind):
            yield Parameter(
                each.name, Parameter.KEYWORD_ONLY, default=_default(each), annotation=annotations[each.name]
            )


def _default(field: Field[Any]) -> Any:
    return Parameter.empty if field.default is MISSING else field.default


def _is_tuple(annotation: Any) -> bool:
    return get_origin(annotation) is Annotated and get_origin(get_args(annotation)[0]) is tuple


def _listed(annotation: Any) -> Any:
    """``annotation`` with ``list[T]`` in place of ``tuple[T, ...]``."""
    if not _is_tuple(annotation):
        return annotation
    kind, *about = get_args(annotation)
    return Annotated[list[get_args(kind)[0]], *about]
