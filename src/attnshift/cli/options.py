"""What several commands take, and what they check before anything is imported."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from attnshift.errors import UserError

__all__ = [
    "At",
    "Changes",
    "Device",
    "Judges",
    "Labels",
    "Limit",
    "Masks",
    "MinCleanAccuracy",
    "Pipeline",
    "Size",
    "Strengths",
    "Surrogates",
    "Target",
    "check_share",
]

Labels = Annotated[Path, typer.Option(help="CSV with the columns file,label[,class_name][,target].")]
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
        help="Factor on a recipe's learning rate or a peer's radius; 1 is the recipe as it stands; repeat for several."
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
Masks = Annotated[Path | None, typer.Option(help="Folder with a mask under each image's name.")]
Target = Annotated[
    str | None, typer.Option(metavar="CLASS", help="Class that every image shall be seen as, by number or name.")
]


def check_share(option: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise UserError(f"{option} is {value}; it must lie between 0 and 1")
