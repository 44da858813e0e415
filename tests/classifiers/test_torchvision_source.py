"""``torchvision:``, with weights that are made up where they would be downloaded."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from attnshift.classifiers import load_classifier
from attnshift.errors import ModelError
from classifiers.images import levels_apart, photograph
from hubs import empty_hubs
from later import later
from planted import plant_pickle

if TYPE_CHECKING:
    from torchvision.models import WeightsEnum

models = later("torchvision.models")
timm = later("timm")
torchvision_source = later("attnshift.classifiers.torchvision_source")
timm_source = later("attnshift.classifiers.timm_source")


def all_weights() -> list[Any]:
    names = models.list_models(module=import_module("torchvision.models"))
    return [choice for name in names for choice in models.get_model_weights(name)]


@pytest.fixture
def no_download(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Networks keep their first weights. The list holds the weights that were asked for."""
    asked: list[str] = []

    def state(weights: WeightsEnum, *arguments: Any, **options: Any) -> dict[str, torch.Tensor]:
        asked.append(str(weights))
        return models.squeezenet1_1().state_dict()

    monkeypatch.setattr(models.WeightsEnum, "get_state_dict", state)
    return asked


@pytest.mark.parametrize("name", ["squeezenet1_1", "squeezenet1_1@IMAGENET1K_V1"])
def test_weights_are_loaded_with_their_names_and_sizes(no_download: list[str], name: str) -> None:
    classifier = load_classifier(f"torchvision:{name}")
    assert classifier.name == f"torchvision:{name}"
    assert no_download == ["SqueezeNet1_1_Weights.IMAGENET1K_V1"]
    assert (classifier.classes, len(classifier.class_names)) == (1000, 1000)
    assert (classifier.class_names[0], classifier.class_names[207]) == ("tench", "golden retriever")
    assert (classifier.preprocessing.size, classifier.preprocessing.resized) == ((224, 224), (256, 256))
    images = torch.rand(2, 3, 64, 64, requires_grad=True)
    classifier(images).logsumexp(1).sum().backward()
    assert images.grad is not None
    assert (images.grad.flatten(1).abs().amax(1) > 0).all()


@pytest.mark.parametrize("share", range(12))
def test_preprocessing_is_the_weights_own(share: int) -> None:
    """The first weights of each twelfth of all of them."""
    weights = all_weights()[share * len(all_weights()) // 12]
    image = photograph()
    ours = torchvision_source._preprocessing(weights)
    assert levels_apart(ours, image, weights.transforms()(image)) < 1.6, weights


def test_all_weights_state_a_preprocessing_that_is_understood() -> None:
    read = [torchvision_source._preprocessing(weights) for weights in all_weights()]
    assert {each.interpolation for each in read} == {"bilinear", "bicubic"}
    assert any(each.resized is None for each in read)


def test_the_same_weights_are_shown_the_same_under_both_their_names() -> None:
    """timm's resnet18.tv_in1k is torchvision's ResNet18_Weights.IMAGENET1K_V1."""
    ours = torchvision_source._preprocessing(models.ResNet18_Weights.IMAGENET1K_V1)
    assert timm_source.preprocessing(timm.create_model("resnet18.tv_in1k")) == ours


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet5O", "did you mean 'resnet50'"),
        ("fcn_resnet50", "no classifier 'fcn_resnet50'"),
        ("quantized_resnet50", "no classifier 'quantized_resnet50'"),
        ("resnet50@IMAGENET", "known: IMAGENET1K_V1, IMAGENET1K_V2"),
    ],
)
def test_what_does_not_exist_is_named(name: str, message: str) -> None:
    with pytest.raises(ModelError) as caught:
        load_classifier(f"torchvision:{name}")
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("archive", [False, True], ids=["pickle", "archive"])
def test_code_in_a_pickle_is_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, archive: bool) -> None:
    """torchvision publishes pickles, and unpickles whatever lies in its cache under their names."""
    url = models.SqueezeNet1_1_Weights.DEFAULT.url
    marker = tmp_path / "marker"
    plant_pickle(empty_hubs(tmp_path, monkeypatch) / Path(url).name, marker, archive)
    with pytest.raises(ModelError, match="cannot load 'torchvision:squeezenet1_1': ") as caught:
        load_classifier("torchvision:squeezenet1_1")
    assert len(str(caught.value).splitlines()) == 1
    assert not marker.exists()


def test_without_a_network_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise OSError("<urlopen error name or service not known>")

    monkeypatch.setattr(models.WeightsEnum, "get_state_dict", fail)
    with pytest.raises(ModelError, match=r"cannot load 'torchvision:squeezenet1_1': <urlopen error"):
        load_classifier("torchvision:squeezenet1_1")
