"""Layers that all of an image passes, and residual branches, found in networks of every source."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from attnshift.classifiers.layers import find_layer, lacking, way_back
from attnshift.errors import ModelError


class Block(nn.Module):
    """x + branch(x), or way(x) + branch(x); the sum is written in either order, or in place."""

    def __init__(self, order: str = "branch first", way: nn.Module | None = None):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 1)
        self.norm: nn.Module = nn.BatchNorm2d(3)
        self.order, self.way = order, way

    def branch(self, features: Tensor) -> Tensor:
        return self.second(self.norm(self.first(features)).relu())

    def forward(self, features: Tensor) -> Tensor:
        past = features if self.way is None else self.way(features)
        if self.order == "in place":
            found = self.branch(features)
            found += past
            return found
        return self.branch(features) + past if self.order == "branch first" else past + self.branch(features)


class Network(nn.Module):
    def __init__(self, *blocks: nn.Module):
        super().__init__()
        self.blocks, self.pool, self.head = nn.Sequential(*blocks), nn.AdaptiveAvgPool2d(1), nn.Linear(3, 4)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.pool(self.blocks(images)).flatten(1))


def quiet(network: nn.Module) -> nn.Module:
    return network.eval().requires_grad_(False)


@pytest.fixture
def shown() -> Tensor:
    return torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))


def gradient(network: nn.Module, images: Tensor) -> Tensor:
    leaf = images.clone().requires_grad_()
    return torch.autograd.grad(network(leaf).logsumexp(1).sum(), leaf)[0]


@pytest.mark.parametrize("order", ["branch first", "branch last", "in place"])
@pytest.mark.parametrize("way", [None, nn.Conv2d(3, 3, 1)], ids=["identity", "convolution"])
def test_a_branch_gives_back_a_share_of_its_gradient(order: str, way: nn.Module | None, shown: Tensor) -> None:
    """By hand: d sum(w . block) = past'(w) + factor * branch'(w)."""
    torch.manual_seed(0)
    block = Block(order, way)
    quiet(block)
    weights = torch.randn(2, 3, 6, 6)
    leaf = shown.clone().requires_grad_()
    past = leaf if way is None else way(leaf)
    (through,) = torch.autograd.grad((weights * block.branch(leaf)).sum(), leaf)
    (by,) = torch.autograd.grad((weights * past).sum(), leaf)
    with way_back(block, 0.3):
        answer = block(leaf)
    torch.testing.assert_close(answer, past + block.branch(leaf))
    for _ in range(2):
        (found,) = torch.autograd.grad((weights * answer).sum(), leaf, retain_graph=True)
        torch.testing.assert_close(found, by + 0.3 * through)


def test_factors_multiply_along_branches_and_nothing_stays_behind(shown: Tensor) -> None:
    torch.manual_seed(1)
    network = quiet(Network(Block(), Block("in place"), Block("branch last")))
    plain = gradient(network, shown)
    found = []
    for factor in (0.0, 0.5, 1.0):
        with way_back(network, factor):
            found.append(gradient(network, shown))
    # Without branches the blocks are the identity, and all positions count alike.
    assert torch.allclose(found[0], found[0].mean((2, 3), keepdim=True))
    assert not torch.allclose(found[1], plain, rtol=1e-2)
    torch.testing.assert_close(found[2], plain)
    torch.testing.assert_close(gradient(network, shown), plain)


@pytest.mark.parametrize("kind", [nn.ReLU(), nn.ReLU(inplace=True), nn.ReLU6()], ids=str)
def test_a_rectifier_passes_a_share_where_it_is_off(kind: nn.Module, shown: Tensor) -> None:
    rectified, weights = nn.Sequential(nn.Conv2d(3, 3, 1), kind), torch.randn(2, 3, 6, 6)
    quiet(rectified)
    plain = rectified(shown)
    found = []
    for share in (0.25, 1.0):
        leaf = shown.clone().requires_grad_()
        with way_back(rectified, relu_leak=share):
            answer = rectified(leaf)
        assert torch.equal(answer, plain)
        found.append(torch.autograd.grad((weights * answer).sum(), leaf)[0])
    leaf = shown.clone().requires_grad_()
    (on,) = torch.autograd.grad((weights * (plain > 0) * rectified[0](leaf)).sum(), leaf)
    leaf = shown.clone().requires_grad_()
    (all_of_it,) = torch.autograd.grad((weights * rectified[0](leaf)).sum(), leaf)
    torch.testing.assert_close(found[0], 0.75 * on + 0.25 * all_of_it)
    torch.testing.assert_close(found[1], all_of_it)


def test_a_sum_inside_a_branch_is_none(shown: Tensor) -> None:
    """An activation that is written as a sum of two powers is no residual block."""

    class Cubic(nn.Module):
        def forward(self, features: Tensor) -> Tensor:
            return features + 0.1 * features**3

    torch.manual_seed(2)
    block = Block()
    block.norm = Cubic()
    quiet(block)
    leaf = shown.clone().requires_grad_()
    (through,) = torch.autograd.grad(block.branch(leaf).sum(), leaf)
    with way_back(block, 0.3):
        (found,) = torch.autograd.grad(block(leaf).sum(), leaf)
    torch.testing.assert_close(found, 1 + 0.3 * through)


def test_a_network_without_such_places_goes_back_as_it_is_and_is_told(shown: Tensor) -> None:
    plain = quiet(Network(nn.Conv2d(3, 3, 1), nn.Tanh()))
    assert lacking(plain, shown) == ("residual branches", "rectifiers")
    assert lacking(quiet(Network(nn.Conv2d(3, 3, 1), nn.ReLU())), shown) == ("residual branches",)
    assert lacking(quiet(Network(Block(), nn.ReLU())), shown) == ()
    leaf = shown.clone().requires_grad_()
    (expected,) = torch.autograd.grad(plain(leaf).sum(), leaf)
    with way_back(plain, 0.5, 0.1):
        (found,) = torch.autograd.grad(plain(leaf).sum(), leaf)
    assert torch.equal(found, expected)


def test_depth_counts_blocks_and_not_what_is_in_them(shown: Tensor) -> None:
    network = quiet(Network(*[Block() for _ in range(5)]))
    names = {module: name for name, module in network.named_modules()}
    found = [names[find_layer("mine", network, shown, each)] for each in (0.01, 0.3, 0.5, 0.75, 0.99)]
    assert found == ["blocks.0", "blocks.1", "blocks.2", "blocks.3", "blocks"]
    assert find_layer("mine", network, shown, "blocks.3.norm") is network.get_submodule("blocks.3.norm")


def test_a_name_that_is_none_is_answered_with_some_that_are(shown: Tensor) -> None:
    network = quiet(Network(*[Block() for _ in range(3)]))
    with pytest.raises(ModelError, match=r"'mine' has no layer 'layer9'; some .* are blocks.0, blocks.1, blocks$"):
        find_layer("mine", network, shown, "layer9")


@pytest.mark.parametrize(
    ("source", "layer"),
    [
        ("timm:test_resnet", "layer2"),
        ("timm:test_vit", "blocks.2"),
        ("torchvision:resnet18", "layer2"),
        pytest.param("torchvision:swin_t", "features.5.1", marks=pytest.mark.heavy),
        pytest.param("transformers:dinov2", "dinov2.encoder.layer.1", marks=pytest.mark.heavy),
    ],
)
def test_networks_of_every_source(source: str, layer: str) -> None:
    network, side = made(source)
    shown = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    assert find_layer(source, network, shown, 0.5) is network.get_submodule(layer)
    leaf = shown.requires_grad_()
    with way_back(network, 0.5):
        answer = network(leaf)
    logits = answer if isinstance(answer, Tensor) else answer.logits
    assert torch.autograd.grad(logits.sum(), leaf)[0].isfinite().all()


def made(source: str) -> tuple[nn.Module, int]:
    """A network with random weights, and the side of its images."""
    library, name = source.split(":")
    if library == "timm":
        import timm

        return quiet(timm.create_model(name)), 160 if name == "test_vit" else 64
    if library == "torchvision":
        import torchvision

        return quiet(getattr(torchvision.models, name)()), 64
    from transformers.models.dinov2.configuration_dinov2 import Dinov2Config
    from transformers.models.dinov2.modeling_dinov2 import Dinov2ForImageClassification

    config = Dinov2Config(hidden_size=32, num_hidden_layers=3, num_attention_heads=2, image_size=56)
    return quiet(Dinov2ForImageClassification(config)), 56
