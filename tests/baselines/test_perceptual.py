"""Perceptual PGD: its steps and its projection, on features that are known and on a network's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from attnshift.baselines.feature_ball import FeatureBall, lpips_features
from attnshift.baselines.perceptual import PPGD
from attnshift.ensemble.surrogates import Surrogates
from attnshift.errors import UnavailableError
from attnshift.losses.classification import CrossEntropy
from attnshift.testing.models import pictures, small_classifier
from attnshift.types import Goals, RandomKey
from later import later

torchvision = later("torchvision")

KEY = RandomKey(0, ("a", "b"), 0)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        save_file(torchvision.models.squeezenet1_1().state_dict(), folder / "squeezenet1_1.safetensors")
    return folder


@pytest.fixture
def network(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTNSHIFT_WEIGHTS", str(weights))


def drawn(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def test_in_the_pixels_themselves_a_step_follows_the_gradient() -> None:
    images, gradient = drawn(2, 3, 4, 4), drawn(2, 3, 4, 4) - 0.5
    ball = FeatureBall(lambda shown: shown.flatten(1), images, torch.tensor([0.1, 0.4]))
    step = ball.step(images, 1e-3 * gradient, 2 / 8, 5)
    units = gradient / gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    torch.testing.assert_close(step, torch.tensor([0.025, 0.1]).view(-1, 1, 1, 1) * units)
    assert not ball.step(images, 0 * gradient, 2 / 8, 5).any()


def test_a_step_solves_the_metric_of_the_features() -> None:
    """With linear features A x the direction is (A'A)^-1 g, at the stated length |A u|."""
    images, gradient = drawn(1, 3, 1, 2).double(), drawn(1, 3, 1, 2).double() - 0.3
    matrix = torch.eye(6).double() + 0.3 * drawn(6, 6).double()
    ball = FeatureBall(lambda shown: shown.flatten(1) @ matrix.T, images, torch.tensor([0.2]).double())
    step = ball.step(images, gradient, 0.5, 6).flatten()
    expected = torch.linalg.solve(matrix.T @ matrix, gradient.flatten())
    torch.testing.assert_close(step, 0.1 * expected / (matrix @ expected).norm(), rtol=1e-3, atol=1e-6)


def test_a_point_outside_is_brought_to_the_edge_and_one_inside_stays() -> None:
    images = 0.25 + 0.5 * drawn(2, 3, 4, 4)
    ball = FeatureBall(lambda shown: shown.flatten(1) ** 2, images, torch.tensor([0.1, 0.1]))
    points = images + torch.tensor([0.2, 0.001]).view(-1, 1, 1, 1) * (drawn(2, 3, 4, 4) - 0.5)
    projected = ball.project(points)
    distances = ball.distances(projected)
    assert 0.08 < distances[0] <= 0.1
    assert torch.equal(projected[1], points[1])


@pytest.mark.usefixtures("network")
def test_features_are_unit_vectors_over_the_root_of_their_number() -> None:
    images = torch.cat([pictures(1), drawn(1, 3, 64, 64)])
    values = lpips_features("squeeze")(images).square().sum(1)
    torch.testing.assert_close(values, torch.full((2,), 7.0), rtol=0.02, atol=0)


@pytest.mark.usefixtures("network")
def test_each_image_stays_in_its_ball() -> None:
    images = torch.cat([pictures(1), drawn(1, 3, 64, 64)])
    surrogates = Surrogates([small_classifier()], CrossEntropy(), Goals(small_classifier()(images).argmax(1)))
    attacked = PPGD(steps=1, solver_steps=2).at_strengths(surrogates, images, KEY, torch.tensor([1.0, 0.2]))
    distances = FeatureBall(lpips_features("squeeze"), images, torch.ones(2)).distances(attacked)
    assert (distances <= torch.tensor([0.5, 0.1]) + 1e-6).all()
    assert (distances > torch.tensor([0.3, 0.06])).all()
    assert (surrogates.judge(attacked)[1] < surrogates.judge(images)[1]).all()


def test_without_weights_one_line_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTNSHIFT_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    surrogates = Surrogates([small_classifier()], CrossEntropy(), Goals(torch.tensor([0])))
    with pytest.raises(UnavailableError, match=r"^baseline 'ppgd' with network 'squeeze' needs torchvision's Squeeze"):
        PPGD().check(surrogates, pictures(1))
