"""`attnshift studio`: attack one image on a page in the browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from attnshift.cli.options import PIPELINE
from attnshift.cli.printing import print_message

__all__ = ["studio"]


def studio(
    pipeline: Annotated[str, typer.Option(help=PIPELINE)] = "lab",
    surrogates: Annotated[
        list[str] | None,
        typer.Option(
            "--surrogate", help="Classifier to attack, as source:name; repeat for several. Default: those of the lab."
        ),
    ] = None,
    judges: Annotated[
        list[str] | None,
        typer.Option("--judge", help="Classifier that the attack never sees, as source:name; repeat for several."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the attacks.")] = Path("runs/studio"),
    size: Annotated[int, typer.Option(help="Side of the square images in pixels; default: the pipeline's.")] = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    precision: Annotated[str, typer.Option(help="Of the pipeline's weights: float32 or bfloat16.")] = "float32",
    accept_pipeline: Annotated[
        bool, typer.Option("--accept-pipeline", help="Attack even where measures of the pipeline speak against it.")
    ] = False,
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen at; 0 takes any that is free.")] = 7860,
    browser: Annotated[bool, typer.Option("--browser", help="Open the page in this machine's browser.")] = False,
) -> None:
    """Attack one image on a page in the browser, with attention, masks and progress.

    Needs pip install 'attnshift\\[studio]'. It works offline, on the lab or on models of one's own.
    """
    from attnshift.studio.networks import StudioOptions
    from attnshift.studio.serve import serve

    options = StudioOptions(
        out=out,
        pipeline=pipeline,
        surrogates=tuple(surrogates or ()),
        judges=tuple(judges or ()),
        size=size,
        device=device,
        precision=precision,
        accept_pipeline=accept_pipeline,
        host=host,
        port=port,
        browser=browser,
    )
    serve(options, lambda address: print_message(f"the studio is at {address} (Ctrl-C ends it)"))
