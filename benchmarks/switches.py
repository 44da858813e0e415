"""Measure each switch of the preset ``quick``: its gain in time, and its cost in success at equal
naturalness.

    python benchmarks/switches.py [--count 64] [--variants guided steps-3] [--strengths 0.35 1] [--at 0.95] [--quick]

Every variant attacks the same held-out lab images at each strength, batch by batch and in turn.
Classifiers that chose no number judge. Finished batches stay in --scratch, and the same command
continues; give another folder after a change of the code. A command with some of the variants fills
the scratch and records nothing. --quick tries everything out on 8 images with two iterations and
writes nothing.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy
import torch
from models import Model, build, in_bf16
from pieces import FAST, Iteration, Prepared
from timing import computing_time, machine, ratio_of_medians, take_turns
from torch import Tensor, nn

from attnshift.attack.method import Method
from attnshift.attack.prepare import PreparedBatch, Task, prepare_batch
from attnshift.attack.run import run_attack
from attnshift.classifiers import load_classifier
from attnshift.classifiers.classifier import Classifier
from attnshift.data.images import quantise
from attnshift.diffusion.attention import attention_sites
from attnshift.diffusion.inversion import invert
from attnshift.diffusion.noise_schedule import NoiseSchedule
from attnshift.diffusion.stable_diffusion import StableDiffusion
from attnshift.errors import UnavailableError
from attnshift.files import atomic_write
from attnshift.lab.render import render_scenes
from attnshift.lab.scenes import scene
from attnshift.metrics.curves import Curve, Reading, read_curves
from attnshift.metrics.metrics import ssim
from attnshift.metrics.statistics import Estimate
from attnshift.recipes.reading import load_recipe
from attnshift.recipes.schema import Recipe
from attnshift.recipes.strength import at_strength
from attnshift.report.summary import judge_gains
from attnshift.report.verdicts import indexed
from attnshift.results.rows import VerdictRow
from attnshift.sizes import size_of
from attnshift.types import Goals
from results import record

__all__ = ["SAME", "VARIANTS", "Same", "Variant", "attack_all", "figures", "lab_tasks", "same_numbers"]

SURROGATE = "lab:resnet"
JUDGES = ("lab:coatnet", "lab:nfnet", "lab:byobnet", "lab:robust")
VIEWS = "views-1"
ROUNDS, TOLERANCE, SETTLING = 9, 1e-3, 3


@dataclass(frozen=True)
class Variant:
    """``quick`` with one thing changed, compared with the variant ``against``.

    ``every`` = N shows the views of preset ``nearest`` in every N-th iteration; 0 shows none.
    """

    title: str
    settings: tuple[str, ...] = ()
    against: str = FAST
    bf16: bool = False
    every: int = 0

    def recipe(self, settings: Sequence[str] = ()) -> Recipe:
        recipe = load_recipe(FAST, [*self.settings, *settings])
        if not self.every:
            return recipe
        views = load_recipe("nearest").expectation.model_copy(update={"every": self.every})
        return recipe.model_copy(update={"expectation": views})


GUIDED = ("diffusion.guidance=2.5",)
# References come before the variants that are compared with them.
VARIANTS = {
    FAST: Variant("`quick` as it is"),
    "guided": Variant("guidance 2.5", GUIDED),
    "null-text": Variant(
        "guidance 2.5, null-text in place of the offset", (*GUIDED, "reconstruction.method=null_text")
    ),
    "no-early-finish": Variant("no early finish", ("finish.early=false",)),
    **{
        f"steps-{count}": Variant(f"{count} denoising steps", (f"diffusion.denoising_steps={count}",))
        for count in (5, 3, 2)
    },
    "gradient-2": Variant("gradient through the last 2 steps", ("diffusion.gradient_steps=2",)),
    "gradient-1": Variant("gradient through the last step", ("diffusion.gradient_steps=1",)),
    "bf16": Variant("bf16 weights, fp32 losses", bf16=True),
    VIEWS: Variant("4 views in every iteration", every=1),
    "views-2": Variant("4 views in every 2nd iteration", against=VIEWS, every=2),
    "views-4": Variant("4 views in every 4th iteration", against=VIEWS, every=4),
}


@dataclass(frozen=True)
class Same:
    """Another way to compute the numbers of ``quick``.

    ``work`` makes two things of the prepared images: a piece of work to time, and the prepared
    images whose gradient is compared.
    """

    title: str
    timed: str
    work: Callable[[Prepared], tuple[Iteration, Prepared]]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=64, help="images")
    everything = [*VARIANTS, *SAME]
    parser.add_argument("--variants", nargs="+", choices=everything, default=everything, help="fewer: nothing recorded")
    parser.add_argument("--strengths", nargs="+", type=float, default=[0.35, 1.0], help="factors on the learning rate")
    parser.add_argument("--at", nargs="+", type=float, default=[0.95], help="SSIM at which success is read")
    parser.add_argument("--surrogates", nargs="+", default=[SURROGATE], help="what is attacked")
    parser.add_argument("--scratch", type=Path, default=Path("runs/switches"), help="where finished batches are kept")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--quick", action="store_true", help="8 images, two iterations, one round, nothing is written")
    options = parser.parse_args(arguments)
    if 1 not in options.strengths:
        parser.error("--strengths must hold 1, at which seconds are counted")
    if known := set(options.surrogates) & set(JUDGES):
        parser.error(f"{', '.join(sorted(known))}: a judge cannot be attacked")
    model = build("lab", options.device)
    torch.set_num_threads(model.threads)
    count, rounds, settings = options.count, ROUNDS, ()
    if options.quick:
        count, rounds, settings = model.batch, 1, ("optimiser.iterations=2",)
    with TemporaryDirectory() as nowhere:
        scratch = Path(nowhere) if options.quick else options.scratch
        chosen = with_references(options.variants)
        found = attack_all(model, chosen, options.strengths, options.surrogates, count, scratch, settings)
    result = figures(found, options.at) if chosen else {}
    same = same_numbers(model, rounds, [name for name in SAME if name in options.variants])
    shown = {
        **result,
        "same": same,
        "images": count,
        "strengths": options.strengths,
        "surrogates": options.surrogates,
        "judges": JUDGES,
    }
    print(json.dumps(shown, indent=1))
    if not options.quick and set(options.variants) == set(everything):
        circumstances = machine(options.device) | {
            "rounds": rounds,
            "batch": model.batch,
            "images": count,
            "surrogates": " ".join(options.surrogates),
            "strengths": " ".join(f"{each:g}" for each in options.strengths),
        }
        record(options.device, model.name, {"switches": shown}, "switches", circumstances)


def with_references(names: Iterable[str]) -> list[str]:
    """Return the variants among ``names`` and their references, in the order of ``VARIANTS``."""
    wanted = {name for name in names if name in VARIANTS}
    if wanted:
        wanted |= {FAST} | {VARIANTS[name].against for name in wanted}
    return [name for name in VARIANTS if name in wanted]


def lab_tasks(start: int, stop: int, side: int) -> list[Task]:
    """Return 8-bit lab images of the split that nothing was trained, chosen or tuned on."""
    scenes = [scene(0, "test", index) for index in range(start, stop)]
    images = quantise(render_scenes(scenes, side).images)
    drawn = zip(range(start, stop), images, scenes, strict=True)
    return [Task(f"lab test {index}", image, each.label, each.class_name) for index, image, each in drawn]


Found = Mapping[str, Mapping[float, Sequence[Mapping[str, Any]]]]
"""Results by variant, strength and batch."""


def attack_all(
    model: Model,
    names: Sequence[str],
    strengths: Sequence[float],
    surrogates: Sequence[str],
    count: int,
    scratch: Path,
    settings: Sequence[str] = (),
) -> Found:
    """Attack ``count`` images with each variant at each strength; batches in ``scratch`` are not
    done again.

    The seconds of a batch are kept with those of its reference in the same call. If a batch is
    missing, its reference is therefore timed again.
    """
    models = {False: model, True: in_bf16(model)} if any(VARIANTS[name].bf16 for name in names) else {False: model}
    attacking, judges = ([_loaded(name, model) for name in each] for each in (surrogates, JUDGES))
    found: dict[str, dict[float, list[Any]]] = {name: {each: [] for each in strengths} for name in names}
    scratch.mkdir(parents=True, exist_ok=True)
    warm = False
    for number, start in enumerate(range(0, count, model.batch)):
        tasks = lab_tasks(start, min(start + model.batch, count), model.side)
        entries = {}
        for name in names:
            for strength in strengths:
                recipe = at_strength(VARIANTS[name].recipe(settings), strength)
                assert isinstance(recipe, Recipe)
                entries[name, strength] = recipe, scratch / f"{name}_{strength:g}_{number}.json"
        kept = {key: _kept(path, recipe, surrogates, tasks) for key, (recipe, path) in entries.items()}
        references = {(VARIANTS[name].against, strength) for (name, strength), each in kept.items() if each is None}
        seconds: dict[tuple[str, float], float] = {}
        for key, (recipe, path) in entries.items():
            name, strength = key
            if kept[key] is None or key in references:
                chosen = models[VARIANTS[name].bf16]
                if not warm:
                    attacked(chosen, attacking, judges, recipe, tasks)
                    warm = True
                rows, seconds[key] = attacked(chosen, attacking, judges, recipe, tasks)
                print(f"batch {number + 1}: {name} at {strength:g} {seconds[key]:.1f} s", file=sys.stderr)
                if kept[key] is None:
                    kept[key] = {
                        "recipe": recipe.model_dump(mode="json"),
                        "surrogates": list(surrogates),
                        "seconds": seconds[key],
                        "reference": seconds[VARIANTS[name].against, strength],
                        "rows": rows,
                    }
                    atomic_write(path, json.dumps(kept[key], indent=1).encode())
            found[name][strength].append(kept[key])
    return found


def _loaded(name: str, model: Model) -> Classifier:
    return load_classifier(name).to(model.device)


def _kept(path: Path, recipe: Recipe, surrogates: Sequence[str], tasks: Sequence[Task]) -> dict[str, Any] | None:
    """Return the result of an earlier call on these images with the same recipe and surrogates."""
    if not path.exists():
        return None
    stored = json.loads(path.read_text())
    made = stored["recipe"], stored["surrogates"], [row["id"] for row in stored["rows"]["quality"]]
    wanted = recipe.model_dump(mode="json"), list(surrogates), [task.id for task in tasks]
    return stored if made == wanted else None


def attacked(
    model: Model,
    surrogates: Sequence[Classifier],
    judges: Sequence[Classifier],
    recipe: Recipe,
    tasks: Sequence[Task],
) -> tuple[dict[str, list[dict[str, Any]]], float]:
    """Attack ``tasks``; return rows as in a run's tables, and the attack's seconds.

    Rows are those of the attack and of its control arm.
    """
    begun = computing_time()
    batch = prepare_batch(Method.of(recipe), model.backbone, surrogates, tasks)
    images = run_attack(batch).images
    seconds = computing_time() - begun
    # Controls are rounded to 8 bits too, as in a saved file.
    arms = {"clean": batch.images, "reconstruction": quantise(batch.observe.clean.images), "attack": images}
    return _seen(judges, arms, tasks), seconds


@torch.no_grad()
def _seen(
    judges: Sequence[Classifier], arms: Mapping[str, Tensor], tasks: Sequence[Task]
) -> dict[str, list[dict[str, Any]]]:
    goals = Goals.of([task.label for task in tasks], [task.target for task in tasks], arms["clean"].device)
    verdicts = []
    for judge in judges:
        for arm, images in arms.items():
            predicted = judge(images).argmax(1)
            told = zip(tasks, (predicted == goals.labels).tolist(), goals.achieved(predicted).tolist(), strict=True)
            verdicts += [
                {"classifier": judge.name, "arm": arm, "id": task.id, "correct": correct, "success": success}
                for task, correct, success in told
            ]
    similar = ssim(arms["clean"], arms["attack"]).tolist()
    quality = [{"id": task.id, "ssim": value} for task, value in zip(tasks, similar, strict=True)]
    return {"verdicts": verdicts, "quality": quality}


def figures(found: Found, at: Sequence[float]) -> dict[str, Any]:
    """Return time, success and gap of every variant, against its reference over the same images."""
    curves = {name: _curve(line) for name, line in found.items()}
    rows = []
    for name, line in found.items():
        variant = VARIANTS[name]
        readings = [read_curves([curves[variant.against], curves[name]], each)[1] for each in at]
        rows.append(
            {
                "switch": variant.title,
                "against": VARIANTS[variant.against].title,
                "times_as_fast": statistics.median(batch["reference"] / batch["seconds"] for batch in line[1]),
                "readings": {f"{each.at:g}": _read(each) for each in readings},
                "points": {f"{strength:g}": _point(batches) for strength, batches in line.items()},
            }
        )
    return {"variants": rows, "at": list(at)}


def _curve(line: Mapping[float, Sequence[Mapping[str, Any]]]) -> Curve:
    naturalness, success = zip(*(_judged(batches) for batches in line.values()), strict=True)
    return Curve(numpy.array(naturalness), numpy.array(success))


def _judged(batches: Sequence[Mapping[str, Any]]) -> tuple[list[float], list[float]]:
    """Return SSIM and attributable success of each image."""
    quality = [row for batch in batches for row in batch["rows"]["quality"]]
    # Which class a judge sees instead is not kept.
    unknown = {"role": "judge", "predicted": -1, "predicted_name": ""}
    unknown |= dict.fromkeys(("true_probability", "predicted_probability"), math.nan)
    verdicts = indexed([VerdictRow(**row, **unknown) for batch in batches for row in batch["rows"]["verdicts"]])
    return [row["ssim"] for row in quality], judge_gains(JUDGES, [row["id"] for row in quality], verdicts)


def _point(batches: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    naturalness, success = _judged(batches)
    known = [each for each in success if not math.isnan(each)]
    return {
        "ssim": statistics.fmean(naturalness),
        "success": statistics.fmean(known),
        "seconds": statistics.median(batch["seconds"] for batch in batches),
    }


def _read(reading: Reading) -> dict[str, Any]:
    return {"success": _told(reading.success), "gap": _told(reading.gap), "reason": reading.reason}


def _told(estimate: Estimate | None) -> list[float | None] | None:
    """Return value and interval, with None for nan, which JSON does not have."""
    if estimate is None:
        return None
    return [None if math.isnan(each) else each for each in (estimate.value, estimate.low, estimate.high)]


def same_numbers(model: Model, rounds: int, names: Sequence[str]) -> list[dict[str, Any]]:
    """Time other ways to compute the numbers of ``quick`` in turn with it.

    The gradients are compared first. A row says how many times as fast a way is, or why this
    machine cannot run it.
    """
    plain = Prepared.of(model, FAST, batch=model.batch)
    expected = plain.ours().gradient
    work: dict[str, dict[str, Iteration]] = {
        "iteration": {FAST: plain.ours},
        "preparation": {FAST: lambda: _prepared_again(plain)},
    }
    rows: dict[str, dict[str, Any]] = {name: {"switch": SAME[name].title, "timed": SAME[name].timed} for name in names}
    for name in names:
        try:
            piece, case = SAME[name].work(plain)
            found = case.ours().gradient
        except UnavailableError as reason:
            rows[name] |= {"times_as_fast": None, "reason": str(reason)}
            continue
        error = float((found - expected).norm() / expected.norm())
        assert error <= TOLERANCE, f"{name}: the gradients differ by {error}"
        rows[name]["difference"] = error
        work[SAME[name].timed][name] = piece
    for pieces in (each for each in work.values() if len(each) > 1):
        seconds = take_turns(pieces, rounds)
        for name in (each for each in pieces if each != FAST):
            rows[name]["times_as_fast"] = ratio_of_medians(seconds, FAST, name)
    return list(rows.values())


@torch.no_grad()
def all_levels(case: Prepared) -> tuple[Iteration, Prepared]:
    """Invert up to the highest noise, as DiffAttack does: needed levels first, then the others."""
    backbone, batch = case.model.backbone, case.batch
    diffusion, needed = batch.method.recipe.diffusion, len(batch.render.trajectory.noise_schedule)
    whole = backbone.noise_schedule(diffusion.schedule_steps, diffusion.schedule_steps - 1)
    others = NoiseSchedule(whole.timesteps[:-needed], whole.levels[:-needed], whole.above)
    empty = backbone.embed([""] * len(case.tasks))

    def inverted(noise_schedule: NoiseSchedule, latents: Tensor) -> tuple[Tensor, ...]:
        return invert(backbone, noise_schedule, latents, empty, diffusion.pairing, diffusion.inversion_rounds)

    start = inverted(whole, backbone.encode(batch.images))[-needed - 1]
    changed = replace(case, latents=start + case.latents - batch.render.trajectory.start)
    return lambda: inverted(others, _prepared_again(case).render.trajectory.start), changed


def _prepared_again(case: Prepared) -> PreparedBatch:
    return prepare_batch(case.batch.method, case.model.backbone, case.classifiers, case.tasks)


class Kept(nn.Module):
    """A projection that keeps its last result and computes only for new states."""

    def __init__(self, projection: nn.Module):
        super().__init__()
        self.projection = projection
        self.last: tuple[Tensor, Tensor] | None = None

    def forward(self, states: Tensor) -> Tensor:
        if self.last is None or not torch.equal(self.last[0], states):
            self.last = states, self.projection(states)
        return self.last[1]


def projected_once(case: Prepared) -> tuple[Iteration, Prepared]:
    """Project text keys and values once; without guidance the states never change."""
    backbone = _copied(case.model.backbone)
    for site in attention_sites(backbone.unet, size_of(case.latents)):
        if site.kind == "cross":
            attention = backbone.unet.get_submodule(site.layer)
            for name in ("to_k", "to_v"):
                setattr(attention, name, Kept(attention.get_submodule(name)))
    return _with(case, backbone)


def compiled(case: Prepared) -> tuple[Iteration, Prepared]:
    """Compile denoiser and decoder; unavailable if they still recompile after a few iterations."""
    backbone = _copied(case.model.backbone)
    for network in (backbone.unet, backbone.vae.decoder):
        setattr(network, "forward", torch.compile(network.forward))  # noqa: B010
    # A number would make a graph of every timestep, and a symbolic one is compiled for minutes.
    backbone.unet.register_forward_pre_hook(lambda _, given: (given[0], torch.tensor(given[1]), *given[2:]))
    work, changed = _with(case, backbone)
    try:
        for _ in range(SETTLING):
            work()
        # A graph that is not compiled by now would be compiled anew in every iteration.
        with torch.compiler.set_stance("fail_on_recompile"):
            work()
    except RuntimeError as error:
        raise UnavailableError(str(error).strip().splitlines()[0]) from error
    return work, changed


def _copied(backbone: StableDiffusion) -> StableDiffusion:
    """Return ``backbone`` with networks of its own, which may be changed."""
    own = copy.copy(backbone)
    own.unet, own.vae = copy.deepcopy(backbone.unet), copy.deepcopy(backbone.vae)
    return own


def _with(case: Prepared, backbone: StableDiffusion) -> tuple[Iteration, Prepared]:
    """Return the same iteration with another backbone."""
    render = replace(case.batch.render, backbone=backbone, decode=backbone.decode)
    changed = replace(case, batch=replace(case.batch, render=render))
    return changed.ours, changed


SAME = {
    "all-levels": Same("inversion of all levels", "preparation", all_levels),
    "projected-once": Same("text keys and values projected once", "iteration", projected_once),
    "compiled": Same("`torch.compile` of denoiser and decoder", "iteration", compiled),
}

if __name__ == "__main__":
    main()
