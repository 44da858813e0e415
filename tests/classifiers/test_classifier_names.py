"""``source:name``: what is found, and what is said where nothing is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm
import torch
from timm.models import save_for_hf

from attnshift.classifiers import SOURCES, load_classifier
from attnshift.errors import ModelError, UserError
from attnshift.weights import classifier_names


@pytest.fixture(scope="module")
def timm_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of four classes, saved in timm's own format."""
    folder = tmp_path_factory.mktemp("classifier")
    network = timm.create_model("test_resnet", num_classes=4)
    config = {
        "label_names": ["ball", "mug", "donut", "tree"],
        "pretrained_cfg": {"mean": (0.1, 0.2, 0.3), "input_size": (3, 80, 80)},
    }
    save_for_hf(network, folder, model_config=config, safe_serialization=True)
    return folder


def complaint(name: str) -> str:
    with pytest.raises(UserError) as caught:
        load_classifier(name)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


@pytest.mark.parametrize("name", ["resnet50", "", "random:", ":", "timm"])
def test_names_without_a_source(name: str) -> None:
    message = complaint(name)
    assert "source:name" in message
    assert all(source in message for source in SOURCES)


def test_an_unknown_source_is_corrected() -> None:
    message = complaint("tim:resnet50")
    assert "unknown classifier source 'tim'" in message
    assert "did you mean 'timm'" in message


@pytest.mark.parametrize("source", ["timm", "random"])
def test_an_unknown_timm_name_is_corrected(source: str) -> None:
    message = complaint(f"{source}:resnet5O")
    assert "'resnet5O'" in message
    assert "did you mean 'resnet50" in message


def test_an_unknown_timm_tag() -> None:
    assert "resnet50.nothing_of_the_kind" in complaint("timm:resnet50.nothing_of_the_kind")


def test_an_unknown_lab_classifier_lists_the_known_ones() -> None:
    message = complaint("lab:nope")
    assert "unknown lab classifier 'nope'" in message
    assert all(name in message for name in classifier_names())


def test_a_folder_in_timms_format(timm_folder: Path) -> None:
    classifier = load_classifier(f"timm:{timm_folder}")
    assert classifier.name == f"timm:{timm_folder}"
    assert (classifier.classes, classifier.class_names) == (4, ("ball", "mug", "donut", "tree"))
    assert classifier.preprocessing.mean == pytest.approx((0.1, 0.2, 0.3))
    assert classifier.preprocessing.size == (80, 80)
    assert classifier(torch.rand(2, 3, 64, 64)).shape == (2, 4)


@pytest.mark.parametrize("damage", ["no config", "cut config", "cut weights", "no weights"])
def test_a_broken_folder(timm_folder: Path, tmp_path: Path, damage: str) -> None:
    config, weights = ((timm_folder / name).read_bytes() for name in ("config.json", "model.safetensors"))
    if damage != "no config":
        (tmp_path / "config.json").write_bytes(config[:40] if damage == "cut config" else config)
    if damage != "no weights":
        (tmp_path / "model.safetensors").write_bytes(weights[:5000] if damage == "cut weights" else weights)
    assert str(tmp_path) in complaint(f"timm:{tmp_path}")


def test_weights_of_another_architecture(timm_folder: Path, tmp_path: Path) -> None:
    config = json.loads((timm_folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"architecture": "test_convnext"}))
    (tmp_path / "model.safetensors").write_bytes((timm_folder / "model.safetensors").read_bytes())
    with pytest.raises(ModelError):
        load_classifier(f"timm:{tmp_path}")


def test_imagenet_names_where_the_network_has_1000_classes() -> None:
    names = load_classifier("random:test_resnet").class_names
    assert len(names) == 1000
    assert (names[0], names[207], names[999]) == ("tench", "golden retriever", "toilet tissue")
