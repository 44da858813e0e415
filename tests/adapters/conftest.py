"""A lab classifier as a plain network, images, and what the attack itself makes of them."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn

from attnshift import LatentAttack
from attnshift.classifiers import load_classifier
from attnshift.data.images import quantise
from attnshift.recipes.reading import load_recipe
from lab_scenes import rendered

if TYPE_CHECKING:
    from attnshift.classifiers.classifier import Classifier
    from attnshift.diffusion.stable_diffusion import StableDiffusion
    from attnshift.recipes.schema import Recipe

Own = Callable[..., Tensor]


@pytest.fixture(scope="package")
def lab() -> Classifier:
    return load_classifier("lab:resnet")


@pytest.fixture(scope="package")
def recipe() -> Recipe:
    """Two coarse steps, which is enough to fool."""
    short = ["optimiser.iterations=2", "diffusion.denoising_steps=1", "diffusion.schedule_steps=4"]
    return load_recipe("quick", [*short, "optimiser.learning_rate=0.4"])


@pytest.fixture(scope="package")
def images() -> Tensor:
    return quantise(rendered((3, 7)).images)


@pytest.fixture(scope="package")
def labels() -> Tensor:
    return torch.tensor([3, 7])


@pytest.fixture
def network(lab: Classifier) -> nn.Module:
    """For normalised images; its weights take gradients, as a user's do."""
    return copy.deepcopy(lab.network).requires_grad_()


@pytest.fixture
def whole(network: nn.Module, lab: Classifier) -> nn.Module:
    """For images in [0,1]."""

    class Normalised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network

        def forward(self, images: Tensor) -> Tensor:
            return self.inner(lab.preprocessing(images))

    return Normalised().eval()


@pytest.fixture(scope="package")
def own(lab: Classifier, backbone: StableDiffusion, recipe: Recipe) -> Own:
    """(images, labels, targets) -> what LatentAttack returns, computed once."""
    attack, known = LatentAttack(backbone, [lab], recipe), {}

    def images_of(images: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
        key = (images.numpy().tobytes(), str(labels), str(targets))
        if key not in known:
            known[key] = attack(images, labels, targets=targets).images
        return known[key].clone()

    return images_of


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """(library, adapter): import the adapter where the library is not installed."""

    def bring_in(library: str, adapter: str) -> None:
        home = f"attnshift.adapters.{adapter}"
        for name in [each for each in sys.modules if each == library or each.startswith(f"{library}.")]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.delitem(sys.modules, home, raising=False)
        monkeypatch.setitem(sys.modules, library, None)
        import_module(home)

    return bring_in
