"""``DEFENCE[(options)]+...+SOURCE:NAME``: what is understood, and what is said where nothing is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from attnshift.defences import DEFENCES
from attnshift.defences.bit_depth import BitDepth
from attnshift.defences.defended import Defended
from attnshift.defences.jpeg import JpegCompression
from attnshift.defences.names import load_defended, load_surrogate, same_classifier, undefended
from attnshift.defences.purification import Purification, Purifier
from attnshift.errors import ModelError, RecipeError, UserError

if TYPE_CHECKING:
    from attnshift.classifiers.classifier import Classifier
    from attnshift.diffusion.stable_diffusion import StableDiffusion

PLAIN = "random:test_resnet"


def layers(classifier: Classifier) -> list[object]:
    """The defences that an image passes, in order."""
    found: list[object] = []
    while isinstance(classifier, Defended):
        found.append(classifier.defence)
        classifier = classifier.classifier
    return found


def complaint(name: str) -> str:
    with pytest.raises(UserError) as caught:
        load_defended(name)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


@pytest.mark.parametrize(
    ("prefix", "defences"),
    [
        ("", []),
        ("jpeg+", [JpegCompression(75)]),
        ("jpeg()+", [JpegCompression(75)]),
        ("jpeg(quality=60)+", [JpegCompression(60)]),
        ("jpeg( quality = 60 )+bit_depth(bits=3)+", [JpegCompression(60), BitDepth(3)]),
    ],
    ids=str,
)
def test_names(prefix: str, defences: list[object]) -> None:
    classifier = load_defended(prefix + PLAIN)
    assert layers(classifier) == defences
    assert classifier.name == prefix + PLAIN
    assert undefended(classifier.name) == PLAIN


def test_the_pipeline_is_asked_for_only_where_it_is_needed(backbone: StableDiffusion) -> None:
    asked: list[bool] = []

    def pipeline() -> StableDiffusion:
        asked.append(True)
        return backbone

    load_defended(f"jpeg+{PLAIN}", pipeline)
    assert not asked
    prompt = 'a "mug" (red) + more'
    name = f"purification(strength=0.3, prompt='{prompt}', seed=2)+{PLAIN}"
    (purifier,) = layers(load_defended(name, pipeline))
    assert asked == [True]
    assert isinstance(purifier, Purifier)
    assert purifier.backbone is backbone
    assert purifier.options == Purification(0.3, prompt=prompt, seed=2)
    assert undefended(name) == PLAIN


def test_without_a_pipeline_it_says_so() -> None:
    with pytest.raises(ModelError, match="'purification' needs a pipeline"):
        load_defended(f"purification+{PLAIN}")


def test_a_plus_in_a_folder_is_the_folders_own(tmp_path: Path) -> None:
    assert undefended("jpeg+timm:models/a+b") == "timm:models/a+b"
    assert "models/a+b" in complaint("timm:models/a+b")


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        (f"jpg+{PLAIN}", ["unknown defence 'jpg'", "did you mean 'jpeg'"]),
        (f"jpeg(quality=0)+{PLAIN}", ["defence 'jpeg'", "quality", "got 0"]),
        (f"jpeg(quality=60.5)+{PLAIN}", ["defence 'jpeg'", "quality"]),
        (f"jpeg(qualty=60)+{PLAIN}", ["defence 'jpeg'", "qualty"]),
        (f"jpeg(60)+{PLAIN}", ["(60)", "key=value"]),
        (f"jpeg(quality=2020-01-01)+{PLAIN}", ["(quality=2020-01-01)", "key=value"]),
        (f"jpeg(quality=60+{PLAIN}", ["jpeg(quality=60"]),
        ("jpeg+", ["source:name"]),
        ("jpeg+random:test_resnett", ["test_resnett", "did you mean"]),
    ],
)
def test_mistakes_are_one_line(name: str, parts: list[str]) -> None:
    message = complaint(name)
    assert all(part in message for part in parts), message


def test_surrogates_let_a_gradient_pass() -> None:
    surrogate = load_surrogate(f"jpeg+median(size=3)+{PLAIN}")
    leaf = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)).requires_grad_()
    (gradient,) = torch.autograd.grad(surrogate(leaf).amax(), leaf)
    assert gradient.norm() > 0
    with pytest.raises(RecipeError, match="unknown defence 'jpg'"):
        load_surrogate(f"jpg+{PLAIN}")


@pytest.mark.parametrize("name", [name for name in DEFENCES if not DEFENCES[name].load()().differentiable])
def test_a_surrogate_that_none_passes_is_refused(name: str) -> None:
    with pytest.raises(ModelError, match=f"cannot be a surrogate: no gradient passes the defence '{name}'"):
        load_surrogate(f"jpeg+{name}+{PLAIN}")


def test_who_is_related() -> None:
    names = ["lab:resnet", "jpeg+lab:resnet", "jpeg(quality=3)+median+lab:coatnet", "jpeg+lab:nfnet"]
    assert same_classifier(names, ["bit_depth+lab:resnet", "lab:coatnet"]) == set(names[:3])
    assert same_classifier(names, []) == set()


def test_default_names_are_related_too(backbone: StableDiffusion) -> None:
    plain = load_defended(PLAIN)
    for defence in (JpegCompression(), Purification(prompt="a (b)+c").on(backbone)):
        assert undefended(Defended(plain, defence).name) == PLAIN
