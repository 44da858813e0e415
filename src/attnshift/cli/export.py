"""`attnshift export`: images of a run under their own names."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from attnshift.cli.printing import print_message, print_next
from attnshift.terminal import plural

__all__ = ["export"]


def export(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    folder: Annotated[Path, typer.Argument(help="New or empty folder for the images.")],
    arm: Annotated[str, typer.Option(help="Which images: attack, clean, reconstruction, …")] = "attack",
    own_size: Annotated[
        bool,
        typer.Option(
            "--own-size", help="At the size of the source, with the change resized and pasted back; it is not judged."
        ),
    ] = False,
    hub: Annotated[
        bool,
        typer.Option("--hub", help="As a dataset folder for the Hugging Face Hub, with a card; nothing is sent."),
    ] = False,
) -> None:
    """Write a run's images into a folder, each under the name of its source."""
    from attnshift.execution.export import export_run
    from attnshift.results.store import Store

    store = Store.open(run)
    if hub:
        from attnshift.report.dataset import SPLIT, write_dataset

        names = export_run(store, folder, arm, own_size, within=SPLIT)
        write_dataset(store, folder, names, arm, own_size)
    else:
        names = export_run(store, folder, arm, own_size)
    written, planned = len(names), store.planned()
    print(folder)
    left = f"; {planned - written} of {planned} are not finished" if written < planned else ""
    judged = "; at their own size they have not been judged" if own_size else ""
    print_message(f"{plural(written, 'image')} written{judged}{left}")
    if hub:
        print_next(f"state the licence in {folder / 'README.md'}, then hf upload NAME {folder} --repo-type dataset")
