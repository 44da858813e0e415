"""TorchattacksAdapter: images, modes, normalisation, errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn

from attnshift.errors import ImageError, LabelError, ModelError, UserError
from attnshift.recipes.reading import load_recipe
from later import later

if TYPE_CHECKING:
    from adapters.conftest import Own
    from attnshift.adapters import TorchattacksAdapter
    from attnshift.classifiers.classifier import Classifier
    from attnshift.diffusion.stable_diffusion import StableDiffusion
    from attnshift.recipes.schema import Recipe

adapters = later("attnshift.adapters")
torchattacks = later("torchattacks")

Wrapped = Callable[[nn.Module], "TorchattacksAdapter"]


@pytest.fixture
def wrapped(backbone: StableDiffusion, recipe: Recipe, lab: Classifier) -> Wrapped:
    given = {"pipeline": backbone, "recipe": recipe, "class_names": lab.class_names}
    return lambda model: adapters.TorchattacksAdapter(model, **given)


def test_images_are_the_attacks_own(
    wrapped: Wrapped, whole: nn.Module, images: Tensor, labels: Tensor, own: Own
) -> None:
    attack = wrapped(whole.train())
    found = attack(images, labels)
    assert isinstance(attack, torchattacks.attack.Attack)
    assert torch.equal(found, own(images, labels))
    assert not torch.equal(found, images)
    assert whole.training
    assert all(each.requires_grad and each.grad is None for each in whole.parameters())


def test_normalised_images_stay_so_and_are_not_normalised_twice(
    wrapped: Wrapped, network: nn.Module, images: Tensor, labels: Tensor, own: Own, lab: Classifier
) -> None:
    attack = wrapped(network)
    attack.set_normalization_used(lab.preprocessing.mean, lab.preprocessing.std)
    with pytest.raises(LabelError):
        attack(attack.normalize(images), labels[:1])
    found = attack.inverse_normalize(attack(attack.normalize(images), labels))
    close = (found - own(images, labels)).abs() < 1e-5
    assert close.float().mean() > 0.98


def test_labels_can_be_targets(wrapped: Wrapped, whole: nn.Module, images: Tensor, labels: Tensor, own: Own) -> None:
    attack = wrapped(whole)
    attack.set_mode_targeted_by_label(quiet=True)
    targets = torch.tensor([8, 5])
    assert torch.equal(attack(images, targets), own(images, labels, targets))
    seen = attack(images, torch.tensor([3, 5]))
    assert torch.equal(seen[0], images[0])
    assert torch.equal(seen[1:], own(images[1:], labels[1:], targets[1:]))


@pytest.mark.heavy
def test_targets_can_come_from_a_function_of_true_labels(
    wrapped: Wrapped, whole: nn.Module, images: Tensor, labels: Tensor, own: Own
) -> None:
    attack = wrapped(whole)
    attack.set_mode_targeted_by_function(lambda _, given: (given + 1) % 10, quiet=True)
    assert torch.equal(attack(images, labels), own(images, labels, (labels + 1) % 10))
    attack.set_mode_targeted_least_likely(quiet=True)
    worst = whole(images).argmin(1)
    assert torch.equal(attack(images, labels), own(images, labels, worst))
    attack.set_mode_default()
    assert torch.equal(attack(images, labels), own(images, labels))


def test_it_joins_other_attacks(wrapped: Wrapped, whole: nn.Module, images: Tensor, labels: Tensor, own: Own) -> None:
    """One that does nothing comes first, so that all images are left to the second."""
    attacks = [torchattacks.VANILA(whole), wrapped(whole)]
    found = torchattacks.MultiAttack(attacks)(images, labels)
    expected = own(images, labels)
    fooled = whole(expected).argmax(1) != labels
    assert fooled.any()
    assert torch.equal(found[fooled], expected[fooled])


def test_it_shows_its_recipe(wrapped: Wrapped, whole: nn.Module) -> None:
    assert "attnshift(" in repr(wrapped(whole))
    assert "recipe=quick" in repr(wrapped(whole))


def test_wrong_input_is_named(wrapped: Wrapped, whole: nn.Module, images: Tensor, labels: Tensor) -> None:
    attack = wrapped(whole)
    with pytest.raises(ImageError, match=r"values outside \[0,1\], from .*; divide 8-bit values by 255"):
        attack(255 * images, labels)
    with pytest.raises(ImageError, match=r"images have shape \(3, 64, 64\), as a single image has"):
        attack(images[0], labels)
    with pytest.raises(LabelError, match="2 images and 1 label; give every image one"):
        attack(images, labels[:1])
    with pytest.raises(LabelError, match="image 0: label 10 is out of range"):
        attack(images, labels + 7)
    attack.set_model_training_mode(True)
    with pytest.raises(ModelError, match="undo set_model_training_mode"):
        attack(images, labels)
    attack.set_model_training_mode(False)
    attack.set_mode_targeted_by_label(quiet=True)
    with pytest.raises(LabelError, match="needs labels, which are the targets"):
        attack(images)
    with pytest.raises(LabelError, match="target 10 is out of range"):
        attack(images, torch.tensor([5, 10]))


def test_wrong_models_are_named(
    wrapped: Wrapped, whole: nn.Module, images: Tensor, labels: Tensor, backbone: StableDiffusion
) -> None:
    with pytest.raises(ModelError, match="the model gives probabilities"):
        wrapped(nn.Sequential(whole, nn.Softmax(1)))(images, labels)
    few = adapters.TorchattacksAdapter(whole, pipeline=backbone, class_names=["mug", "tree"])
    with pytest.raises(ModelError, match=r"the model gives \(2, 10\) for two images instead of logits \(2, 2\)"):
        few(images, labels)
    for names in ((), "mug"):
        with pytest.raises(ModelError, match="class_names must list the model's classes"):
            adapters.TorchattacksAdapter(whole, pipeline=backbone, class_names=names)
    with pytest.raises(UserError, match="unknown preset 'fats'; did you mean 'fast'"):
        adapters.TorchattacksAdapter(whole, pipeline=backbone, class_names=["mug", "tree"], recipe="fats")
    with pytest.raises(UserError, match="0 images cannot be attacked together"):
        adapters.TorchattacksAdapter(whole, pipeline=backbone, class_names=["mug", "tree"], batch=0)


def test_masks_that_need_the_network_itself_are_refused(
    whole: nn.Module, backbone: StableDiffusion, lab: Classifier, images: Tensor, labels: Tensor
) -> None:
    masked = load_recipe("quick", ["mask.source=gradcam", "mask.paste_back=true", "diffusion.denoising_steps=1"])
    attack = adapters.TorchattacksAdapter(whole, pipeline=backbone, recipe=masked, class_names=lab.class_names)
    with pytest.raises(ModelError, match="no Grad-CAM for classifier 'the model'"):
        attack(images[:1], labels[:1])


def test_a_missing_library_is_named(without: Callable[[str, str], None]) -> None:
    with pytest.raises(UserError, match="needs torchattacks, which is not installed: pip install torchattacks"):
        without("torchattacks", "torchattacks_adapter")
