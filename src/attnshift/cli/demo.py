"""`attnshift demo`: attack, judge and report on images of the tabletop lab."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from attnshift.cli.completion import pipelines, recipes
from attnshift.cli.options import PIPELINE, Changes, expand_options
from attnshift.cli.printing import Quiet, print_summary
from attnshift.terminal import plural

__all__ = ["demo"]

_SURROGATES = ("lab:resnet", "lab:efficientnet", "lab:mobilevit")
_JUDGES = ("lab:coatnet", "lab:byobnet", "lab:nfnet", "lab:robust")


@expand_options
def demo(
    *,
    out: Annotated[Path, typer.Option(help="Run folder.")] = Path("runs/demo"),
    scenes: Annotated[int, typer.Option("--images", help="How many held-out lab images.")] = 12,
    preset: Annotated[str, typer.Option(help="Preset.", autocompletion=recipes)] = "strong",
    pipeline: Annotated[str, typer.Option(help=PIPELINE, autocompletion=pipelines)] = "lab",
    changes: Changes = (),
    quiet: Quiet = False,
) -> None:
    """Attack lab images, judge them with classifiers never attacked, and write the report."""
    from attnshift.diffusion import check_pipeline_name
    from attnshift.execution.coordinate import attack_folder
    from attnshift.execution.settings import AttackSettings
    from attnshift.judging.verdicts import evaluate_run
    from attnshift.lab.export import export_images
    from attnshift.recipes.reading import load_recipe
    from attnshift.report.page import write_report
    from attnshift.telemetry import open_telemetry

    check_pipeline_name(pipeline)
    recipe = load_recipe(preset, changes)
    folder = out.with_name(f"{out.name}-images")
    if not quiet:
        print(f"rendering {plural(scenes, 'image')} of the tabletop lab into {folder}")
    labels = export_images(folder, seed=0, split="test", count=scenes)
    if not quiet:
        print("attacking " + ", ".join(_SURROGATES))
    settings = AttackSettings(
        images=folder, labels=labels, pipeline=pipeline, surrogates=_SURROGATES, recipe=recipe, out=out
    )
    with open_telemetry(terminal=sys.stdout.isatty(), stream=sys.stdout, quiet=quiet) as telemetry:
        store = attack_folder(settings, telemetry)
    evaluate_run(store, _JUDGES)
    print_summary(store)
    print(f"\nopen {write_report(store).resolve()}")
