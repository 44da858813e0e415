"""`attnshift validate`: all complaints about an attack's input, without attacking."""

from __future__ import annotations

from pathlib import Path

import typer

from attnshift.cli.options import AsJson, Changes, InputOptions, Preset, expand_options
from attnshift.cli.printing import print_json, print_message, with_flags
from attnshift.errors import UserError
from attnshift.terminal import Groups, one_line, plural

__all__ = ["validate"]


@expand_options
def validate(*, preset: Preset = "fast", changes: Changes = (), inputs: InputOptions, as_json: AsJson = False) -> None:
    """Find everything that could stop an attack or make images fail, without attacking."""
    from attnshift.execution.early import early_complaints
    from attnshift.recipes.reading import load_recipe

    complaints, groups = 0, Groups()
    shown: list[str] = []
    remarks: list[str] = []

    def say(line: object) -> None:
        shown.append(with_flags(line))
        print_message(line)

    def complain(error: UserError) -> None:
        nonlocal complaints
        complaints += 1
        if groups.admits(error):
            say(error)

    def remark(line: str) -> None:
        remarks.append(with_flags(line))
        print_message(line)

    early, found = early_complaints(inputs), None
    for each in early:
        complain(each)
    recipe = load_recipe(preset, changes)
    if not early:
        from attnshift.execution.settings import AttackSettings
        from attnshift.execution.validate import find_problems

        found = find_problems(AttackSettings(**vars(inputs), recipe=recipe, out=Path()), complain, remark)
    for line in groups.left_out():
        say(line)
    if as_json:
        values = {"usable": 0, "refused": True} if found is None else found.to_json()
        print_json({**values, "complaints": shown, "complaint_count": complaints, "remarks": remarks})
    else:
        for line in found.lines() if found else ():
            print(one_line(line))
        rest = "; the rest is checked once they are mended" if early else ""
        counted = plural(complaints, "complaint")
        if found is None or found.refused:
            print(f"an attack would be refused, {counted}{rest}")
        else:
            print(f"{plural(found.usable, 'image')} can be attacked, {counted}")
    if complaints:
        raise typer.Exit(2)
