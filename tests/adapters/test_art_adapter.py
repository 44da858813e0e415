"""ArtAdapter: images in any clip values, all forms of y, parameters, refusals."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy
import pytest
import torch
from torch import Tensor, nn

from attnshift import LatentAttack
from attnshift.classifiers.classifier import Classifier
from attnshift.errors import LabelError, ModelError, RecipeError, UserError
from attnshift.recipes.reading import load_recipe
from later import later
from tiers import fast_first

if TYPE_CHECKING:
    from art.estimators.classification import PyTorchClassifier

    from adapters.conftest import Own
    from attnshift.adapters import ArtAdapter
    from attnshift.diffusion.stable_diffusion import StableDiffusion
    from attnshift.recipes.schema import Recipe

adapters = later("attnshift.adapters")
attacks = later("art.attacks.attack")
classification = later("art.estimators.classification")
postprocessor = later("art.defences.postprocessor")
preprocessor = later("art.defences.preprocessor")
exceptions = later("art.exceptions")

pytestmark = pytest.mark.heavy
"""ART's first import takes eight CPU seconds; what the adapters share is tested on the other two."""

Estimator = Callable[..., "PyTorchClassifier"]
Attack = Callable[..., "ArtAdapter"]


@pytest.fixture
def estimator(network: nn.Module, lab: Classifier) -> Estimator:
    def build(**options: Any) -> PyTorchClassifier:
        mean, std = (numpy.array(each, "float32") for each in (lab.preprocessing.mean, lab.preprocessing.std))
        given = {"clip_values": (0, 1), "preprocessing": (mean, std), "device_type": "cpu"} | options
        return classification.PyTorchClassifier(network, nn.CrossEntropyLoss(), (3, 64, 64), 10, **given)

    return build


@pytest.fixture
def attack(backbone: StableDiffusion, recipe: Recipe, lab: Classifier) -> Attack:
    def build(estimator: PyTorchClassifier, **options: Any) -> ArtAdapter:
        given = {"pipeline": backbone, "recipe": recipe, "class_names": lab.class_names} | options
        return adapters.ArtAdapter(estimator, **given)

    return build


def test_images_are_the_attacks_own(
    attack: Attack, estimator: Estimator, network: nn.Module, images: Tensor, labels: Tensor, own: Own
) -> None:
    built, expected = attack(estimator()), own(images, labels).numpy()
    found = built.generate(x=images.numpy(), y=labels.numpy())
    assert isinstance(built, attacks.EvasionAttack)
    assert found.dtype == numpy.float32
    assert numpy.array_equal(found, expected)
    assert (built.estimator.predict(found).argmax(1) != labels.numpy()).any()
    assert all(each.requires_grad and each.grad is None for each in network.parameters())


@pytest.mark.parametrize("form", fast_first(["one-hot", "none", "column", "list"], 2))
def test_labels_come_in_every_form(
    attack: Attack, estimator: Estimator, images: Tensor, labels: Tensor, own: Own, form: str
) -> None:
    forms: dict[str, Any] = {
        "one-hot": numpy.eye(10)[labels],
        "column": labels.numpy()[:, None],
        "list": labels.tolist(),
        "none": None,
    }
    found = attack(estimator()).generate(images.numpy(), forms[form])
    assert numpy.array_equal(found, own(images, labels).numpy())


@pytest.mark.heavy
def test_targets_are_reached_from_what_the_classifier_sees(
    attack: Attack, estimator: Estimator, images: Tensor, labels: Tensor, own: Own
) -> None:
    built = attack(estimator(), targeted=True)
    targets = torch.tensor([8, 5])
    assert built.targeted
    found = built.generate(images.numpy(), numpy.eye(10)[targets])
    assert numpy.array_equal(found, own(images, labels, targets).numpy())
    built.set_params(targeted=False)
    assert numpy.array_equal(built.generate(images.numpy(), labels.numpy()), own(images, labels).numpy())


def test_clip_values_are_the_estimators(
    attack: Attack, estimator: Estimator, lab: Classifier, images: Tensor, labels: Tensor, own: Own
) -> None:
    mean, std = (255 * numpy.array(each, "float32") for each in (lab.preprocessing.mean, lab.preprocessing.std))
    built = attack(estimator(clip_values=(0, 255), preprocessing=(mean, std)))
    found = built.generate((255 * images).numpy(), labels.numpy())
    assert found.max() <= 255
    assert (numpy.abs(found / 255 - own(images, labels).numpy()) < 1e-5).mean() > 0.98


