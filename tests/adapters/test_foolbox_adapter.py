"""The attack as one of foolbox: its own images in any bounds, both criteria, the radii, the errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import eagerpy
import numpy
import pytest
import torch
from torch import Tensor, nn

from attnshift.errors import LabelError, ModelError, RecipeError, UserError
from later import later
from tiers import fast_first

if TYPE_CHECKING:
    from adapters.conftest import Own
    from attnshift.adapters import FoolboxAdapter
    from attnshift.classifiers.classifier import Classifier
    from attnshift.diffusion.stable_diffusion import StableDiffusion
    from attnshift.recipes.schema import Recipe

adapters = later("attnshift.adapters")
foolbox = later("foolbox")
criteria = later("foolbox.criteria")

Attack = Callable[..., "FoolboxAdapter"]


@pytest.fixture
def attack(backbone: StableDiffusion, recipe: Recipe, lab: Classifier) -> Attack:
    def build(**options: Any) -> FoolboxAdapter:
        return adapters.FoolboxAdapter(pipeline=backbone, recipe=recipe, class_names=lab.class_names, **options)

    return build


@pytest.fixture
def model(network: nn.Module, lab: Classifier) -> foolbox.PyTorchModel:
    preprocessing = {"mean": list(lab.preprocessing.mean), "std": list(lab.preprocessing.std), "axis": -3}
    tensors = {key: torch.tensor(value) if isinstance(value, list) else value for key, value in preprocessing.items()}
    return foolbox.PyTorchModel(network.eval(), bounds=(0, 1), preprocessing=tensors, device="cpu")


def test_images_are_the_attacks_own(
    attack: Attack, model: foolbox.PyTorchModel, images: Tensor, labels: Tensor, own: Own
) -> None:
    built = attack()
    raw, clipped, success = built(model, images, criteria.Misclassification(labels), epsilons=None)
    expected = own(images, labels)
    assert isinstance(built, foolbox.attacks.base.MinimizationAttack)
    assert torch.equal(raw, expected)
    assert torch.equal(clipped, expected)
    assert success.tolist() == (model(expected).argmax(1) != labels).tolist()
    assert success.any()
    assert torch.equal(built(model, images, labels, epsilons=None)[0], expected)
    assert "recipe=quick" in repr(built)


def test_weights_keep_their_gradients(
    attack: Attack, model: foolbox.PyTorchModel, network: nn.Module, images: Tensor, labels: Tensor
) -> None:
    attack()(model, images[:1], labels[:1], epsilons=None)
    assert all(each.requires_grad and each.grad is None for each in network.parameters())


@pytest.mark.heavy
def test_targets_are_reached_from_what_the_model_sees(
    attack: Attack, model: foolbox.PyTorchModel, images: Tensor, labels: Tensor, own: Own
) -> None:
    targets = torch.tensor([8, 5])
    raw, _, success = attack()(model, images, criteria.TargetedMisclassification(targets), epsilons=None)
    assert torch.equal(raw, own(images, labels, targets))
    assert success.tolist() == (model(raw).argmax(1) == targets).tolist()
    raw, _, success = attack()(model, images, criteria.TargetedMisclassification(torch.tensor([3, 5])), epsilons=None)
    assert torch.equal(raw[0], images[0])
    assert bool(success[0])


@pytest.mark.parametrize("bounds", fast_first([[-1, 1], [0, 255]]))
def test_bounds_are_the_models(
    attack: Attack, model: foolbox.PyTorchModel, images: Tensor, labels: Tensor, own: Own, bounds: list[int]
) -> None:
    low, high = bounds
    moved = model.transform_bounds((low, high))
    shown = (low + (high - low) * images).clamp(low, high)
    raw, _, _ = attack()(moved, shown, labels, epsilons=None)
    assert raw.min() >= low
    assert raw.max() <= high
    close = ((raw - low) / (high - low) - own(images, labels)).abs() < 1e-5
    assert close.float().mean() > 0.98


def test_radii_cut_the_finished_image_down(
    attack: Attack, model: foolbox.PyTorchModel, images: Tensor, labels: Tensor, own: Own
) -> None:
    built = attack(distance=foolbox.distances.linf)
    raw, clipped, success = built(model, images, labels, epsilons=[None, 1.0, 2 / 255])
    expected = own(images, labels)
    assert all(torch.equal(each, expected) for each in raw)
    assert torch.equal(clipped[0], expected)
    assert (clipped[2] - images).abs().max() <= 2 / 255 + 1e-6
    assert success.shape == (3, 2)
    with pytest.raises(ValueError, match="please pass `distance`"):
        attack()(model, images, labels, epsilons=0.1)


def test_foolbox_tensors_come_back_as_such(
    attack: Attack, model: foolbox.PyTorchModel, images: Tensor, labels: Tensor, own: Own
) -> None:
    found = attack().run(model, eagerpy.astensor(images), criteria.Misclassification(labels))
    assert torch.equal(found.raw, own(images, labels))


def test_wrong_input_is_named(attack: Attack, model: foolbox.PyTorchModel, images: Tensor, labels: Tensor) -> None:
    both = criteria.Misclassification(labels) & criteria.TargetedMisclassification(labels)
    with pytest.raises(
        RecipeError, match="criterion _And is unknown to the attack; give Misclassification or Targeted"
    ):
        attack().run(model, images, both)
    with pytest.raises(TypeError, match="unexpected keyword argument 'steps'"):
        attack()(model, images, labels, epsilons=None, steps=3)
    with pytest.raises(LabelError, match="2 images and 1 label; give every image one"):
        attack().run(model, images, criteria.Misclassification(labels[:1]))
    with pytest.raises(ModelError, match=r"images are a ndarray; the attack needs foolbox\.PyTorchModel and tensors"):
        attack().run(model, numpy.zeros((1, 3, 64, 64), "float32"), criteria.Misclassification(labels))


def test_a_missing_library_is_named(without: Callable[[str, str], None]) -> None:
    with pytest.raises(UserError, match="needs foolbox, which is not installed: pip install foolbox"):
        without("foolbox", "foolbox_adapter")
