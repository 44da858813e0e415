"""The attack as one call: targets, on lab images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from attnshift import LatentAttack
from attnshift.data.images import quantise
from attnshift.errors import LabelError, RecipeError
from attnshift.recipes.reading import load_recipe
from lab_scenes import rendered

LABELS = [3, 7]


@pytest.fixture(scope="module")
def images() -> Tensor:
    return quantise(rendered(LABELS).images)


def attack(*settings: str) -> LatentAttack:
    return LatentAttack("lab", ["lab:resnet"], load_recipe("quick", settings))


@pytest.mark.heavy
def test_images_are_turned_into_their_targets(images: Tensor) -> None:
    """Each into its own, with margins that say so."""
    targeted = attack()
    result = targeted(images, LABELS, targets=torch.tensor([0, 5]))
    assert result.fooled.tolist() == [True, True]
    (surrogate,) = targeted.classifiers
    with torch.no_grad():
        logits = surrogate(result.images)
    assert logits.argmax(1).tolist() == [0, 5]
    highest, second = logits.topk(2, 1).values.T
    torch.testing.assert_close(result.margins[0], second - highest, rtol=1e-4, atol=1e-4)


@pytest.mark.heavy
def test_a_third_class_fools_nobody_in_a_targeted_attack(images: Tensor) -> None:
    """A wrong label makes what the surrogate sees, and goes on seeing after one small step, the third class.

    Such an image does not count, so it is counted here as one that the surrogate got right.
    """
    short = attack("optimiser.iterations=1", "optimiser.learning_rate=0.001", "finish.keep=last")
    targeted, untargeted = short(images[:1], [4], targets=[5]), short(images[:1], [4])
    for result, fooled in ((targeted, False), (untargeted, True)):
        assert short.classifiers[0](result.images).argmax(1).tolist() == [3]
        assert result.known.tolist() == [[False]]
        assert result.fooled.tolist() == [False]
        assert replace(result, known=torch.tensor([[True]])).fooled.tolist() == [fooled]


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ([5], "2 images and 1 target; give every image one"),
        ([5, 10], r"image 1: target 10 is out of range; the surrogates have classes 0 to 9"),
        ([-1, 5], r"image 0: target -1 is out of range"),
        ([5, 7], "image 1: target 7 is the image's true class"),
    ],
)
def test_targets_that_cannot_be(images: Tensor, targets: Sequence[int], message: str) -> None:
    with pytest.raises(LabelError, match=message):
        attack()(images, LABELS, targets=targets)


@pytest.mark.heavy
def test_interference_can_be_the_target_only_where_there_is_one(images: Tensor) -> None:
    steered = attack("terms.contrast.weight=1.0", "interference.choose=target", "optimiser.iterations=1")
    with pytest.raises(RecipeError, match="the attack has none"):
        steered(images, LABELS)
    assert steered(images, LABELS, targets=[0, 5]).margins.shape == (1, 2)