@pytest.mark.heavy
def test_defences_in_pytorch_are_attacked_with_the_classifier(
    attack: Attack,
    estimator: Estimator,
    whole: nn.Module,
    backbone: StableDiffusion,
    recipe: Recipe,
    images: Tensor,
    labels: Tensor,
    own: Own,
) -> None:
    smoothing = preprocessor.SpatialSmoothingPyTorch(
        window_size=3, channels_first=True, clip_values=(0, 1), device_type="cpu"
    )

    class Smoothed(nn.Module):
        def forward(self, shown: Tensor) -> Tensor:
            return whole(smoothing.forward(shown)[0])

    things = [f"thing {letter}" for letter in "abcdefghij"]
    classifier = Classifier.wrap(Smoothed(), "smoothed", 64, [0.0] * 3, [1.0] * 3, class_names=things)
    names = [things[int(label)] for label in labels]
    expected = LatentAttack(backbone, [classifier], recipe)(images, labels, names).images
    built = attack(estimator(preprocessing_defences=smoothing), class_names=classifier.class_names)
    found = built.generate(images.numpy(), labels.numpy())
    assert numpy.array_equal(found, expected.numpy())
    assert not numpy.array_equal(found, own(images, labels).numpy())


def test_parameters_are_arts(attack: Attack, estimator: Estimator) -> None:
    built = attack(estimator())
    assert {"pipeline", "recipe", "class_names", "targeted", "batch_size"} <= set(built.attack_params)
    built.set_params(recipe=load_recipe("nearest"), batch_size=2)
    assert built.batch_size == 2
    assert "batch_size=2" in repr(built)
    with pytest.raises(ValueError, match='"epsilon" cannot be set'):
        built.set_params(epsilon=0.1)
    for options, complaint in [
        ({"batch_size": 0}, "0 images cannot be attacked together"),
        ({"targeted": 1}, "targeted is 1; give True or False"),
        ({"recipe": "fats"}, "did you mean 'fast'"),
        ({"class_names": []}, "class_names must list the model's classes"),
    ]:
        with pytest.raises(UserError, match=complaint):
            attack(estimator()).set_params(**options)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (lambda: {"clip_values": None}, r"needs two clip_values, such as \(0, 1\)"),
        (lambda: {"clip_values": (numpy.zeros((3, 64, 64)), numpy.ones((3, 64, 64)))}, "needs two clip_values"),
        (lambda: {"channels_first": False}, "has channels_first=False"),
        (
            lambda: {"postprocessing_defences": postprocessor.Rounded()},
            "take off the estimator's postprocessing_defences",
        ),
        (
            lambda: {"preprocessing_defences": preprocessor.FeatureSqueezing(clip_values=(0, 1), bit_depth=4)},
            "no gradient passes the estimator's FeatureSqueezing",
        ),
    ],
)
def test_estimators_that_cannot_be_honoured_are_refused(
    attack: Attack, estimator: Estimator, options: Callable[[], dict[str, Any]], complaint: str
) -> None:
    with pytest.raises(ModelError, match=complaint):
        attack(estimator(**options()))


def test_wrong_input_is_named(attack: Attack, estimator: Estimator, images: Tensor, labels: Tensor) -> None:
    built, pixels = attack(estimator()), images.numpy()
    with pytest.raises(RecipeError, match="generate takes x and y alone, not mask"):
        built.generate(pixels, labels.numpy(), mask=pixels)
    with pytest.raises(LabelError, match=r"y has shape \(2, 3\); expected class numbers \[batch\] or one-hot rows"):
        built.generate(pixels, numpy.zeros((2, 3)))
    with pytest.raises(LabelError, match="y are float64; give whole numbers"):
        built.generate(pixels, numpy.array([3.5, 7.0]))
    with pytest.raises(LabelError, match="image 0: label 10 is out of range"):
        built.generate(pixels, labels.numpy() + 7)
    with pytest.raises(LabelError, match="a targeted attack needs y, the targets"):
        attack(estimator(), targeted=True).generate(pixels)
    with pytest.raises(exceptions.EstimatorError):
        attack(images)


def test_a_missing_library_is_named(without: Callable[[str, str], None]) -> None:
    message = "needs art, which is not installed: pip install adversarial-robustness-toolbox"
    with pytest.raises(UserError, match=message):
        without("art", "art_adapter")
