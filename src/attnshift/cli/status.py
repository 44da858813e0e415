"""`attnshift status`: how far a run is."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from attnshift.cli.printing import with_flags
from attnshift.terminal import one_line, plural

__all__ = ["status"]


def status(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show how far a run is: what is done, what failed and why, the rate, and when it will end."""
    from attnshift.results.status import read_status

    found = read_status(run)
    if as_json:
        print(json.dumps(asdict(found) | {"left": found.left, "seconds_left": found.seconds_left}, indent=1))
        return
    counts = f"{found.done} done, {len(found.failed)} failed, {found.left} left"
    print(one_line(f"{found.recipe}, {plural(found.images, 'image')}: {counts}"))
    for each in found.generations[1:]:
        print(each.line)
    if found.rate is not None and found.left:
        ends = datetime.now().astimezone() + timedelta(seconds=found.seconds_left or 0)
        when = f", ends about {ends:%Y-%m-%d %H:%M}" if found.working else ""
        print(f"{plural(round(found.rate * 3600), 'image')} an hour lately{when}")
    if not found.working and found.left:
        print("not running; the same attack command continues")
    for file, times in found.troubled.items():
        print(one_line(f"{file}: ended its worker {plural(times, 'time')}"))
    for each in found.failed:
        print(one_line(f"failed: {each.file}: {with_flags(each.reason)}"))
