"""`attnshift ratings`: what people said on the rating page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from attnshift.cli.options import OutputOptions, expand_options
from attnshift.cli.printing import print_json, print_message
from attnshift.errors import RunError

if TYPE_CHECKING:
    from attnshift.report.people import People
    from attnshift.results.store import Store

__all__ = ["ratings"]


@expand_options
def ratings(
    *,
    files: Annotated[
        tuple[Path, ...], typer.Argument(metavar="FILE…", help="Files of raters, or the folder of their run.")
    ],
    of_run: Annotated[
        Path | None,
        typer.Option("--run", help="Run folder; adds success with the label kept to what files elsewhere say."),
    ] = None,
    output: OutputOptions,
) -> None:
    """Analyse what people said of a run's images: shares, differences, agreement and power, with
    intervals."""
    from attnshift.report.people_tables import people_data, people_lines, people_tables
    from attnshift.report.tables import write_tables

    people = _people(files, of_run)
    if output.as_json:
        print_json(people_data(people))
    else:
        print(write_tables(people_tables(people), output.table or "markdown"))
    for line in people_lines(people):
        print_message(line)


def _people(files: tuple[Path, ...], of_run: Path | None) -> People:
    from attnshift.report.people import summarise_people
    from attnshift.results.ratings import RATINGS_FOLDER, ratings_of, read_ratings
    from attnshift.results.store import Store

    if len(files) == 1 and files[0].is_dir():
        if of_run is not None:
            raise RunError(f"{files[0]} is a folder; give `of_run` beside files, or the run folder alone")
        store = Store.open(files[0])
        read = ratings_of(store)
        if not read:
            raise RunError(
                f"{store.folder / RATINGS_FOLDER} holds no *.json: no person was asked yet; "
                f"attnshift rate {store.folder} writes the page"
            )
        return summarise_people(read, store)
    run: Store | None = None if of_run is None else Store.open(of_run)
    return summarise_people(read_ratings(files, None if run is None else run.spec().digest), run)
