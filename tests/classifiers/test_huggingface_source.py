"""``huggingface:``, on folders that transformers itself has saved."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save_file

from attnshift.classifiers import load_classifier
from attnshift.errors import ModelError
from attnshift.testing import check_source
from classifiers.images import levels_apart, photograph
from later import later
from planted import declare_giant, edit_json, plant_module, plant_pickle

transformers = later("transformers")
huggingface_source = later("attnshift.classifiers.huggingface_source")

NAMES = ("ball", "mug", "donut", "tree")
LABELS = {"id2label": dict(enumerate(NAMES)), "label2id": {name: index for index, name in enumerate(NAMES)}}
MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]
VIT = {
    "image_size": 32,
    "patch_size": 8,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vit")
    transformers.ViTForImageClassification(transformers.ViTConfig(**VIT, **LABELS)).save_pretrained(folder)
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}, image_mean=MEAN, image_std=STD).save_pretrained(
        folder
    )
    return folder


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its image processor cuts the centre out; its classes have no names."""
    folder = tmp_path_factory.mktemp("resnet")
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=5
    )
    transformers.ResNetForImageClassification(config).save_pretrained(folder)
    transformers.ConvNextImageProcessor(size={"shortest_edge": 56}).save_pretrained(folder)
    return folder


def complaint(folder: Path | str) -> str:
    with pytest.raises(ModelError) as caught:
        load_classifier(f"huggingface:{folder}")
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert str(folder) in message
    return message


@pytest.mark.parametrize("model", ["vit", "resnet"])
def test_contract(model: str, request: pytest.FixtureRequest) -> None:
    check_source(huggingface_source.load_huggingface, str(request.getfixturevalue(model)))


def test_a_vit_with_names(vit: Path) -> None:
    classifier = load_classifier(f"huggingface:{vit}")
    assert (classifier.name, classifier.classes, classifier.class_names) == (f"huggingface:{vit}", 4, NAMES)
    preprocessing = classifier.preprocessing
    assert (preprocessing.size, preprocessing.resized, preprocessing.interpolation) == ((32, 32), None, "bilinear")
    assert (list(preprocessing.mean), list(preprocessing.std)) == (MEAN, STD)


def test_a_resnet_without_names(resnet: Path) -> None:
    classifier = load_classifier(f"huggingface:{resnet}")
    assert (classifier.classes, classifier.class_names) == (5, ())
    preprocessing = classifier.preprocessing
    assert (preprocessing.size, preprocessing.resized, preprocessing.interpolation) == ((56, 56), (64, 64), "bicubic")


def test_logits_are_the_models_own(vit: Path) -> None:
    classifier = load_classifier(f"huggingface:{vit}")
    network = transformers.ViTForImageClassification.from_pretrained(vit).eval()
    image = photograph(32)
    with torch.no_grad():
        inputs = transformers.AutoImageProcessor.from_pretrained(vit)(images=image, return_tensors="pt")
        expected = network(**inputs).logits
        inputs = inputs["pixel_values"] * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)
        assert torch.allclose(classifier(inputs), expected, atol=1e-5)
    inputs.requires_grad_()
    classifier(inputs).logsumexp(1).sum().backward()
    assert inputs.grad is not None
    assert inputs.grad.abs().amax() > 0


SQUARE = {"height": 64, "width": 64}
PROCESSORS: dict[str, Callable[[], Any]] = {
    "height and width": lambda: transformers.ViTImageProcessor(size={"height": 40, "width": 56}),
    "shortest edge and crop": lambda: transformers.BitImageProcessor(
        size={"shortest_edge": 146}, crop_size={"height": 128, "width": 128}
    ),
    "crop_pct": lambda: transformers.ConvNextImageProcessor(size={"shortest_edge": 224}),
    "no crop_pct from 384 on": lambda: transformers.ConvNextImageProcessor(size={"shortest_edge": 384}),
    "normalised twice": lambda: transformers.EfficientNetImageProcessor(size=SQUARE, image_mean=MEAN, image_std=STD),
    "in [-1, 1] by an offset": lambda: transformers.EfficientNetImageProcessor(
        size=SQUARE, rescale_factor=1 / 127.5, rescale_offset=True, do_normalize=False
    ),
    "not normalised": lambda: transformers.ViTImageProcessor(size=SQUARE, do_normalize=False),
    "not even rescaled": lambda: transformers.ViTImageProcessor(size=SQUARE, do_normalize=False, do_rescale=False),
}


@pytest.mark.parametrize("case", PROCESSORS)
def test_preprocessing_is_the_image_processors_own(case: str) -> None:
    theirs = PROCESSORS[case]()
    processor, interpolation = huggingface_source._processor(theirs), huggingface_source._interpolation(theirs)
    image = photograph(200)
    measured = huggingface_source.measure_preprocessing(case, processor, interpolation)
    expected = theirs(images=image, return_tensors="pt")["pixel_values"][0]
    assert levels_apart(measured, image, expected) < 1.6


@pytest.mark.parametrize("size", [(32, 36), (100, 114), (224, 235), (224, 256), (256, 256), (300, 342), (518, 518)])
def test_the_size_before_the_cut_is_found_to_the_pixel(size: tuple[int, int]) -> None:
    cut, whole = ({"height": side, "width": side} for side in size)
    processor = huggingface_source._processor(transformers.BitImageProcessor(size=whole, crop_size=cut))
    measured = huggingface_source.measure_preprocessing("bit", processor, "bicubic")
    assert (measured.size[0], (measured.resized or measured.size)[0]) == size


