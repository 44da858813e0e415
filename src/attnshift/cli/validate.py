"""`attnshift validate`: all complaints about an attack's input, without attacking."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from attnshift.cli.options import AsJson, Changes, InputOptions, Preset, expand_options
from attnshift.cli.printing import print_json, print_message, with_flags
from attnshift.errors import UserError
from attnshift.terminal import one_line, plural

if TYPE_CHECKING:
    from attnshift.diffusion.measures import PipelineMeasures

__all__ = ["validate"]


@expand_options
def validate(*, preset: Preset = "fast", changes: Changes = (), inputs: InputOptions, as_json: AsJson = False) -> None:
    """Find everything in an attack's input that could stop it or make images fail, without attacking."""
    from attnshift.execution.early import early_complaints
    from attnshift.recipes.reading import load_recipe

    complaints: list[UserError] = []
    remarks: list[str] = []
    measured: list[PipelineMeasures] = []

    def complain(error: UserError) -> None:
        complaints.append(error)
        print_message(error)

    def remark(line: str) -> None:
        remarks.append(with_flags(line))
        print_message(line)

    early, usable = early_complaints(inputs), 0
    for each in early:
        complain(each)
    recipe = load_recipe(preset, changes)
    if not early:
        from attnshift.execution.prepare import AttackSettings
        from attnshift.execution.validate import find_problems

        usable = find_problems(
            AttackSettings(**vars(inputs), recipe=recipe, out=Path()), complain, remark, measured.append
        )
    if as_json:
        print_json(
            {
                "usable": usable,
                "pipeline": {**vars(measured[0]), "verdict": measured[0].verdict.kind} if measured else None,
                "complaints": [with_flags(each) for each in complaints],
                "remarks": remarks,
            }
        )
    else:
        for measures in measured:
            print(one_line(f"pipeline {measures.verdict.line}"))
        rest = "; the rest is checked once they are mended" if early else ""
        print(f"{plural(usable, 'image')} can be attacked, {plural(len(complaints), 'complaint')}{rest}")
    if complaints:
        raise typer.Exit(2)
