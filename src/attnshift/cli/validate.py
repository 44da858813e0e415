"""`attnshift validate`: all complaints about an attack's input, without attacking."""

from __future__ import annotations

from pathlib import Path

import typer

from attnshift.cli.options import AsJson, Changes, InputOptions, Preset, expand_options
from attnshift.cli.printing import print_json, print_message, with_flags
from attnshift.errors import UserError

__all__ = ["validate"]


@expand_options
def validate(*, preset: Preset = "fast", changes: Changes = (), inputs: InputOptions, as_json: AsJson = False) -> None:
    """Find everything in an attack's input that could stop it or make images fail, without attacking."""
    from attnshift.recipes.reading import load_recipe

    recipe = load_recipe(preset, changes)
    from attnshift.execution.prepare import AttackSettings
    from attnshift.execution.validate import find_problems

    complaints: list[UserError] = []

    def complain(error: UserError) -> None:
        complaints.append(error)
        print_message(error)

    usable = find_problems(AttackSettings(**vars(inputs), recipe=recipe, out=Path()), complain)
    if as_json:
        print_json({"usable": usable, "complaints": [with_flags(each) for each in complaints]})
    else:
        print(f"{usable} images can be attacked, {len(complaints)} complaints")
    if complaints:
        raise typer.Exit(2)
