"""Published attacks through a diffusion model as runs: arms, effort, budget, and continuation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor

from attnshift import PixelAttack
from attnshift.attack.edits import edit
from attnshift.attack.effort import Effort
from attnshift.attack.interface import checked_tasks
from attnshift.baselines.advdiff import AdvDiff
from attnshift.baselines.apa import APA
from attnshift.baselines.diffusion import DiffusionBaseline
from attnshift.baselines.edits import Edit, EditInput
from attnshift.batching import batch_record, constant, spread
from attnshift.classifiers import load_classifier
from attnshift.data.images import decode_image, quantise
from attnshift.errors import ModelError, RecipeError
from attnshift.execution.coordinate import RunOptions, attack_folder
from attnshift.execution.work.pixels import PixelWork
from attnshift.metrics.budget import Budget
from attnshift.recipes.reading import load_recipe
from attnshift.recipes.schema import BaselineRecipe
from attnshift.results.arms import ARMS
from attnshift.testing.models import pictures
from mirror import Mirror, keys, linear_surrogates
from small_runs import SURROGATE, Told, pngs, run_small, small_settings
from tables import records
from tiers import fast_first

if TYPE_CHECKING:
    from attnshift.diffusion.stable_diffusion import StableDiffusion

SHORT = ("baseline.steps=1", "baseline.depth=0")
ACA_SHORT = ("baseline.steps=2", "baseline.schedule_steps=3")
APA_SHORT = ("baseline.steps=1", "baseline.schedule_steps=3", "baseline.guided_steps=2", "baseline.memory_steps=0")
NATADIFF_SHORT = (
    "baseline.inverted_steps=2",
    "baseline.views=2",
    "baseline.passes=2",
    "baseline.travelled=[0.5, 1.0]",
    "baseline.guided=[0.0, 1.0]",
)


def baseline(name: str, *changes: str) -> BaselineRecipe:
    recipe = load_recipe(name, changes)
    assert isinstance(recipe, BaselineRecipe)
    return recipe


def test_a_run_has_all_control_arms_and_continues_where_it_stopped(
    photos: Path, pipeline_folder: Path, tmp_path: Path
) -> None:
    settings = small_settings(photos, pipeline_folder, tmp_path / "whole")
    settings = replace(settings, recipe=baseline("diffpgd", *SHORT))
    whole = run_small(settings)
    rows = records(whole, "results")
    assert len(rows) == 3
    assert len(pngs(whole.folder)) == 3 * len(ARMS)
    assert {row["denoiser_evaluations"] for row in rows} == {2.0}
    assert whole.spec().arms == tuple(ARMS)
    assert whole.spec().weights["pipeline"]

    stopped = replace(settings, out=tmp_path / "stopped")
    with pytest.raises(KeyboardInterrupt):
        attack_folder(stopped, Told(stop=1).telemetry(), RunOptions())
    before = pngs(stopped.out)
    assert 0 < len(before) < 3 * len(ARMS)
    told = Told()
    again = attack_folder(stopped, told.telemetry(), RunOptions())
    assert 0 < len(told.done) < 3
    assert pngs(again.folder) == pngs(whole.folder)


@pytest.mark.parametrize(
    ("name", "changes", "evaluations", "gradients"),
    fast_first(
        [
            # (N + 1)(K + 1), twice where another noise needs another clean image.
            ("diffpgd", ("baseline.steps=2", "baseline.depth=1", "baseline.noise=fresh"), 2 * 3 * 2, 2),
            # 2 T (N + 1).
            ("aca", ACA_SHORT, 2 * 3 * 3, 2),
            # T (N + 1), and twice T_a gradients in an iteration, T_a for the result.
            ("apa", APA_SHORT, 3 * 2, 2 + 2 + 2),
            # 2 S a round, and a gradient in all steps but the last.
            ("advdiff", ("baseline.rounds=1", "baseline.inverted_steps=3"), 2 * 3, 2),
            ("diffpgd", ("baseline.steps=2", "baseline.depth=1"), 3 * 2, 2),
            ("diffpgd_official", ("baseline.steps=2", "baseline.depth=1"), 3 * 2, 2),
            # T N, each once more in backward, where steps are walked again; 2 T_a N gradients.
            ("apa_official", (*APA_SHORT, "baseline.gradient=exact"), 3 * 2, 2 + 2),
            # 3 (S + (R - 1) travelled); as many gradients for each visit as views.
            ("natadiff", NATADIFF_SHORT, 3 * (2 + 1), 2 * (2 + 1)),
        ],
        4,
    ),
)
def test_effort_is_that_of_the_formulas(
    backbone: StableDiffusion, name: str, changes: tuple[str, ...], evaluations: int, gradients: int
) -> None:
    classifier = replace(load_classifier(SURROGATE), class_names=tuple(f"thing {label}" for label in range(1000)))
    tasks = checked_tasks(classifier, pictures(2), classifier(pictures(2)).argmax(1), ["mug", "ball"])
    work = PixelWork.of(baseline(name, *changes))
    result = work.carry_out(backbone, [classifier], tasks)
    assert list(result.arms) == list(ARMS)
    for row in result.rows:
        assert row["surrogate_gradients"] == gradients
        assert row["denoiser_evaluations"] == evaluations


@dataclass(frozen=True)
class Drifting(DiffusionBaseline):
    """Adds ``depth`` times a drift of each image's own, and the strength."""

    depth: int = 2

    @property
    def milder(self) -> Drifting | None:
        return Drifting(depth=self.depth - 1) if self.depth else None

    def prepare(self, given: EditInput) -> Edit:
        return _Drifted(given, self.depth)


