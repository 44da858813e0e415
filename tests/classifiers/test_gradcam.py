"""Grad-CAM against captum and against the formula, in every layout that timm's networks have."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from attnshift.classifiers import load_classifier
from attnshift.classifiers.classifier import Classifier, Preprocessing
from attnshift.classifiers.gradcam import grad_cam
from attnshift.errors import ModelError
from lab_scenes import rendered
from later import later

if TYPE_CHECKING:
    from attnshift.lab.render import Rendering

timm = later("timm")
torchvision = later("torchvision")
vision_transformer = later("timm.models.vision_transformer")

SWIN = {"img_size": 56, "embed_dim": 24, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 4, 8), "window_size": 7}
SMALL_VIT = {"img_size": 64}
# Per case: architecture, its arguments, the layer whose output is the target, the grid of its
# tokens.
LAYERS: dict[str, tuple[str, dict[str, Any], str, tuple[int, int] | None]] = {
    "channels first": ("test_resnet", {}, "layer4", None),
    "channels first, wider head": ("mobilenetv3_small_050", {}, "blocks", None),
    "channels last, swin": ("swin_tiny_patch4_window7_224", SWIN, "norm", None),
    "channels last, perceptron head": ("test_mambaout", {}, "stages", None),
    "tokens, average": ("test_vit", SMALL_VIT | {"global_pool": "avg"}, "norm", (4, 4)),
    "tokens, attention": ("test_vit3", {"img_size": 64}, "norm", (4, 4)),
    "tokens, class": ("test_vit", SMALL_VIT, "blocks.5.norm1", (4, 4)),
    "tokens, class and registers": ("test_vit", SMALL_VIT | {"reg_tokens": 3}, "blocks.5.norm1", (4, 4)),
    "tokens, class, not square": ("test_vit", {"img_size": (48, 96)}, "blocks.5.norm1", (3, 6)),
}


def _untrained(architecture: str, arguments: dict[str, Any], size: tuple[int, int]) -> Classifier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = timm.create_model(architecture, num_classes=10, **arguments)
        for parameter in network.parameters():
            # Fresh biases and layer scales are 0 or tiny, and then a map hardly depends on what is
            # tested.
            parameter.data.add_(0.05 * torch.randn_like(parameter))
    return Classifier(architecture, network, Preprocessing(size, "bilinear", (0.5,) * 3, (0.25,) * 3), 10)


def _images(count: int, height: int, width: int) -> Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(1))


def _finish(maps: Tensor, size: torch.Size | tuple[int, int]) -> Tensor:
    maps = nn.functional.interpolate(maps.relu(), size, mode="bilinear")
    return maps / maps.amax((2, 3), keepdim=True).clamp(min=1e-30)


class _ChannelsFirst(nn.Module):
    """Layer with an unchanged output that passes ``seen`` as [batch,channels,rows,columns]."""

    def __init__(self, layer: nn.Module, grid: tuple[int, int] | None) -> None:
        super().__init__()
        self.layer, self.grid, self.seen = layer, grid, nn.Identity()

    def forward(self, values: Tensor) -> Tensor:
        values = self.layer(values)
        if self.grid is None:
            return self.seen(values.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        prefix = values.shape[1] - math.prod(self.grid)
        maps = self.seen(values[:, prefix:].transpose(1, 2).unflatten(2, self.grid))
        return torch.cat([values[:, :prefix], maps.flatten(2).transpose(1, 2)], 1)


@pytest.mark.parametrize("case", LAYERS)
def test_maps_are_captums(case: str) -> None:
    attribution = pytest.importorskip("captum.attr")
    architecture, arguments, name, grid = LAYERS[case]
    size = arguments.get("img_size", 64)
    height, width = (size, size) if isinstance(size, int) else size
    classifier = _untrained(architecture, arguments, (height, width))
    images = _images(3, 5 * height // 4, 5 * width // 4)
    labels = classifier(images).argmax(1)
    inputs = classifier.preprocessing(images)
    network = copy.deepcopy(classifier.network)
    layer = network.get_submodule(name)
    if not case.startswith("channels first"):
        wrapped = _ChannelsFirst(layer, grid)
        network.set_submodule(name, wrapped)
        layer = wrapped.seen
    maps = attribution.LayerGradCam(network, layer).attribute(
        inputs, labels, attr_dim_summation=True, relu_attributions=True
    )
    assert maps.amax((1, 2, 3)).gt(0).sum() >= 2, "maps of zeros would agree whatever is computed"
    assert torch.allclose(grad_cam(classifier, images, labels), _finish(maps, images.shape[-2:]), atol=1e-5)


class _Pooled(nn.Module):
    """Features are means of 8 x 8 patches in ``layout``; logits [batch,2] are linear in their mean."""

    num_features = 3

    def __init__(self, layout: str, prefix: int = 0, grid: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.layout, self.num_prefix_tokens = layout, prefix
        if layout == "NHWC":
            self.output_fmt = layout
        if grid is not None:
            self.patch_embed = SimpleNamespace(grid_size=grid)
        self.weights = nn.Parameter(torch.tensor([[1.0, 0.5, -1.5], [-1.0, -1.0, -1.0]]))

    def forward_features(self, images: Tensor) -> Tensor:
        maps = nn.functional.avg_pool2d(images, 8)
        if self.layout == "NLC":
            tokens = maps.flatten(2).transpose(1, 2)
            return torch.cat([tokens.new_full((len(tokens), self.num_prefix_tokens, 3), 9.0), tokens], 1)
        return maps.permute(0, 2, 3, 1) if self.layout == "NHWC" else maps

    def forward_head(self, features: Tensor) -> Tensor:
        places = {"NCHW": (2, 3), "NHWC": (1, 2), "NLC": (1,)}[self.layout]
        if self.layout == "NLC":
            features = features[:, self.num_prefix_tokens :]
        return features.mean(places) @ self.weights.T


def _pooled(network: nn.Module, height: int = 24, width: int = 24) -> Classifier:
    return Classifier("pooled", network, Preprocessing((height, width), "bilinear", (0.0,) * 3, (1.0,) * 3), 2)


@pytest.mark.parametrize(
    ("network", "height", "width"),
    [
        (_Pooled("NCHW"), 24, 24),
        (_Pooled("NCHW"), 24, 40),
        (_Pooled("NHWC"), 24, 24),
        (_Pooled("NHWC"), 40, 24),
        (_Pooled("NLC"), 24, 24),
        (_Pooled("NLC", prefix=5), 32, 32),
        (_Pooled("NLC", prefix=1, grid=(2, 8)), 16, 64),
    ],
)
def test_maps_are_the_papers_formula(network: _Pooled, height: int, width: int) -> None:
    """At 24 x 24 all three axes have length three, so sizes do not tell channels from places."""
    images = _images(4, height, width)
    features = nn.functional.avg_pool2d(images, 8)
    expected = _finish((network.weights[0].view(3, 1, 1) * features).sum(1, keepdim=True), (height, width))
    maps = grad_cam(_pooled(network, height, width), images, torch.zeros(4, dtype=torch.long))
    assert expected.amax((1, 2, 3)).gt(0).any()
    assert torch.allclose(maps, expected, atol=1e-5)


@pytest.mark.parametrize(("architecture", "layer"), [("resnet18", "layer4"), ("densenet121", "features")])
def test_torchvisions_last_convolutions(architecture: str, layer: str) -> None:
    """The formula again, with the part behind the features written out; DenseNet's works in place."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = torchvision.models.get_model(architecture, weights=None, num_classes=10)
    classifier = Classifier(
        architecture, network.eval(), Preprocessing((64, 64), "bilinear", (0.5,) * 3, (0.25,) * 3), 10
    )
    images, labels = _images(2, 64, 64), torch.tensor([3, 8])
    seen: list[Tensor] = []
    with getattr(network, layer).register_forward_hook(lambda *each: seen.append(each[2].clone())):
        logits = network(classifier.preprocessing(images))
    head = network.fc if layer == "layer4" else network.classifier
    features = seen[0] if layer == "layer4" else seen[0].relu()
    assert torch.allclose(logits, head(features.mean((2, 3))), atol=1e-5)
    slope = head.weight[labels][:, :, None, None] / seen[0][0, 0].numel()
    gradients = slope if layer == "layer4" else slope * (seen[0] > 0)
    maps = (gradients.mean((2, 3), keepdim=True) * seen[0]).sum(1, keepdim=True)
    assert torch.allclose(grad_cam(classifier, images, labels), _finish(maps, images.shape[-2:]), atol=1e-4)


