"""Features of sets: missing networks, present ones, and last features of our classifiers."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from attnshift.classifiers import load_classifier
from attnshift.classifiers.classifier import Classifier
from attnshift.errors import ModelError, UnavailableError
from hubs import empty_hubs
from later import later

if TYPE_CHECKING:
    from transformers import CLIPVisionModelWithProjection

fid_inception = later("piq.feature_extractors.fid_inception")
models = later("torchvision.models")
transformers = later("transformers")
inception = later("attnshift.metrics.inception")
source = later("attnshift.metrics.features")

FILE = "pt_inception-2015-12-05-6726825d.pth"


def images(side: int, count: int = 2, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return empty_hubs(tmp_path, monkeypatch)


def random_inception() -> nn.Module:
    """With normalisation that keeps the layers' outputs apart."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = inception.inception().eval()
        for layer in network.modules():
            if isinstance(layer, nn.BatchNorm2d):
                nn.init.uniform_(layer.weight, 1, 3)
                nn.init.uniform_(layer.bias, -0.2, 0.2)
        return network


@pytest.mark.heavy
@torch.no_grad()
def test_inception_against_piq(checkpoints: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same weights in both; piq takes what we made of the images."""
    weights = random_inception().state_dict()
    torch.save(weights, checkpoints / FILE)
    monkeypatch.setattr(fid_inception, "load_state_dict_from_url", lambda url, progress: weights)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = fid_inception.InceptionV3(resize_input=False, normalize_input=False).eval()
    shown = images(299)
    ours = source.inception_features()
    features = ours.extract(shown)
    assert features.shape == (2, ours.width)
    torch.testing.assert_close(features, theirs((255 * shown - 128) / 128)[0].flatten(1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours.extract(shown[1:]), features[1:], rtol=1e-4, atol=1e-5)
    plain = models.Inception3(1008, aux_logits=False, init_weights=False).eval()
    plain.load_state_dict(weights)
    plain.fc = nn.Identity()
    assert (plain((255 * shown - 128) / 128) - features).abs().max() > 0.01, "torchvision's is another network"


def test_inception_that_is_not_there(checkpoints: Path) -> None:
    with pytest.raises(UnavailableError) as caught:
        source.inception_features().extract(images(64))
    assert f"needs the weights of FID's Inception-v3, and {checkpoints / FILE} is missing; put " in str(caught.value)


@pytest.mark.parametrize("content", [b"<html>not found</html>", b""])
def test_inception_that_is_something_else(checkpoints: Path, content: bytes) -> None:
    (checkpoints / FILE).write_bytes(content)
    with pytest.raises(UnavailableError, match="cannot be used as weights of FID's Inception-v3") as caught:
        source.inception_features().extract(images(64))
    assert "\n" not in str(caught.value)


def in_cache(hub: Path) -> Path:
    """Folder for CLIP in the Hugging Face cache of ``empty_hubs``."""
    repository = hub.parents[1] / "huggingface" / "models--openai--clip-vit-large-patch14-336"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("a" * 40)
    return repository / "snapshots" / ("a" * 40)


def tiny_clip(**changes: Any) -> CLIPVisionModelWithProjection:
    shape = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.CLIPVisionConfig(
        **(shape | {"patch_size": 112, "image_size": 336, "projection_dim": 768} | changes)
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return transformers.CLIPVisionModelWithProjection(config).eval()


@torch.no_grad()
@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_clip_gives_its_image_embeddings(checkpoints: Path, file: str) -> None:
    network, folder = tiny_clip(), in_cache(checkpoints)
    network.save_pretrained(folder)
    if file == "pytorch_model.bin":
        (folder / "model.safetensors").unlink()
        torch.save(network.state_dict(), folder / file)
    features = source.clip_features()
    shown = images(336)
    mean, std = torch.tensor([[0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]])
    inputs = (shown - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    values = features.extract(shown)
    assert values.shape == (2, features.width)
    torch.testing.assert_close(values, network(pixel_values=inputs).image_embeds)
    assert features.extract(images(64)).isfinite().all()


def test_clip_that_is_not_there(checkpoints: Path) -> None:
    with pytest.raises(UnavailableError) as caught:
        source.clip_features().extract(images(64))
    assert "needs openai/clip-vit-large-patch14-336" in str(caught.value)
    assert "`hf download openai/clip-vit-large-patch14-336`" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_clip_that_is_half_there(checkpoints: Path) -> None:
    folder = in_cache(checkpoints)
    tiny_clip().save_pretrained(folder)
    tiny_clip(num_hidden_layers=2).config.save_pretrained(folder)
    with pytest.raises(UnavailableError, match=r"cannot be used as weights of CLIP ViT-L/14-336: .* is missing"):
        source.clip_features().extract(images(64))


class Wrapped(nn.Module):
    """Network in the style of Hugging Face, without timm's methods, with two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3, stride=4), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.extra = nn.Linear(6, 6)
        self.head = nn.Linear(6, 5)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.extra(self.body(inputs)).relu())


def wrapped() -> Classifier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Classifier.wrap(Wrapped(), "wrapped", 32, (0.5,) * 3, (0.5,) * 3)


@torch.no_grad()
@pytest.mark.parametrize("name", ["random:test_resnet", "random:test_convnext", "random:test_vit", "lab:coatnet"])
def test_the_last_layer_makes_a_classifier_s_features_its_logits(name: str) -> None:
    classifier = load_classifier(name)
    features = source.classifier_features(classifier)
    shown = images(48, count=3)
    values = features.extract(shown)
    assert values.shape == (3, features.width)
    assert features.name == name
    last: Any = classifier.network
    torch.testing.assert_close(last.get_classifier()(values), classifier(shown), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(features.extract(shown[:1]), values[:1], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_network_that_is_not_timm_s_is_read_before_its_last_layer() -> None:
    classifier = wrapped()
    features = source.classifier_features(classifier)
    assert features.width == 6
    head: Any = classifier.network
    torch.testing.assert_close(head.head(features.extract(images(32))), classifier(images(32)))


def test_a_network_without_a_last_layer() -> None:
    network = nn.Sequential(nn.Conv2d(3, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    classifier = Classifier.wrap(network, "mine", 16, (0.5,) * 3, (0.5,) * 3)
    with pytest.raises(ModelError, match=r"mine has no features .* use another classifier for `features`"):
        source.classifier_features(classifier)
