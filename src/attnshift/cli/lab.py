"""The tabletop lab: its own subcommands, and the demo that runs in it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from attnshift.cli.showing import print_summary

__all__ = ["app", "demo"]

app = typer.Typer(no_args_is_help=True, help="The tabletop world that ships with the package.")

_SURROGATES = ["lab:resnet", "lab:efficientnet", "lab:mobilevit"]
_JUDGES = ["lab:coatnet", "lab:byobnet", "lab:nfnet", "lab:robust"]


def demo(
    out: Annotated[Path, typer.Option(help="Run folder.")] = Path("runs/demo"),
    images: Annotated[int, typer.Option(help="How many held-out lab images.")] = 24,
    preset: Annotated[str, typer.Option(help="Preset.")] = "fast",
) -> None:
    """Attack lab images, judge them with classifiers that were never attacked, and write the report."""
    from attnshift.execution.coordinate import Settings, attack_folder
    from attnshift.judging.verdicts import evaluate_run
    from attnshift.lab.export import export_images
    from attnshift.recipes.reading import load_recipe
    from attnshift.report.page import write_report
    from attnshift.telemetry import open_telemetry

    folder = out.with_name(f"{out.name}-images")
    print(f"rendering {images} images of the tabletop lab into {folder}")
    labels = export_images(folder, seed=0, split="test", count=images)
    print("attacking " + ", ".join(_SURROGATES))
    settings = Settings(folder, labels, "lab", tuple(_SURROGATES), recipe=load_recipe(preset), out=out)
    with open_telemetry(terminal=sys.stdout.isatty(), stream=sys.stdout) as telemetry:
        store = attack_folder(settings, telemetry)
    evaluate_run(store, _JUDGES)
    print_summary(store)
    print(f"\nopen {write_report(store).resolve()}")


@app.command()
def render(
    out: Annotated[Path, typer.Argument(help="Folder for the images, masks and labels.csv.")],
    count: Annotated[int, typer.Option(help="How many images.")] = 64,
    split: Annotated[str, typer.Option(help="train, tuning or test.")] = "test",
    seed: Annotated[int, typer.Option(help="World seed; the shipped networks were trained on 0.")] = 0,
) -> None:
    """Render images of the lab with captions, labels and object masks."""
    from attnshift.lab.export import export_images

    print(export_images(out, seed, split, count))


@app.command()
def random_pipeline(
    out: Annotated[Path, typer.Argument(help="Folder for the pipeline.")],
    size: Annotated[int, typer.Option(help="Side of its images in pixels.")] = 224,
) -> None:
    """Write a pipeline in the shape of Stable Diffusion with random weights: shows that a set-up runs, not strength."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    from attnshift.lab.random_pipeline import random_pipeline

    for each in (diffusers_logging, transformers_logging):
        each.disable_progress_bar()
    random_pipeline(size=size, tokens=77).save_pretrained(out, safe_serialization=True)
    print(out)


@app.command()
def train(
    out: Annotated[Path, typer.Option(help="Where the trained networks go.")],
    work: Annotated[Path, typer.Option(help="Renders and checkpoints; the same command continues.")] = Path("lab-work"),
    seed: Annotated[int, typer.Option(help="Seed of the world and of the training.")] = 0,
    only: Annotated[
        list[str], typer.Option(help="Train only this: pipeline or a classifier; repeat for several.")
    ] = [],  # noqa: B006
    threads: Annotated[int, typer.Option(help="CPU threads and rendering processes.")] = 2,
) -> None:
    """Train the lab's pipeline and classifiers anew."""
    from attnshift.lab.train import train_lab

    train_lab(out, work, seed, only, threads, lambda line: print(line, flush=True))


@app.command()
def check(
    images: Annotated[int, typer.Option(help="Held-out renders for every figure.")] = 500,
    write: Annotated[bool, typer.Option("--write", help="Write the figures into the card beside the weights.")] = False,
) -> None:
    """Measure the shipped networks on held-out renders against what they must reach."""
    from attnshift.lab.check import check_lab

    if not check_lab(images, write, lambda line: print(line, flush=True)):
        raise typer.Exit(1)