def test_a_map_is_all_zeros_where_nothing_speaks_for_the_label() -> None:
    maps = grad_cam(_pooled(_Pooled("NCHW")), _images(2, 24, 24), torch.tensor([1, 0]))
    assert maps[0].eq(0).all()
    assert maps[1].amax() == 1


def test_a_label_without_gradient_gives_zeros_not_an_earlier_layer() -> None:
    classifier = _untrained("test_vit", SMALL_VIT, (64, 64))
    classifier.network.head.weight.data[0] = 0  # type: ignore[index, union-attr]
    assert grad_cam(classifier, _images(1, 64, 64), torch.tensor([0])).eq(0).all()


@pytest.mark.parametrize("case", LAYERS)
def test_maps_have_the_images_size_their_own_maximum_and_no_batch_mates(case: str) -> None:
    architecture, arguments, _, _ = LAYERS[case]
    size = arguments.get("img_size", 64)
    classifier = _untrained(architecture, arguments, (size, size) if isinstance(size, int) else size)
    images, labels = _images(3, 50, 70), torch.tensor([4, 1, 7])
    maps = grad_cam(classifier, images, labels)
    assert maps.shape == (3, 1, 50, 70)
    assert maps.amin() >= 0
    assert all(peak in (0, 1) for peak in maps.amax((1, 2, 3)).tolist())
    alone = torch.cat([grad_cam(classifier, images[[i]], labels[[i]]) for i in range(3)])
    assert torch.allclose(maps, alone, atol=1e-5)


