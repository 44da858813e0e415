"""``checkpoint:``: what fits is loaded, and everything else is refused in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save_file
from torch import Tensor

from attnshift.classifiers import load_classifier
from attnshift.errors import ModelError
from later import later
from planted import declare_giant, plant_pickle

timm = later("timm")
timm_source = later("attnshift.classifiers.timm_source")

NAMES = ["ball", "mug", "donut", "tree"]


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """File of a test_resnet of four classes, in a folder whose name contains ``@``."""
    path = tmp_path / "a@b" / "mine.safetensors"
    path.parent.mkdir()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        save_file(timm.create_model("test_resnet", num_classes=4).state_dict(), path)
    return path


def read(path: Path) -> dict[str, Tensor]:
    """Not ``load_file``, which maps the file that the tests then overwrite."""
    return load(path.read_bytes())


def complaint(name: str) -> str:
    with pytest.raises(ModelError) as caught:
        load_classifier(f"checkpoint:{name}")
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_classes_are_counted_and_the_architecture_states_the_preprocessing(weights: Path) -> None:
    classifier = load_classifier(f"checkpoint:test_resnet@{weights}")
    assert (classifier.name, classifier.classes, classifier.class_names) == (f"checkpoint:test_resnet@{weights}", 4, ())
    assert classifier.preprocessing == timm_source.load_random("test_resnet").preprocessing
    network = timm.create_model("test_resnet", num_classes=4).eval()
    network.load_state_dict(read(weights))
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(classifier(images), network(classifier.preprocessing(images)))


def test_names_lie_beside_the_weights(weights: Path) -> None:
    (weights.parent / "mine.classes.json").write_text(json.dumps(NAMES))
    assert load_classifier(f"checkpoint:test_resnet@{weights}").class_names == tuple(NAMES)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "is not a JSON file"),
        ('{"0": "ball"}', "must be a list"),
        ("[1, 2, 3, 4]", "must be a list of class names"),
        ("[" * 100_000, "is not a JSON file"),
        ('["caf\xe9"]', "is not a JSON file"),
        ('["ball", "mug", "donut"]', "has 3 class names, and the head"),
    ],
)
def test_names_that_cannot_be(weights: Path, text: str, message: str) -> None:
    (weights.parent / "mine.classes.json").write_text(text, encoding="latin-1")
    assert message in complaint(f"test_resnet@{weights}")


@pytest.mark.parametrize("name", ["test_resnet", "test_resnet@", "test_resnet@weights.pt", "@weights.pth"])
def test_a_name_without_a_safetensors_file(name: str) -> None:
    assert "ARCHITECTURE@PATH.safetensors" in complaint(name)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert "there is no file" in complaint(f"test_resnet@{tmp_path / 'none.safetensors'}")


def test_an_unknown_architecture(weights: Path) -> None:
    assert "did you mean 'test_resnet" in complaint(f"test_resnot@{weights}")


@pytest.mark.parametrize("damage", ["pickle", "cut", "empty"])
def test_a_file_that_is_none_of_safetensors(weights: Path, damage: str) -> None:
    if damage == "pickle":
        torch.save(read(weights), weights)
    else:
        weights.write_bytes(weights.read_bytes()[: 5000 if damage == "cut" else 0])
    assert "is not a safetensors file, or is cut off" in complaint(f"test_resnet@{weights}")


@pytest.mark.parametrize("archive", [False, True], ids=["pickle", "archive"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth", ".bin"])
def test_code_in_a_checkpoint_is_never_run(weights: Path, tmp_path: Path, suffix: str, archive: bool) -> None:
    path, marker = weights.with_suffix(suffix), tmp_path / "marker"
    plant_pickle(path, marker, archive)
    assert "safetensors" in complaint(f"test_resnet@{path}")
    assert not marker.exists()


def test_what_a_file_declares_is_held_against_its_length(weights: Path) -> None:
    declare_giant(weights)
    assert "is not a safetensors file, or is cut off (Error" in complaint(f"test_resnet@{weights}")


@pytest.mark.parametrize("name", ["x" * 300, "a\0b"], ids=ascii)
def test_a_path_that_no_file_can_have(name: str) -> None:
    complaint(f"test_resnet@{name}.safetensors")


def test_a_folder_in_place_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "mine.safetensors").mkdir()
    assert "mine.safetensors is a folder; give the safetensors file in it" in complaint(
        f"test_resnet@{tmp_path}/mine.safetensors"
    )


def test_a_head_that_is_one_value(weights: Path) -> None:
    save_file(read(weights) | {"fc.weight": torch.tensor(1.0)}, weights)
    assert "has a single value for fc.weight" in complaint(f"test_resnet@{weights}")


@pytest.mark.parametrize(("key", "value"), [("fc.bias", float("nan")), ("bn1.running_var", float("inf"))])
def test_values_that_are_not_finite(weights: Path, key: str, value: float) -> None:
    """An infinite variance would silence its channel and leave all logits finite."""
    state = read(weights)
    state[key][0] = value
    save_file(state, weights)
    assert f"{key} has values that are not finite" in complaint(f"test_resnet@{weights}")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("headless", "has no fc.weight, the head of test_resnet"),
        ("missing", "has nothing for bn1.bias"),
        ("unexpected", "for conv1.more, expected nothing"),
        ("shape", "it has (1,) for bn1.bias, expected ("),
    ],
)
def test_weights_that_do_not_fit(weights: Path, damage: str, message: str) -> None:
    state = read(weights)
    if damage == "headless":
        del state["fc.weight"]
    elif damage == "missing":
        del state["bn1.bias"]
    elif damage == "unexpected":
        state["conv1.more"] = torch.zeros(2)
    else:
        state["bn1.bias"] = torch.zeros(1)
    save_file(state, weights)
    assert message in complaint(f"test_resnet@{weights}")


def test_weights_of_another_architecture(weights: Path) -> None:
    assert "test_vit" in complaint(f"test_vit@{weights}")
