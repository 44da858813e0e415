"""What several commands take, and what they check before anything is imported."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from attnshift.errors import UserError

__all__ = [
    "At",
    "Cache",
    "Changes",
    "Device",
    "Images",
    "Judges",
    "Labels",
    "Limit",
    "Log",
    "Masks",
    "MinCleanAccuracy",
    "Mlflow",
    "Pipeline",
    "Precision",
    "Size",
    "Strengths",
    "Surrogates",
    "Target",
    "Tensorboard",
    "check_share",
]

Images = Annotated[
    str, typer.Argument(help="Folder, parquet file, tar shards or URL prefix; docs/inputs.md says what may stand here.")
]
Labels = Annotated[
    Path | None,
    typer.Option(help="CSV or JSON lines with file,label[,class_name][,target], where the images do not say it."),
]
Pipeline = Annotated[str, typer.Option(help="Stable Diffusion folder or hub name, or 'lab'.")]
Surrogates = Annotated[
    list[str], typer.Option(help="Classifier to attack, as source:name or defence+source:name; repeat for several.")
]
Judges = Annotated[
    list[str], typer.Option(help="Held-out classifier, as source:name or defence+source:name; repeat for several.")
]
Strengths = Annotated[
    list[float],
    typer.Option(
        help="Factor on a recipe's learning rate or a baseline's radius; 1 changes nothing; repeat for several."
    ),
]
At = Annotated[list[float], typer.Option(help="SSIM at which success is read off the curves; repeat for several.")]
Changes = Annotated[list[str], typer.Option("--set", help="Change a key: optimiser.iterations=10.")]
Size = Annotated[int, typer.Option(help="Side of the square images in pixels; default: the pipeline's.")]
Limit = Annotated[int, typer.Option(help="Only the first so many images.")]
MinCleanAccuracy = Annotated[
    float, typer.Option(help="Least accuracy on the clean images, as a share of the best classifier's; 0 admits all.")
]
Device = Annotated[str, typer.Option(help="cpu or cuda.")]
Precision = Annotated[
    str, typer.Option(help="Of the pipeline's weights: float32 or bfloat16; losses and steps stay in float32.")
]
Cache = Annotated[Path | None, typer.Option(help="Folder that keeps inversions for other runs on the same images.")]
RetryFailed = Annotated[bool, typer.Option("--retry-failed", help="Try again what failed before.")]
Log = Annotated[Path | None, typer.Option(help="File to which every event goes as a line of JSON.")]
Tensorboard = Annotated[Path | None, typer.Option(help="Folder for TensorBoard's curves.")]
Mlflow = Annotated[str | None, typer.Option(metavar="EXPERIMENT", help="MLflow experiment for curves and parameters.")]
Masks = Annotated[Path | None, typer.Option(help="Folder with a mask under each image's name.")]
Target = Annotated[
    str | None, typer.Option(metavar="CLASS", help="Class that every image shall be seen as, by number or name.")
]


def check_share(option: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise UserError(f"{option} is {value}; it must lie between 0 and 1")
