"""The command line. Heavy libraries are imported inside the commands that need them."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from attnshift import __version__
from attnshift.errors import UserError

if TYPE_CHECKING:
    from attnshift.runs.store import Store

__all__ = ["main"]

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Natural-looking adversarial images by steering a diffusion model's attention.",
)
lab = typer.Typer(no_args_is_help=True, help="The tabletop world that ships with the package.")
app.add_typer(lab, name="lab")

# Options that several commands take.
_Labels = Annotated[Path, typer.Option(help="CSV with the columns file,label[,class_name][,target].")]
_Pipeline = Annotated[str, typer.Option(help="Stable Diffusion folder or hub name, or 'lab'.")]
_Surrogates = Annotated[
    list[str], typer.Option(help="Classifier to attack, as [defence+]source:name; repeat for several.")
]
_Judges = Annotated[list[str], typer.Option(help="Held-out classifier, as [defence+]source:name; repeat for several.")]
_Strengths = Annotated[
    list[float],
    typer.Option(help="Factor on a recipe's learning rate; 1 is the recipe as it stands; repeat for several."),
]
_At = Annotated[list[float], typer.Option(help="SSIM at which success is read off the curves; repeat for several.")]
_Changes = Annotated[list[str], typer.Option("--set", help="Change a key: optimiser.iterations=10.")]
_Size = Annotated[int, typer.Option(help="Side of the square images in pixels; default: the pipeline's.")]
_Limit = Annotated[int, typer.Option(help="Only the first so many images.")]
_MinCleanAccuracy = Annotated[
    float, typer.Option(help="Least accuracy on the clean images, as a share of the best classifier's; 0 admits all.")
]
_Device = Annotated[str, typer.Option(help="cpu or cuda.")]
_Masks = Annotated[Path | None, typer.Option(help="Folder with a mask under each image's name.")]
_Target = Annotated[
    str | None, typer.Option(metavar="CLASS", help="Class that every image shall be seen as, by number or name.")
]

_LAB_SURROGATES = ["lab:resnet", "lab:efficientnet", "lab:mobilevit"]
_LAB_JUDGES = ["lab:coatnet", "lab:byobnet", "lab:nfnet", "lab:robust"]


def main() -> None:
    """Entry point: user mistakes are one line and exit status 2; Ctrl-C is 130, SIGTERM 143."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stopped)
    try:
        app()
    except UserError as error:
        print(f"attnshift: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(2) from None


def _stopped(number: int, frame: object) -> None:
    print(
        "attnshift: stopped; the same command continues an attack, a comparison, a training or a study", file=sys.stderr
    )
    raise SystemExit(128 + number)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"attnshift {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


@app.command("list")
def list_command(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List every preset, term, rule, source, metric, defence and backbone, with where it comes from."""
    from attnshift.catalogue import catalogue

    families = catalogue()
    if as_json:
        print(json.dumps(families, indent=1))
        return
    from rich.table import Table
    from rich.text import Text

    console = Console(width=None if sys.stdout.isatty() else 160)
    for family, entries in families.items():
        console.print(f"\n[bold]{family}[/bold]")
        grid = Table.grid(padding=(0, 2))
        grid.add_column(no_wrap=True, min_width=24)
        for each in entries:
            source = f" ({each['reference']})" if each["reference"] else ""
            grid.add_row(Text(f"  {each['name']}"), Text(each["summary"] + source))
        console.print(grid if entries else "  none")


@app.command()
def attack(
    images: Annotated[Path, typer.Argument(help="Folder of images.")],
    labels: _Labels,
    out: Annotated[Path, typer.Option(help="Run folder; the same command continues an interrupted run.")],
    pipeline: _Pipeline = "lab",
    surrogate: _Surrogates = [],  # noqa: B006
    preset: Annotated[str, typer.Option(help="Preset, or a recipe file.")] = "fast",
    set_: _Changes = [],  # noqa: B006
    size: _Size = 0,
    batch: Annotated[int, typer.Option(help="Images attacked together; part of the run's identity.")] = 0,
    limit: _Limit = 0,
    device: _Device = "cpu",
    threads: Annotated[int, typer.Option(help="CPU threads; part of the run's identity.")] = 0,
    masks: _Masks = None,
    target: _Target = None,
) -> None:
    """Attack a folder of images."""
    from attnshift.attack.recipe import load_recipe

    if not surrogate:
        raise UserError("no classifier to attack; give at least one --surrogate, such as --surrogate timm:resnet50")
    recipe = load_recipe(preset, set_)
    from attnshift.runs.local import Settings

    settings = Settings(
        images, labels, pipeline, tuple(surrogate), recipe, out, size, batch, limit, device, threads, masks, target
    )
    _attack(settings)
    console = Console(stderr=True)
    console.print(f"next: attnshift evaluate {out} --judge SOURCE:NAME, then attnshift report {out}", markup=False)


def _attack(settings: Any) -> Store:
    from attnshift.runs.local import attack_folder

    with _images_done(Console()) as done:
        return attack_folder(settings, done)


@contextmanager
def _images_done(console: Console) -> Iterator[Callable[..., None]]:
    """What an attack tells its progress, on ``console``: a bar on a terminal and one line per image that is done."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("attack"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("attack", total=None)

        def done(item: Any, row: dict[str, Any], count: int, total: int, run: str = "") -> None:
            bar.update(task, completed=count, total=total)
            reached = sum(margin < 0 for margin in row["attack_margins"])
            classes = item.class_name if item.target is None else f"{item.class_name} → {item.target_name}"
            line = (
                f"{run and f'{run} '}{count}/{total} {item.file} ({classes}): succeeds on {reached} of "
                f"{len(row['attack_margins'])} surrogates, iterate {row['iteration']} of {row['evaluated']}, "
                f"{row['seconds']:.2f} s"
            )
            console.print(line, markup=False, highlight=False, soft_wrap=True)

        yield done


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    judge: _Judges = [],  # noqa: B006
    tuning: Annotated[list[str], typer.Option(help="Classifier that was used to tune; reported apart.")] = [],  # noqa: B006
    min_clean_accuracy: _MinCleanAccuracy = 0.25,
) -> None:
    """Judge the saved 8-bit images of a run, by its surrogates and by held-out classifiers."""
    _check_share("--min-clean-accuracy", min_clean_accuracy)
    from attnshift.runs.evaluation import evaluate_run
    from attnshift.runs.store import Store

    store = Store.open(run)
    remarks = evaluate_run(store, judge, tuning, min_clean_accuracy=min_clean_accuracy)
    _print_summary(store)
    for remark in remarks:
        print(f"attnshift: {remark}", file=sys.stderr)


@app.command()
def tune(
    images: Annotated[Path, typer.Argument(help="Folder of images; not those that are evaluated later.")],
    labels: _Labels,
    search: Annotated[Path, typer.Option(help="TOML file with the search space: keys of a recipe, as in --set.")],
    out: Annotated[Path, typer.Option(help="Study folder; the same command continues an interrupted study.")],
    pipeline: _Pipeline = "lab",
    surrogate: _Surrogates = [],  # noqa: B006
    tuning: Annotated[
        list[str],
        typer.Option(help="Classifier that decides, as [defence+]source:name, never a judge; repeat for several."),
    ] = [],  # noqa: B006
    preset: Annotated[str, typer.Option(help="Preset, or a recipe file, to start from.")] = "fast",
    set_: _Changes = [],  # noqa: B006
    trials: Annotated[int, typer.Option(help="How many recipes are tried, those of an earlier call included.")] = 50,
    floor: Annotated[float, typer.Option(help="SSIM to the clean image from which on an image counts.")] = 0.9,
    seed: Annotated[int, typer.Option(help="Seed of the search.")] = 0,
    size: _Size = 0,
    batch: Annotated[int, typer.Option(help="Images attacked together; part of the study's identity.")] = 0,
    limit: _Limit = 0,
    device: _Device = "cpu",
    threads: Annotated[int, typer.Option(help="CPU threads; part of the study's identity.")] = 0,
    masks: _Masks = None,
    target: _Target = None,
) -> None:
    """Search better numbers for a recipe, judged by tuning classifiers alone; writes OUT/best.toml."""
    from attnshift.runs.tuning import Settings, read_search
    from attnshift.runs.tuning import tune as run

    console = Console()

    def done(number: int, total: int, score: float | None, best: float | None) -> None:
        result = "failed" if score is None else f"score {score:.4f}"
        rest = "" if best is None else f", best {best:.4f}"
        console.print(f"{number + 1}/{total}: {result}{rest}", markup=False, highlight=False, soft_wrap=True)

    settings = Settings(
        images,
        labels,
        pipeline,
        tuple(surrogate),
        tuple(tuning),
        read_search(search),
        out,
        preset,
        tuple(set_),
        trials,
        floor,
        seed,
        size,
        batch,
        limit,
        device,
        threads,
        masks,
        target,
    )
    tuned = run(settings, done)
    for name, trial in (("preset", tuned.preset), (f"best, trial {tuned.best.number + 1}", tuned.best)):
        if trial is None or trial.grade is None:
            line = f"{name}: not measured, it failed or lies outside the search space"
        else:
            line = (
                f"{name}: succeeds on {trial.grade.success:.1%} of all images, {trial.grade.success_with_floor:.1%} "
                f"at SSIM {floor} or more; mean SSIM {trial.grade.ssim:.3f}, {trial.seconds:.1f} s"
            )
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    Console(stderr=True).print(f"next: attnshift attack … --preset {tuned.recipe}", markup=False, soft_wrap=True)


@app.command()
def compare(
    images: Annotated[Path, typer.Argument(help="Folder of images.")],
    labels: _Labels,
    out: Annotated[Path, typer.Option(help="Comparison folder; the same command continues, more recipes extend it.")],
    recipe: Annotated[
        list[str], typer.Option(help="Preset, or a recipe file; repeat for several, the first is the reference.")
    ] = [],  # noqa: B006
    strength: _Strengths = [0.5, 1.0, 2.0],  # noqa: B006
    at: _At = [0.9, 0.95],  # noqa: B006
    pipeline: _Pipeline = "lab",
    surrogate: _Surrogates = [],  # noqa: B006
    judge: _Judges = [],  # noqa: B006
    min_clean_accuracy: _MinCleanAccuracy = 0.25,
    size: _Size = 0,
    batch: Annotated[int, typer.Option(help="Images attacked together; part of each run's identity.")] = 0,
    limit: _Limit = 0,
    device: _Device = "cpu",
    threads: Annotated[int, typer.Option(help="CPU threads; part of each run's identity.")] = 0,
    masks: _Masks = None,
    target: _Target = None,
) -> None:
    """Compare recipes on one set of images, each at several strengths: success where naturalness is equal."""
    _check_share("--min-clean-accuracy", min_clean_accuracy)
    for each in at:
        _check_share("--at", each)
    from attnshift.runs.comparison import Settings, read_recipes
    from attnshift.runs.comparison import compare as run

    settings = Settings(
        images,
        labels,
        pipeline,
        tuple(surrogate),
        tuple(judge),
        read_recipes(recipe),
        tuple(strength),
        out,
        size,
        batch,
        limit,
        device,
        threads,
        masks,
        target,
        min_clean_accuracy,
    )
    # The table alone on standard output, so that it can go into a file.
    with _images_done(Console(stderr=True)) as done:
        compared = run(settings, lambda name, *image: done(*image, run=name))
    from attnshift.report.curve_page import markdown, write_comparison
    from attnshift.report.curves import measure

    comparison = measure(compared.runs, compared.judges, at)
    path = write_comparison(out, comparison)
    print(markdown(comparison))
    for remark in (*compared.remarks, f"wrote {path} and {path.with_suffix('.json')}"):
        print(f"attnshift: {remark}", file=sys.stderr)


@app.command()
def sweep(
    images: Annotated[Path, typer.Argument(help="Folder of images.")],
    labels: _Labels,
    out: Annotated[Path, typer.Option(help="Comparison folder; the same command continues, more strengths extend it.")],
    recipe: Annotated[str, typer.Option(help="Preset, or a recipe file.")] = "fast",
    strength: _Strengths = [0.5, 1.0, 2.0],  # noqa: B006
    at: _At = [0.9, 0.95],  # noqa: B006
    pipeline: _Pipeline = "lab",
    surrogate: _Surrogates = [],  # noqa: B006
    judge: _Judges = [],  # noqa: B006
    min_clean_accuracy: _MinCleanAccuracy = 0.25,
    size: _Size = 0,
    batch: Annotated[int, typer.Option(help="Images attacked together; part of each run's identity.")] = 0,
    limit: _Limit = 0,
    device: _Device = "cpu",
    threads: Annotated[int, typer.Option(help="CPU threads; part of each run's identity.")] = 0,
    masks: _Masks = None,
    target: _Target = None,
) -> None:
    """Success against naturalness of one recipe as its strength changes; `compare` can go on in the same folder."""
    compare(
        images,
        labels,
        out,
        [recipe],
        strength,
        at,
        pipeline,
        surrogate,
        judge,
        min_clean_accuracy,
        size,
        batch,
        limit,
        device,
        threads,
        masks,
        target,
    )


def _check_share(option: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise UserError(f"{option} is {value}; it must lie between 0 and 1")


def _print_summary(store: Store) -> None:
    from rich.table import Table
    from rich.text import Text

    from attnshift.report.figures import percent
    from attnshift.report.summary import summarise

    summary = summarise(store.table("results"), store.table("verdicts"), store.table("quality"))
    table = Table(title=Text(f"{summary.images} images{summary.aim}, 95 % intervals"), title_justify="left")
    for column in ("classifier", "role", "clean accuracy", "round trip", "reconstruction", "attack", "attributable"):
        table.add_column(column)
    for row in (*summary.classifiers, *([summary.judges] if summary.judges else [])):
        arms = [percent(row.success[arm]) for arm in ("round_trip", "reconstruction", "attack")]
        table.add_row(row.name, row.role, percent(row.accuracy), *arms, percent(row.attributable))
    console = Console(width=None if sys.stdout.isatty() else 150)
    console.print(table)
    for arm, metrics in summary.quality.items():
        values = ", ".join(f"{name} {estimate.value:.3f}" for name, estimate in metrics.items())
        console.print(f"{arm}: {values}", markup=False, highlight=False)
    console.print(f"seconds per image: {summary.seconds.value:.2f}", markup=False, highlight=False)


@app.command()
def report(run: Annotated[Path, typer.Argument(help="Run folder.")]) -> None:
    """Write RUN/report.html, one self-contained page."""
    from attnshift.report.page import write_report
    from attnshift.runs.store import Store

    print(write_report(Store.open(run)))


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Run folder.")] = Path("runs/demo"),
    images: Annotated[int, typer.Option(help="How many held-out lab images.")] = 24,
    preset: Annotated[str, typer.Option(help="Preset.")] = "fast",
) -> None:
    """Attack lab images, judge them with classifiers that were never attacked, and write the report."""
    from attnshift.attack.recipe import load_recipe
    from attnshift.lab.export import export_images
    from attnshift.report.page import write_report
    from attnshift.runs.evaluation import evaluate_run
    from attnshift.runs.local import Settings

    folder = out.with_name(f"{out.name}-images")
    print(f"rendering {images} images of the tabletop lab into {folder}")
    labels = export_images(folder, seed=0, split="test", count=images)
    print("attacking " + ", ".join(_LAB_SURROGATES))
    store = _attack(Settings(folder, labels, "lab", tuple(_LAB_SURROGATES), load_recipe(preset), out))
    evaluate_run(store, _LAB_JUDGES)
    _print_summary(store)
    print(f"\nopen {write_report(store).resolve()}")


@lab.command("render")
def lab_render(
    out: Annotated[Path, typer.Argument(help="Folder for the images, masks and labels.csv.")],
    count: Annotated[int, typer.Option(help="How many images.")] = 64,
    split: Annotated[str, typer.Option(help="train, tuning or test.")] = "test",
    seed: Annotated[int, typer.Option(help="World seed; the shipped networks were trained on 0.")] = 0,
) -> None:
    """Render images of the lab with captions, labels and object masks."""
    from attnshift.lab.export import export_images

    print(export_images(out, seed, split, count))


@lab.command("random-pipeline")
def lab_random_pipeline(
    out: Annotated[Path, typer.Argument(help="Folder for the pipeline.")],
    size: Annotated[int, typer.Option(help="Side of its images in pixels.")] = 224,
) -> None:
    """Write a pipeline in the shape of Stable Diffusion with random weights: shows that a set-up runs, not strength."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    from attnshift.lab.random_pipeline import random_pipeline

    for each in (diffusers_logging, transformers_logging):
        each.disable_progress_bar()
    random_pipeline(size=size, tokens=77).save_pretrained(out, safe_serialization=True)
    print(out)


@lab.command("train")
def lab_train(
    out: Annotated[Path, typer.Option(help="Where the trained networks go.")],
    work: Annotated[Path, typer.Option(help="Renders and checkpoints; the same command continues.")] = Path("lab-work"),
    seed: Annotated[int, typer.Option(help="Seed of the world and of the training.")] = 0,
    only: Annotated[
        list[str], typer.Option(help="Train only this: pipeline or a classifier; repeat for several.")
    ] = [],  # noqa: B006
    threads: Annotated[int, typer.Option(help="CPU threads and rendering processes.")] = 2,
) -> None:
    """Train the lab's pipeline and classifiers anew."""
    from attnshift.lab.train import train_lab

    train_lab(out, work, seed, only, threads, lambda line: print(line, flush=True))


@lab.command("check")
def lab_check(
    images: Annotated[int, typer.Option(help="Held-out renders for every figure.")] = 500,
    write: Annotated[bool, typer.Option("--write", help="Write the figures into the card beside the weights.")] = False,
) -> None:
    """Measure the shipped networks on held-out renders against what they must reach."""
    from attnshift.lab.check import check_lab

    if not check_lab(images, write, lambda line: print(line, flush=True)):
        raise typer.Exit(1)
