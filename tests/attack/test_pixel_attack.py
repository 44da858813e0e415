"""An attack on pixels as one call: the images of a run, and one line for what does not fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor

from attnshift import LatentAttack, PixelAttack, load_recipe
from attnshift.attack.interface import checked_tasks
from attnshift.data.images import quantise
from attnshift.errors import ImageError, LabelError, RecipeError
from attnshift.execution.work.pixels import PixelWork
from attnshift.metrics.budget import Budget
from attnshift.recipes.schema import BaselineRecipe
from lab_scenes import rendered

if TYPE_CHECKING:
    from attnshift.diffusion.stable_diffusion import StableDiffusion

LABELS = [3, 7]


@pytest.fixture(scope="module")
def images() -> Tensor:
    return quantise(rendered(LABELS).images)


@pytest.mark.parametrize("name", ["mifgsm", "pgd"])
def test_images_are_those_of_a_run(backbone: StableDiffusion, images: Tensor, name: str) -> None:
    attack = PixelAttack(["lab:resnet"], name)
    result = attack(images, LABELS)
    recipe = load_recipe(name)
    assert isinstance(recipe, BaselineRecipe)
    tasks = checked_tasks(attack.classifiers[0], images, LABELS)
    expected = PixelWork.of(recipe).carry_out(backbone, attack.classifiers, tasks)
    assert torch.equal(result.images, expected.arms["attack"])
    assert [row["surrogate_gradients"] for row in expected.rows] == [10, 10]
    assert result.margins.shape == (1, 2)
    assert result.iterations is None


def test_images_stay_within_the_radius_and_are_fooled(images: Tensor) -> None:
    result = PixelAttack(["lab:resnet"], load_recipe("mifgsm", ["baseline.epsilon=0.05"]))(images, LABELS)
    assert float((result.images - images).abs().max()) <= 0.05
    assert torch.equal(quantise(result.images), result.images)
    assert result.fooled.all()


def test_each_image_gets_the_largest_radius_that_keeps_a_budget(images: Tensor) -> None:
    recipe = load_recipe("mifgsm", ["budget={metric='ssim', limit=0.95}", "baseline.steps=2"])
    attacked = PixelAttack(["lab:resnet"], recipe)(images, LABELS).images
    spent = Budget.of("ssim", 0.95).spent(images, attacked)
    assert (spent <= 1).all()
    assert (spent > 0.9).all()
    radii = (attacked - images).abs().amax((1, 2, 3))
    assert float(radii[0]) != float(radii[1]), "both images have one radius, so this test shows nothing"


def test_a_baseline_that_optimises_a_budget_gets_it(images: Tensor) -> None:
    recipe = load_recipe("alma_budget", ["budget={metric='ssim', limit=0.95}", "baseline.steps=15"])
    result = PixelAttack(["lab:resnet"], recipe)(images, LABELS)
    spent = Budget.of("ssim", 0.95).spent(images, result.images)
    assert (spent <= 1).all()
    assert (spent > 0.3).all()
    assert result.fooled.all()


def test_images_are_turned_into_their_targets(images: Tensor) -> None:
    attack = PixelAttack(["lab:resnet"], batch=1)
    result = attack(images, LABELS, targets=[0, 5])
    (surrogate,) = attack.classifiers
    assert surrogate(result.images).argmax(1).tolist() == [0, 5]
    assert result.fooled.all()


def test_each_attack_names_the_other_for_a_recipe_of_the_other_kind() -> None:
    with pytest.raises(RecipeError, match=r"^recipe 'mifgsm' attacks pixels; use attnshift\.PixelAttack$"):
        LatentAttack("lab", ["lab:resnet"], "mifgsm")
    with pytest.raises(RecipeError, match=r"^recipe 'quick' attacks latents; use attnshift\.LatentAttack$"):
        PixelAttack(["lab:resnet"], "quick")


def test_input_that_does_not_fit_is_refused(images: Tensor) -> None:
    attack = PixelAttack(["lab:resnet"])
    with pytest.raises(ImageError, match="outside"):
        attack(images * 255, LABELS)
    with pytest.raises(LabelError, match="2 images and 1 label;"):
        attack(images, LABELS[:1])
    with pytest.raises(LabelError, match="2 images and 1 target;"):
        attack(images, LABELS, targets=[0])
