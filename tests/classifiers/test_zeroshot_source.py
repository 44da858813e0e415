"""``zeroshot:``, on small random models of CLIP and SigLIP that transformers itself has saved."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy
import pytest
import torch
from PIL import Image

from attnshift.classifiers import load_classifier
from attnshift.defences.names import load_defended, undefended
from attnshift.errors import ModelError
from attnshift.testing import check_source
from classifiers.images import photograph
from later import later

if TYPE_CHECKING:
    from transformers import CLIPModel

transformers = later("transformers")
lab_tokenizer = later("attnshift.lab.tokenizer")
zeroshot_source = later("attnshift.classifiers.zeroshot_source")

NAMES = ("ball", "mug", "snowman", "red ball on the grass")
SMALL = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}


def tokens() -> dict[str, Any]:
    tokenizer = lab_tokenizer.build_tokenizer()
    kinds = ("bos_token_id", "eos_token_id", "pad_token_id")
    return {"vocab_size": len(tokenizer)} | {kind: getattr(tokenizer, kind) for kind in kinds}


def save(network: Any, processor: Any, folder: Path) -> Path:
    for each in (network, processor, lab_tokenizer.build_tokenizer()):
        each.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    config = transformers.CLIPConfig(
        text_config=SMALL | tokens() | {"max_position_embeddings": 24},
        vision_config=SMALL | {"image_size": 32, "patch_size": 8},
        projection_dim=12,
    )
    processor = transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    return save(transformers.CLIPModel(config), processor, tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def siglip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    config = transformers.SiglipConfig(
        text_config=SMALL | tokens() | {"max_position_embeddings": 64, "projection_size": 16},
        vision_config=SMALL | {"image_size": 32, "patch_size": 8},
    )
    network = transformers.SiglipModel(config)
    # Its authors' starting values; transformers draws them at random.
    network.logit_scale.data.fill_(2.3)
    network.logit_bias.data.fill_(-10.0)
    processor = transformers.SiglipImageProcessor(size={"height": 32, "width": 32})
    return save(network, processor, tmp_path_factory.mktemp("siglip"))


@pytest.fixture
def names(tmp_path: Path) -> Path:
    path = tmp_path / "names.txt"
    path.write_text("\n".join(NAMES) + "\n")
    return path


def complaint(name: str) -> str:
    with pytest.raises(ModelError) as caught:
        load_classifier(name)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_classes_are_the_lines_of_the_file(clip: Path, names: Path) -> None:
    classifier = load_classifier(f"zeroshot:{clip}@{names}")
    assert (classifier.name, classifier.classes) == (f"zeroshot:{clip}@{names}", 4)
    assert classifier.class_names == NAMES
    assert classifier.preprocessing.size == (32, 32)
    names.write_text("\n".join(NAMES[::-1]))
    images = torch.rand(2, 3, 40, 40)
    assert torch.allclose(classifier(images).flip(1), load_classifier(f"zeroshot:{clip}@{names}")(images), atol=1e-5)


@pytest.mark.parametrize("model", ["clip", "siglip"])
def test_contract(model: str, names: Path, request: pytest.FixtureRequest) -> None:
    check_source(zeroshot_source.load_zeroshot, f"{request.getfixturevalue(model)}@{names}")


@pytest.mark.parametrize("model", ["clip", "siglip"])
def test_shares_are_those_of_the_zero_shot_pipeline(model: str, names: Path, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(model)
    image = photograph(32)
    zero_shot: Any = transformers.pipeline("zero-shot-image-classification", model=str(folder))
    found = zero_shot(image, candidate_labels=list(NAMES), hypothesis_template="a photo of a {}")
    expected = [{each["label"]: each["score"] for each in found}[name] for name in NAMES]
    pixels = torch.from_numpy(numpy.asarray(image).copy()).movedim(2, 0)[None] / 255
    logits = load_classifier(f"zeroshot:{folder}@{names}")(pixels)[0]
    shares = logits.softmax(0) if model == "clip" else logits.sigmoid()
    assert shares.tolist() == pytest.approx(expected, rel=1e-3)
    assert max(expected) > 1.01 * min(expected), "the names make a difference"


def test_logits_are_the_models_own_for_more_texts_than_are_encoded_at_once(clip: Path, tmp_path: Path) -> None:
    many = [f"{colour} {name} {number}" for colour in ("red", "blue") for name in NAMES[:3] for number in range(20)]
    (tmp_path / "many.txt").write_text("\n".join(many))
    classifier = load_classifier(f"zeroshot:{clip}@{tmp_path / 'many.txt'}")
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    network = transformers.CLIPModel.from_pretrained(clip).eval()
    texts = transformers.AutoTokenizer.from_pretrained(clip)([f"a photo of a {each}" for each in many], padding=True)
    with torch.no_grad():
        inputs = {key: torch.tensor(values) for key, values in texts.items()}
        expected = network(pixel_values=classifier.preprocessing(images), **inputs).logits_per_image
        assert expected.shape == (3, 120)
        assert torch.allclose(classifier(images), expected, atol=1e-4)


def test_a_gradient_reaches_the_image_and_no_text_is_read_for_it(
    clip: Path, names: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier = load_classifier(f"zeroshot:{clip}@{names}")
    monkeypatch.setattr(
        transformers.CLIPModel, "get_text_features", lambda *_, **__: pytest.fail("texts are encoded once")
    )
    images = torch.rand(2, 3, 48, 48, generator=torch.Generator().manual_seed(0), requires_grad=True)
    classifier(images)[:, 1].sum().backward()
    assert images.grad is not None
    assert (images.grad.abs().amax((1, 2, 3)) > 0).all()
    assert not any(weight.requires_grad for weight in classifier.network.parameters())


def test_it_can_stand_behind_a_defence(clip: Path, names: Path) -> None:
    name = f"smoothing(sigma=0.1, copies=3)+zeroshot:{clip}@{names}"
    assert load_defended(name)(torch.rand(1, 3, 32, 32)).shape == (1, 4)
    assert undefended(name) == f"zeroshot:{clip}@{names}"


@pytest.mark.parametrize(
    "content",
    [
        b"ball\nmug\nsnow man\n",
        b"ball\nmug\nsnow man",
        b"\xef\xbb\xbfball\r\nmug\r\nsnow man\r\n",
        b" ball \nmug\t\n  snow man\n",
    ],
    ids=["plain", "no last line end", "from Windows", "spaces"],
)
def test_names_are_read_whatever_wrote_them(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "names.txt").write_bytes(content)
    assert zeroshot_source.read_names(tmp_path / "names.txt") == ("ball", "mug", "snow man")


def test_names_of_every_language_are_read(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("Tür\n杯子\ncaf\u00e9\u2028bar\n", encoding="utf-8")
    assert zeroshot_source.read_names(tmp_path / "names.txt") == ("Tür", "杯子", "caf\u00e9\u2028bar"), (
        "no line end but a line's end"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "line 1: blank"),
        (b"ball\n\nmug\n", "line 2: blank"),
        (b"ball\nmug\n  \n", "line 3: blank"),
        (b"ball\nmug\nball\n", "line 3: 'ball' is also in line 1"),
        (b"ball\nmug\nMug \n", "line 3: 'Mug' is also in line 2"),
        (b"ball\nm\xfcg\n", "not UTF-8 text"),
        (
            b"ball\nmug,\n" + b"mug " * 60,
            "line 3: 'mug mug mug mug mug mug mug mug mug mug ' is 66 tokens long; at most 24",
        ),
        (b"ball\n", "knows fewer than two classes"),
    ],
)
def test_bad_names_are_one_line(clip: Path, tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "names.txt"
    path.write_bytes(content)
    said = complaint(f"zeroshot:{clip}@{path}")
    assert message in said
    assert str(path) in said


def test_names_that_the_model_cannot_tell_apart_are_refused(clip: Path, tmp_path: Path) -> None:
    """Its tokenizer drops what is no sound of its own, such as the spaces between."""
    (tmp_path / "names.txt").write_text("snow man\nball\nsnow\u00a0man\n", encoding="utf-8")
    assert "line 3: the model reads 'snow\u00a0man' as it reads 'snow man'" in complaint(
        f"zeroshot:{clip}@{tmp_path / 'names.txt'}"
    )


@pytest.mark.parametrize("name", ["model", "model@", "@names.txt", "@"])
def test_a_name_of_another_form_is_refused(name: str) -> None:
    assert "zeroshot:MODEL@NAMES.txt" in complaint(f"zeroshot:{name}")


def test_a_file_that_is_not_there(clip: Path, tmp_path: Path) -> None:
    assert f"{tmp_path / 'none.txt'}: no such file" in complaint(f"zeroshot:{clip}@{tmp_path / 'none.txt'}")
    assert "cannot be read" in complaint(f"zeroshot:{clip}@{tmp_path}")


def test_folders_may_be_named_with_the_sign_that_separates(clip: Path, names: Path, tmp_path: Path) -> None:
    home = tmp_path / "me@work"
    shutil.copytree(clip, home / "clip@2")
    shutil.copy(names, home / "names@2.txt")
    name = f"zeroshot:{home / 'clip@2'}@{home / 'names@2.txt'}"
    assert load_classifier(name).class_names == NAMES


def test_a_folder_without_its_tokenizer_is_refused(clip: Path, names: Path, tmp_path: Path) -> None:
    """transformers would make one that knows no words."""
    folder = shutil.copytree(clip, tmp_path / "model")
    for path in folder.glob("token*"):
        path.unlink()
    assert "tokenizer" in complaint(f"zeroshot:{folder}@{names}")


@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json", "tokenizer_config.json"])
def test_a_folder_that_asks_for_code_of_its_own_is_refused(clip: Path, names: Path, tmp_path: Path, file: str) -> None:
    folder = shutil.copytree(clip, tmp_path / "model")
    (folder / "own.py").write_text("raise SystemExit('this must never run')")
    (folder / file).write_text(
        json.dumps(json.loads((folder / file).read_text()) | {"auto_map": {"AutoModel": "own.A"}})
    )
    assert "auto_map" in complaint(f"zeroshot:{folder}@{names}")


def test_a_text_model_alone_is_refused(clip: Path, names: Path, tmp_path: Path) -> None:
    """transformers would draw the other half at random."""
    folder = shutil.copytree(clip, tmp_path / "model")
    (folder / "model.safetensors").unlink()
    transformers.CLIPTextModel(transformers.CLIPTextConfig(**SMALL, **tokens())).save_pretrained(tmp_path / "text")
    shutil.copy(tmp_path / "text" / "model.safetensors", folder)
    said = complaint(f"zeroshot:{folder}@{names}")
    assert "no weights that fit" in said
    assert "take a whole model" in said


def test_another_kind_of_model_is_refused(clip: Path, names: Path, tmp_path: Path) -> None:
    """BLIP looks at image and text together; what a comparison of the two needs is not in it."""
    text = SMALL | tokens() | {"max_position_embeddings": 24, "encoder_hidden_size": 16, "projection_dim": 12}
    vision = SMALL | {"image_size": 32, "patch_size": 8}
    network = transformers.BlipForImageTextRetrieval(
        transformers.BlipConfig(text_config=text, vision_config=vision, image_text_hidden_size=12)
    )
    processor = transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    folder = save(network, processor, tmp_path / "blip")
    assert "has no weights that fit" in complaint(f"zeroshot:{folder}@{names}")


def test_a_model_whose_own_logits_are_others_is_refused(
    clip: Path, names: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = transformers.CLIPModel.forward

    def other(self: CLIPModel, *args: Any, **options: Any) -> Any:
        output = forward(self, *args, **options)
        output.logits_per_image = output.logits_per_image + torch.arange(4)
        return output

    monkeypatch.setattr(transformers.CLIPModel, "forward", other)
    assert "does not compare images with texts as CLIP does" in complaint(f"zeroshot:{clip}@{names}")


def test_image_sizes_do_not_matter_to_the_names(clip: Path, names: Path) -> None:
    classifier = load_classifier(f"zeroshot:{clip}@{names}")
    image = Image.fromarray(numpy.asarray(photograph(96)))
    pixels = torch.from_numpy(numpy.asarray(image).copy()).movedim(2, 0)[None] / 255
    inputs = transformers.CLIPImageProcessor.from_pretrained(clip)(images=image, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        assert torch.allclose(classifier(pixels), classifier.network(inputs), atol=0.05)
