"""`attnshift lab`: the tabletop world, its networks and their training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from attnshift.errors import UserError

__all__ = ["lab_app"]

lab_app = typer.Typer(no_args_is_help=True, help="The tabletop world that ships with the package.")


@lab_app.command()
def render(
    out: Annotated[Path, typer.Argument(help="Folder for the images, masks and labels.csv.")],
    count: Annotated[int, typer.Option(help="How many images.")] = 64,
    split: Annotated[str, typer.Option(help="train, tuning or test.")] = "test",
    seed: Annotated[int, typer.Option(help="World seed; the shipped networks were trained on 0.")] = 0,
) -> None:
    """Render images of the lab with captions, labels and object masks."""
    from attnshift.lab.export import export_images

    print(export_images(out, seed, split, count))


@lab_app.command("random-pipeline")
def random_pipeline_command(
    out: Annotated[Path, typer.Argument(help="Folder for the pipeline.")],
    size: Annotated[int, typer.Option(help="Side of its images in pixels.")] = 224,
) -> None:
    """Write a Stable Diffusion with random weights: it shows that a set-up runs, not strength."""
    if out.exists() and not (out.is_dir() and next(out.iterdir(), None) is None):
        raise UserError(f"{out} exists and is not an empty folder; choose another one")
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    from attnshift.lab.random_pipeline import random_pipeline

    for each in (diffusers_logging, transformers_logging):
        each.disable_progress_bar()
    random_pipeline(size=size, tokens=77).save_pretrained(out, safe_serialization=True)
    print(out)


@lab_app.command()
def train(
    out: Annotated[Path, typer.Option(help="Where the trained networks go.")],
    work: Annotated[Path, typer.Option(help="Renders and checkpoints; the same command continues.")] = Path("lab-work"),
    seed: Annotated[int, typer.Option(help="Seed of the world and of the training.")] = 0,
    only: Annotated[
        list[str], typer.Option(help="Train only this: pipeline, flow or a classifier; repeat for several.")
    ] = [],  # noqa: B006
    threads: Annotated[int, typer.Option(help="CPU threads and rendering processes.")] = 2,
) -> None:
    """Train the lab's pipeline and classifiers anew."""
    from attnshift.lab.train import train_lab

    train_lab(out, work, seed, only, threads, lambda line: print(line, flush=True))


@lab_app.command("check")
def check_command(
    images: Annotated[int, typer.Option(help="Held-out renders for every figure.")] = 500,
    write: Annotated[bool, typer.Option("--write", help="Write the figures into the card beside the weights.")] = False,
    pipeline: Annotated[
        str, typer.Option(help="Measure this pipeline alone, such as a folder of attnshift lab train.")
    ] = "lab",
) -> None:
    """Measure the shipped networks on held-out renders against what they must reach."""
    from attnshift.diffusion import check_pipeline_name
    from attnshift.lab.check import check_lab

    check_pipeline_name(pipeline)
    if not check_lab(images, write, lambda line: print(line, flush=True), pipeline):
        raise typer.Exit(1)
