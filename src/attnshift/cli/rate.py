"""`attnshift rate`: a page on which people judge a run's images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from attnshift.cli.printing import print_message
from attnshift.errors import UserError

__all__ = ["rate"]


def rate(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    count: Annotated[int, typer.Option(help="Images to ask about, drawn at random; 0 takes all.")] = 50,
    seed: Annotated[int, typer.Option(help="Seed of the choice and of the orders.")] = 0,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Page to write; default: RUN/rate.html.")
    ] = None,
) -> None:
    """Write one offline page that asks people which image is the original, and whether the label
    still holds."""
    for name, value in (("count", count), ("seed", seed)):
        if value < 0:
            raise UserError(f"`{name}` is {value}; give 0 or more")
    if out is not None and out.suffix != ".html":
        raise UserError(f"`out` is {out}; give a file that ends in .html")
    from attnshift.report.rating_page import write_rating_page
    from attnshift.results.ratings import RATINGS_FOLDER
    from attnshift.results.store import Store
    from attnshift.terminal import plural

    store = Store.open(run)
    written = write_rating_page(store, out, count, seed)
    print(written.path)
    print_message(
        f"asks about {plural(written.pairs, 'pair')}; put the files that people save into "
        f"{store.folder / RATINGS_FOLDER}, and attnshift ratings {run} reads them"
    )