@pytest.mark.parametrize(
    "processor",
    [
        lambda: transformers.MobileViTImageProcessor(size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64}),
        lambda: transformers.ViTImageProcessor(do_resize=False),
    ],
    ids=["swaps channels", "does not resize"],
)
def test_a_processor_that_does_something_else_is_refused(processor: Callable[[], Any]) -> None:
    with pytest.raises(ModelError, match=r"does more than to resize, cut and normalise.*Classifier\.wrap"):
        huggingface_source.measure_preprocessing("odd", huggingface_source._processor(processor()), "bilinear")


def _edit(folder: Path, name: str, values: Mapping[str, Any]) -> None:
    (folder / name).write_text(json.dumps(json.loads((folder / name).read_text()) | dict(values)))


@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json"])
def test_a_folder_that_asks_for_code_of_its_own_is_refused(vit: Path, tmp_path: Path, file: str) -> None:
    folder, marker = shutil.copytree(vit, tmp_path / "model"), tmp_path / "marker"
    plant_module(folder / "own.py", marker)
    _edit(folder, file, {"auto_map": {"AutoModelForImageClassification": "own.Evil", "AutoImageProcessor": "own.Evil"}})
    assert "auto_map" in complaint(folder)
    assert not marker.exists()


def test_weights_without_a_head_are_refused(vit: Path, tmp_path: Path) -> None:
    """transformers would draw one at random."""
    transformers.ViTModel(transformers.ViTConfig(**VIT)).save_pretrained(tmp_path)
    shutil.copy(vit / "preprocessor_config.json", tmp_path)
    assert "no weights that fit classifier.bias (2 in all)" in complaint(tmp_path)


def test_more_classes_than_weights_are_refused(vit: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(vit, tmp_path / "model")
    _edit(folder, "config.json", {"id2label": {str(index): f"class {index}" for index in range(7)}})
    assert "no weights that fit classifier" in complaint(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors"])
@pytest.mark.parametrize("archive", [False, True], ids=["pickle", "archive"])
def test_a_pickle_is_never_opened(vit: Path, tmp_path: Path, name: str, archive: bool) -> None:
    folder, marker = shutil.copytree(vit, tmp_path / "model"), tmp_path / "marker"
    (folder / "model.safetensors").unlink()
    plant_pickle(folder / name, marker, archive)
    assert "safetensors" in complaint(folder)
    assert not marker.exists()


def test_weights_that_are_not_finite(vit: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(vit, tmp_path / "model")
    weights = load((folder / "model.safetensors").read_bytes())
    weights["classifier.bias"][0] = torch.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert "classifier.bias has values that are not finite" in complaint(folder)


def test_what_a_file_declares_is_held_against_its_length(vit: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(vit, tmp_path / "model")
    declare_giant(folder / "model.safetensors")
    complaint(folder)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_labels": 10**10}, "num_labels is 10000000000; expected a whole number from 1 to 1000000"),
        ({"num_labels": "many"}, "num_labels is 'many'"),
        ({"id2label": {"0": "ball", "1": "mug"}}, "no weights that fit classifier.bias"),
        ({"id2label": {"0": "a", "1": "b", "2": "c", "7": "d"}}, "are numbered"),
        ({"model_type": "nothing of the kind"}, "cannot load"),
        ({"hidden_size": "wide"}, "cannot load"),
        ({"hidden_size": 18}, "no weights that fit"),
        ({"hidden_size": 100_000}, "weights, and model.safetensors holds"),
        ({"patch_size": 0}, "cannot load"),
    ],
    ids=str,
)
def test_a_configuration_that_cannot_be_meant(vit: Path, tmp_path: Path, values: dict[str, Any], message: str) -> None:
    folder = shutil.copytree(vit, tmp_path / "model")
    edit_json(folder / "config.json", **values)
    assert message in complaint(folder)


@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json"])
@pytest.mark.parametrize(
    "text", ["[1]", "null", "{", "\xff", "[" * 100_000], ids=["list", "null", "cut", "latin", "deep"]
)
def test_a_configuration_that_is_no_object(vit: Path, tmp_path: Path, file: str, text: str) -> None:
    folder = shutil.copytree(vit, tmp_path / "model")
    (folder / file).write_text(text, encoding="latin-1")
    complaint(folder)


@pytest.mark.parametrize("damage", ["cut weights", "no config", "no processor", "no folder"])
def test_a_broken_folder(vit: Path, tmp_path: Path, damage: str) -> None:
    folder = shutil.copytree(vit, tmp_path / "model")
    if damage == "cut weights":
        (folder / "model.safetensors").write_bytes((vit / "model.safetensors").read_bytes()[:3000])
    elif damage == "no folder":
        shutil.rmtree(folder)
    else:
        (folder / {"no config": "config.json", "no processor": "preprocessor_config.json"}[damage]).unlink()
    complaint(folder)


def test_a_timm_folder_is_sent_to_timm(vit: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(vit, tmp_path / "model")
    _edit(folder, "config.json", {"architecture": "resnet18", "num_classes": 4})
    assert "timm:" in complaint(folder)
