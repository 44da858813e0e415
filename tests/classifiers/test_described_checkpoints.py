"""``checkpoint:`` with a JSON beside the weights: what it describes is looked up, and everything else is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save_file
from torch import nn

from attnshift.classifiers import load_classifier
from attnshift.classifiers.classifier import Preprocessing
from attnshift.errors import ModelError
from attnshift.execution.shipping import files_of
from later import later
from planted import plant_pickle

timm = later("timm")
timm_source = later("attnshift.classifiers.timm_source")
torchvision = later("torchvision")
transformers = later("transformers")

PREPROCESSING = {"size": 64, "crop_pct": 0.875, "interpolation": "bilinear", "mean": [0.5] * 3, "std": [0.25] * 3}
TIMM: dict[str, Any] = {"library": "timm", "architecture": "test_efficientnet", "preprocessing": PREPROCESSING}
SMALL = {"depth_multiplier": 0.25, "image_size": 64, "tf_padding": True, "min_depth": 8}


def timm_network() -> nn.Module:
    return timm.create_model("test_efficientnet", num_classes=4, pad_type="same")


def torchvision_network() -> nn.Module:
    return torchvision.models.shufflenet_v2_x0_5(num_classes=4)


def transformers_network() -> nn.Module:
    return transformers.MobileNetV1ForImageClassification(transformers.MobileNetV1Config(num_labels=4, **SMALL))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], dict[str, Any]]] = {
    "timm": (timm_network, TIMM | {"arguments": {"pad_type": "same"}}),
    "torchvision": (torchvision_network, TIMM | {"library": "torchvision", "architecture": "shufflenet_v2_x0_5"}),
    "transformers": (
        transformers_network,
        TIMM | {"library": "transformers", "architecture": "MobileNetV1ForImageClassification", "arguments": SMALL},
    ),
}


def save(folder: Path, kind: str = "timm", /, **changes: Any) -> Path:
    """File of weights of half precision, with its description changed; a change to None leaves a key out."""
    create, values = NETWORKS[kind]
    path = folder / "mine.safetensors"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        state = create().state_dict()
    save_file({key: value.half() if value.is_floating_point() else value for key, value in state.items()}, path)
    values = {key: value for key, value in (values | changes).items() if value is not None}
    (folder / "mine.json").write_text(json.dumps(values))
    return path


def complaint(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        load_classifier(f"checkpoint:{path}")
    assert len(str(caught.value).splitlines()) == 1
    assert str(path.parent) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("library", NETWORKS)
@torch.no_grad()
def test_a_network_of_each_library(tmp_path: Path, library: str) -> None:
    path = save(tmp_path, library, class_names=["ball", "mug", "donut", "tree"])
    classifier = load_classifier(f"checkpoint:{path}")
    assert (classifier.name, classifier.classes) == (f"checkpoint:{path}", 4)
    assert classifier.class_names == ("ball", "mug", "donut", "tree")
    expected = Preprocessing((64, 64), "bilinear", (0.5,) * 3, (0.25,) * 3, (73, 73))
    assert classifier.preprocessing == expected
    network = NETWORKS[library][0]().eval()
    network.load_state_dict(load(path.read_bytes()))
    inputs = expected(torch.rand(2, 3, 80, 80, generator=torch.Generator().manual_seed(0)))
    answer = network(inputs)
    torch.testing.assert_close(classifier.network(inputs), answer if library != "transformers" else answer.logits)


def test_arguments_change_the_network(tmp_path: Path) -> None:
    """The padding has no weights: nothing but the description tells of it."""
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    same = load_classifier(f"checkpoint:{save(tmp_path)}")
    usual = load_classifier(f"checkpoint:{save(tmp_path, arguments={})}")
    with torch.no_grad():
        assert not torch.allclose(same(images), usual(images))


def test_a_known_list_of_class_names(tmp_path: Path) -> None:
    path = save(tmp_path, class_names="imagenet-1k")
    assert "mine.json: class_names has 1000 names, and the head of the weights has 4 classes" in complaint(path)
    save_file(timm.create_model("test_efficientnet", pad_type="same").state_dict(), path)
    assert load_classifier(f"checkpoint:{path}").class_names[:2] == ("tench", "goldfish")


def test_names_may_lie_beside_the_weights(tmp_path: Path) -> None:
    path = save(tmp_path)
    assert load_classifier(f"checkpoint:{path}").class_names == ()
    (tmp_path / "class_names.txt").write_text("ball\nmug\ndonut\ntree\n")
    assert load_classifier(f"checkpoint:{path}").class_names == ("ball", "mug", "donut", "tree")


def test_an_architecture_in_front_is_taken_without_the_description(tmp_path: Path) -> None:
    path = save(tmp_path)
    named = load_classifier(f"checkpoint:test_efficientnet@{path}")
    assert named.preprocessing == timm_source.load_random("test_efficientnet").preprocessing


def test_a_worker_elsewhere_gets_the_description(tmp_path: Path) -> None:
    assert set(files_of(save(tmp_path))) == {"mine.safetensors", "mine.json"}


def preprocessing(**changes: Any) -> dict[str, Any]:
    values = PREPROCESSING | changes
    return {"preprocessing": {key: value for key, value in values.items() if value is not None}}


CASES: dict[str, tuple[dict[str, Any], str]] = {
    "no library": ({"library": None}, "library: Field required"),
    "another library": ({"library": "keras"}, "library: Input should be 'timm', 'torchvision' or 'transformers'"),
    "another architecture": ({"architecture": "test_efficientnot"}, "timm has no architecture 'test_efficientnot'; "),
    "an architecture of the hub": ({"architecture": "hf-hub:a/b"}, "timm has no architecture 'hf-hub:a/b'"),
    "an architecture of another library": (
        {"library": "torchvision", "architecture": "test_vit"}, "torchvision has no architecture 'test_vit'",
    ),
    "a module": ({"library": "transformers", "architecture": "os.system"}, "transformers has no architecture 'os.sys"),
    "a wrapper of timm": (
        {"library": "transformers", "architecture": "TimmWrapperForImageClassification"}, "has no architecture 'TimmWr",
    ),
    "an unknown key": ({"licence": "MIT"}, "licence: Extra inputs are not permitted"),
    "a key misspelt": ({"argument": {}}, "argument: Extra inputs are not permitted (got {}); did you mean 'arguments'"),
    "arguments as a list": ({"arguments": ["pad_type"]}, "arguments: Input should be an object"),
    "an argument that is an object": (
        {"arguments": {"a": {"b": 1}}}, "arguments.a: expected a text, a number, true, false, null or a list of these",
    ),
    "an unknown argument": ({"arguments": {"velvet": 1}}, "timm does not build test_efficientnet with these arg"),
    "an argument of another type": ({"arguments": {"act_layer": 3}}, "does not build test_efficientnet with these arg"),
    "classes": ({"arguments": {"num_classes": 4}}, "arguments.num_classes is decided by the weights; leave it out"),
    "a pickle": ({"arguments": {"checkpoint_path": "a.pth"}}, "checkpoint_path would let timm load something; leave"),
    "a download": ({"arguments": {"pretrained": True}}, "arguments.pretrained would let timm load something"),
    "another configuration": ({"arguments": {"pretrained_cfg": "a"}}, "pretrained_cfg would let timm load something"),
    "a giant": ({"arguments": {"channel_multiplier": 1e9}}, "channel_multiplier is 1000000000.0; at most 8192 is"),
    "several classes at once": ({"arguments": {"problem_type": "multi_label_classification"}}, "has a multi-label hea"),
    "class names without end": ({"class_names": 3}, "class_names: expected a list of texts, or the name of a known"),
    "a list nobody knows": ({"class_names": "cifar"}, "class_names is 'cifar'; give a list of names, or the name of"),
    "too few names": ({"class_names": ["a", "b"]}, "class_names has 2 names, and the head of the weights has 4 cla"),
    "an empty name": ({"class_names": ["a", "", "c", "d"]}, "class_names has an empty name"),
    "no preprocessing": ({"preprocessing": None}, "preprocessing: Field required"),
    "no size": (preprocessing(size=None), "preprocessing.size: expected a whole number of pixels"),
    "no mean": (preprocessing(mean=None), "preprocessing.mean: expected three numbers from 0 to 1"),
    "size of nothing": (preprocessing(size=0), "preprocessing.size: expected a whole number of pixels from 1 to 4096"),
    "three sizes": (preprocessing(size=[64, 64, 64]), "size must be one side, or rows and columns"),
    "size as text": (preprocessing(size="64"), "preprocessing.size: expected a whole number of pixels"),
    "a crop beyond the image": (preprocessing(crop_pct=1.5), "preprocessing.crop_pct: Input should be less than or eq"),
    "another interpolation": (preprocessing(interpolation="lanczos"), "interpolation: Input should be 'nearest', 'bil"),
    "two means": (preprocessing(mean=[0.5, 0.5]), "mean and std must have three values, for images in [0,1]"),
    "means of 255": (preprocessing(mean=[123.7, 116.3, 103.5]), "three numbers from 0 to 1, for images in [0,1]"),
    "no spread": (preprocessing(std=[0, 1, 1]), "preprocessing.std: expected three numbers"),
    "not a number": (preprocessing(std=[float("nan")] * 3), "preprocessing.std: expected three numbers"),
    "a key of preprocessing": (preprocessing(resize=256), "preprocessing.resize: Extra inputs are not permitted"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_description_that_cannot_be_used_is_refused_in_a_line(tmp_path: Path, case: str) -> None:
    changes, expected = CASES[case]
    told = complaint(save(tmp_path, **changes))
    assert told.startswith(f"{tmp_path / 'mine.json'}: ")
    assert expected in told


@pytest.mark.parametrize("argument", ["attn_implementation", "velvet", "_name_or_path", "auto_map", "num_channels"])
def test_an_argument_that_transformers_would_take_in_silence(tmp_path: Path, argument: str) -> None:
    told = complaint(save(tmp_path, "transformers", arguments={argument: "kernels/of-somebody"}))
    assert argument in told
    assert any(each in told for each in ("has no argument", "would let transformers load", "decided by the weights"))


@pytest.mark.parametrize("text", ["", "[1]", "{", '{"library": NaN}'])
def test_a_file_that_describes_nothing(tmp_path: Path, text: str) -> None:
    path = save(tmp_path)
    (tmp_path / "mine.json").write_text(text)
    assert str(tmp_path / "mine.json") in complaint(path)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"architecture": "test_resnet", "arguments": None},
            "mine.safetensors has no fc.weight, the head of test_resnet",
        ),
        (
            {"architecture": "mobilenetv2_100"},
            "mine.safetensors does not fit mobilenetv2_100 as mine.json describes it",
        ),
    ],
)
def test_weights_that_do_not_fit(tmp_path: Path, changes: dict[str, Any], expected: str) -> None:
    assert expected in complaint(save(tmp_path, **changes))


def test_weights_without_a_description(tmp_path: Path) -> None:
    path = save(tmp_path)
    (tmp_path / "mine.json").unlink()
    assert f"has no {tmp_path / 'mine.json'} that describes it; write one (docs/inputs.md), or name a" in complaint(
        path
    )


def test_a_pickle_under_the_name_is_never_opened(tmp_path: Path) -> None:
    path, marker = save(tmp_path), tmp_path / "marker"
    plant_pickle(path, marker)
    assert "is not a safetensors file, or is cut off" in complaint(path)
    assert not marker.exists()
