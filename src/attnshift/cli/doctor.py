"""`attnshift doctor`: what this installation has and lacks."""

from __future__ import annotations

from dataclasses import asdict
from itertools import groupby

import typer

from attnshift.cli.options import AsJson
from attnshift.cli.printing import print_json
from attnshift.terminal import one_line

__all__ = ["doctor"]

_SIGNS = {"fine": " ", "lacking": "-", "wrong": "!"}


def doctor(as_json: AsJson = False) -> None:
    """Examine this installation: versions, devices, memory, caches, weights, extras; and what to
    do.

    Nothing is downloaded. What is marked - is optional. The exit status is 1 where something is
    wrong, marked !.
    """
    from attnshift.doctor import examine

    found = list(examine())
    if as_json:
        print_json([asdict(each) for each in found])
    else:
        for topic, findings in groupby(found, lambda each: each.topic):
            print(topic)
            for each in findings:
                advice = f"; {each.advice}" if each.advice else ""
                print(f"  {_SIGNS[each.state]} {one_line(f'{each.name}: {each.found}{advice}')}")
    if any(each.state == "wrong" for each in found):
        raise typer.Exit(1)