@batch_record
class _Drifted(Edit):
    depth: int = constant()

    def floor(self) -> Tensor:
        return self(torch.zeros(len(self.given.images)))

    def __call__(self, strengths: Tensor) -> Tensor:
        # The image's own drift is the length of its prompt, in levels.
        drift = torch.tensor([float(len(each)) for each in self.given.prompts]) / 255
        images = self.given.images
        return images + spread(drift, images) * (self.depth + 1) + 0.1 * spread(strengths, images)


def test_images_whose_control_arm_breaks_the_budget_get_a_milder_attack_or_count_as_they_are() -> None:
    images = torch.full((3, 3, 8, 8), 51 / 255)
    given = EditInput(Mirror(), linear_surrogates(torch.zeros(2, 3, 8, 8), 3), images, ("a", "bbbb", "c" * 30), keys(3))  # type: ignore[arg-type]
    found = edit(Drifting(), given, Budget.of("linf", 10.5 / 255), Effort())
    moved, drifted = ((each - images).amax((1, 2, 3)) * 255 for each in (found.attacked, found.floor))
    assert drifted.round().tolist() == [3, 8, 30], "at depth 2, 1 and 0"
    assert moved[:2].round().tolist() == [10, 10], "what the control arm leaves of the budget is spent"
    assert torch.equal(found.attacked[2], images[2]), "no attack on it keeps the budget"
    free = edit(Drifting(), given, None, Effort())
    assert torch.equal(free.floor, quantise(images + torch.tensor([3, 12, 90]).view(-1, 1, 1, 1) / 255))


def test_budgets_hold_for_the_files(backbone: StableDiffusion) -> None:
    recipe = baseline("diffpgd", *SHORT, "budget={metric='l2', limit=2.0}")
    classifier, images = load_classifier(SURROGATE), pictures(2)
    labels = classifier(images).argmax(1)
    attack = PixelAttack([classifier], recipe, pipeline=backbone)
    found = attack(images, labels)
    spent = Budget.of("l2", 2.0).spent(images, found.images)
    assert (spent <= 1).all()
    assert (spent > 0.8).all()
    alone = PixelAttack([classifier], recipe, batch=1, pipeline=backbone)(images, labels)
    assert float((alone.images - found.images).abs().mean()) < 0.1 / 255


def test_from_python_a_pipeline_is_given_where_it_is_needed(backbone: StableDiffusion) -> None:
    with pytest.raises(RecipeError) as caught:
        PixelAttack([SURROGATE], "aca")
    assert str(caught.value) == "recipe 'aca' edits through a diffusion model; give `pipeline`, such as 'lab'"
    with pytest.raises(RecipeError, match="'pgd' attacks pixels and uses no pipeline; leave `pipeline` out"):
        PixelAttack([SURROGATE], "pgd", pipeline="lab")
    attack = PixelAttack([SURROGATE], baseline("aca", *ACA_SHORT), pipeline=backbone)
    with pytest.raises(ModelError, match="would be cut"):
        attack(pictures(1), [0], ["word " * 200])
    with pytest.raises(ModelError, match="images of 60 px do not fit"):
        attack(pictures(1, 60), [0], ["mug"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("baseline.template=a mug", "template: "),
        ("baseline.reconstruction=none", "reconstruction: "),
        ("baseline.depth=1", "depth: "),
        ("baseline.guidance=-1", "guidance: "),
    ],
)
def test_options_that_cannot_be_meant_are_refused(change: str, message: str) -> None:
    with pytest.raises(RecipeError, match=f"baseline 'aca': {message}"):
        load_recipe("aca", [change])


def test_strength_scales_the_radius(backbone: StableDiffusion) -> None:
    from attnshift.recipes.strength import at_strength

    half: Any = at_strength(baseline("aca", "baseline.step_size=0.05"), 0.5)
    assert half.baseline.options["epsilon"] == 0.05
    assert half.baseline.options["step_size"] == 0.025


def test_a_run_from_noise_saves_the_twins_as_its_clean_images(
    photos: Path, pipeline_folder: Path, tmp_path: Path
) -> None:
    short = ("baseline.schedule_steps=2", "baseline.rounds=1", "baseline.guided_share=1.0")
    settings = small_settings(photos, pipeline_folder, tmp_path / "run")
    run = run_small(replace(settings, recipe=baseline("advdiff_noise", *short)))
    assert run.spec().arms == ("clean", "noise", "attack")
    assert len(pngs(run.folder)) == 3 * 3
    for row in records(run, "results"):
        read = decode_image((photos / "images" / row["file"]).read_bytes(), run.spec().size, row["file"])
        made = decode_image(run.image_path(row["id"], "clean").read_bytes(), run.spec().size, "clean")
        assert (read - made).abs().mean() > 0.05


@pytest.mark.parametrize(
    ("attack", "options"),
    [
        (
            AdvDiff(inverted_steps=201),
            "baseline.schedule_steps and inverted_steps: of a schedule of 200 steps",
        ),
        (APA(inverted_steps=51), "baseline.schedule_steps and inverted_steps: of a schedule of 50 steps"),
    ],
)
def test_steps_that_a_schedule_has_not_are_told_by_their_own_names(
    backbone: StableDiffusion, attack: DiffusionBaseline, options: str
) -> None:
    given = EditInput(backbone, linear_surrogates(torch.zeros(2, 3, 64, 64), 1), pictures(1), ("mug",), keys(1))
    with pytest.raises(ModelError, match=options):
        attack.check(given)