def test_nothing_is_left_behind(classifiers: list[Classifier]) -> None:
    for classifier in (*classifiers, _untrained("test_vit", SMALL_VIT, (64, 64))):
        images = _images(2, 64, 64).requires_grad_()
        labels = torch.tensor([3, 5])
        with torch.no_grad():
            inside = grad_cam(classifier, images, labels)
            assert not torch.is_grad_enabled()
        outside = grad_cam(classifier, images, labels)
        assert torch.equal(inside, outside)
        assert not outside.requires_grad
        assert images.grad is None
        assert all(weight.grad is None and not weight.requires_grad for weight in classifier.network.parameters())
        assert not any(module._forward_hooks for module in classifier.network.modules())


@pytest.fixture(scope="module")
def rendering() -> Rendering:
    return rendered(range(20))


def test_the_labs_strongest_quadrant_is_the_objects(rendering: Rendering) -> None:
    """Measured: 16 of 20, and 2 to 7 with another image's mask.

    The features are 2 x 2 at the lab's 64 pixels.
    """
    maps = grad_cam(load_classifier("lab:resnet"), rendering.images, torch.arange(20) % 10)
    quadrants = [nn.functional.avg_pool2d(values, 32).flatten(1).argmax(1) for values in (maps, rendering.masks)]
    assert (quadrants[0] == quadrants[1]).sum() >= 12


def test_the_labs_maximum_is_on_the_object(rendering: Rendering) -> None:
    """At 96 pixels (features 3 x 3), 17 of 20 are within 4 pixels.

    For another label it is 3 of 20, with another mask 10 or 11.
    """
    lab = load_classifier("lab:resnet")
    classifier = dataclasses.replace(lab, preprocessing=dataclasses.replace(lab.preprocessing, size=(96, 96)))
    maps = grad_cam(classifier, rendering.images, torch.arange(20) % 10)
    near = nn.functional.max_pool2d((rendering.masks > 0.5).float(), 9, stride=1, padding=4)
    assert near.flatten(1).gather(1, maps.flatten(1).argmax(1, keepdim=True)).sum() >= 14


class _Odd(_Pooled):
    """A head as it should be on features that are not a map."""

    def __init__(self, features: object) -> None:
        super().__init__("NCHW")
        self.features = features

    def forward_features(self, images: Tensor) -> Any:
        return self.features


@pytest.mark.parametrize(
    ("network", "found"),
    [
        (nn.Flatten(), "Flatten has no forward_features and forward_head"),
        (_Odd([torch.zeros(1, 3, 2, 2)]), "forward_features returns a list"),
        (_Odd(torch.zeros(1, 3)), "(1, 3)"),
        (_Odd(torch.zeros(1, 4, 2, 2)), "(1, 4, 2, 2)"),
        (_Odd(torch.zeros(1, 3, 1, 1)), "(1, 3, 1, 1)"),
        (_Odd(torch.zeros(1, 7, 3)), "(1, 7, 3)"),
    ],
)
def test_a_network_without_maps_is_refused_in_one_line(network: nn.Module, found: str) -> None:
    with pytest.raises(ModelError) as caught:
        grad_cam(_pooled(network), _images(1, 24, 24), torch.tensor([0]))
    message = str(caught.value)
    assert "\n" not in message
    assert all(part in message for part in ("'pooled'", found, "mask source 'attention' or 'given'"))


@pytest.mark.parametrize(
    ("architecture", "arguments"),
    [
        ("test_vit", lambda: SMALL_VIT | {"block_fn": vision_transformer.ResPostBlock}),
        ("tnt_s_legacy_patch16_224", lambda: {"img_size": 64, "depth": 1}),
    ],
)
def test_a_class_token_whose_last_patches_are_unknown_is_refused(
    architecture: str, arguments: Callable[[], dict[str, Any]]
) -> None:
    """A norm1 that comes after the attention, and blocks without norm1."""
    classifier = _untrained(architecture, arguments(), (64, 64))
    with pytest.raises(ModelError, match="blocks"):
        grad_cam(classifier, _images(1, 64, 64), torch.tensor([0]))
