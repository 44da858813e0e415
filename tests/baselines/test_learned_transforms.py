"""L2T: the library itself where it runs, MI-FGSM where nothing is transformed, and what is learned."""

from __future__ import annotations

import random

import numpy
import pytest
import torch
from torch import Tensor, nn

from attnshift.baselines.external.learned_transforms import CentreCrops, LearnedTransforms, operations
from attnshift.baselines.external.torchattack_baselines import L2T
from attnshift.batching import select_rows
from attnshift.ensemble.surrogates import Surrogates
from attnshift.losses.classification import CrossEntropy
from attnshift.types import Goals, RandomKey
from later import later
from tiers import fast_first

torchattack, l2t = later("torchattack"), later("torchattack.l2t")

EPSILON, LABEL = 16 / 255, torch.tensor([1])
KEY = RandomKey(0, ("a", "b"), 0)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.AdaptiveAvgPool2d(8), nn.Flatten(), nn.Linear(192, 16), nn.Tanh(), nn.Linear(16, 3))


def picture(side: int) -> Tensor:
    return 0.1 + 0.8 * torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(side))


def attack(network: nn.Module, steps: int = 3, targeted: bool = False, **options: object) -> LearnedTransforms:
    usual = {"decay": 1.0, "draws": 3, "rate": 0.01} | options
    return LearnedTransforms(network, EPSILON, steps, EPSILON / steps, targeted=targeted, **usual)  # type: ignore[arg-type]


def seeded(seed: int = 0) -> None:
    torch.manual_seed(seed)
    numpy.random.seed(seed)
    random.seed(seed)


def mostly_equal(found: Tensor, expected: Tensor) -> bool:
    return float(((found - expected).abs() < 1e-6).float().mean()) > 0.99


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """One operation of each kind that runs at every size, with few copies."""
    few = [l2t.identity, l2t.rotate(30, 2), l2t.sim(2), l2t.dim(1.2), l2t.blockshuffle(3, 2), l2t.admix(1, 0.2, 2)]
    monkeypatch.setattr(l2t, "AUG_OPS", [*few, l2t.ide([0.1]), l2t.masked(4, 2), l2t.affine(0.9, 2)])


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("targeted", [False, True])
def test_it_is_the_librarys_where_that_runs(network: nn.Module, targeted: bool) -> None:
    compare_with_the_library(network, 32, targeted)


@pytest.mark.heavy
def test_it_is_the_librarys_with_every_operation(network: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    """At 224 pixels, with a call that asks for a CUDA device left without effect."""
    monkeypatch.setattr(torch.Tensor, "cuda", lambda values: values)
    compare_with_the_library(network, 224, False)


def compare_with_the_library(network: nn.Module, side: int, targeted: bool) -> None:
    device, image = torch.device("cpu"), picture(side)
    seeded()
    found = attack(network, targeted=targeted)(image, LABEL)
    seeded()
    library = torchattack.L2T(network, device=device, eps=EPSILON, steps=3, num_scale=3, targeted=targeted)
    expected = library(image, LABEL)
    assert mostly_equal(found, expected)
    seeded(1)
    assert not mostly_equal(attack(network, targeted=targeted)(image, LABEL), expected)


@pytest.mark.usefixtures("few")
def test_the_baseline_stays_within_its_radius_and_its_draws_belong_to_the_image(network: nn.Module) -> None:
    images, baseline = torch.cat([picture(32), picture(32).flip(2)]), L2T(steps=3)
    surrogates = Surrogates([network], CrossEntropy(), Goals(network(images).argmax(1)))
    found = baseline(surrogates, images, KEY)
    assert (found - images).abs().max() <= baseline.epsilon + 1e-6
    assert (surrogates.judge(found)[0] < surrogates.judge(images)[0]).all()
    rows = slice(1, 2)
    alone = select_rows(surrogates, rows)
    assert torch.equal(baseline(alone, images[rows], select_rows(KEY, rows)), found[rows])
    for key in (RandomKey(1, ("b",), 0), RandomKey(0, ("z",), 0)):
        assert not torch.equal(baseline(alone, images[rows], key), found[rows])


def test_the_remade_operations_are_the_librarys_at_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "cuda", lambda values: values)
    image, remade = picture(224), operations()
    assert len(remade) == 98
    kinds = [at for at, each in enumerate(l2t.AUG_OPS) if isinstance(each, (l2t.Crop, l2t.SSM))]
    assert len(kinds) == 18
    for at in kinds[::9]:
        seeded()
        found = remade[at](image)
        seeded()
        torch.testing.assert_close(found, l2t.AUG_OPS[at](image), rtol=0, atol=1e-4)


@pytest.mark.parametrize("side", fast_first([32, 65]))
def test_every_operation_keeps_other_sizes_and_passes_a_gradient(side: int) -> None:
    seeded()
    image = picture(side).requires_grad_()
    for each in operations():
        shown = each(image)
        assert shown.shape[1:] == image.shape[1:]
        assert torch.autograd.grad(shown.sum(), image)[0].abs().sum() > 0


def test_without_a_transform_it_is_mifgsm_and_nothing_is_learned(
    network: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned = noted(monkeypatch)
    image = picture(32)
    found = attack(network, rate=1e3, operations=[lambda shown: shown])(image, LABEL)
    expected = torchattack.MIFGSM(network, device=torch.device("cpu"), eps=EPSILON, steps=3)(image, LABEL)
    assert mostly_equal(found, expected)
    assert [each.tolist() for each in learned] == [[0.0]] * 3


def test_scores_climb_the_mean_of_probability_times_loss(network: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    """In closed form: the slope of a chain's probability p_a p_b is p_a p_b (e_a + e_b - 2 p)."""
    learned, looks = noted(monkeypatch), []
    look = LearnedTransforms._look

    def noting(self: LearnedTransforms, point: Tensor, label: Tensor, chain: list[int]) -> tuple[float, Tensor]:
        answer = look(self, point, label, chain)
        looks.append((chain, answer[0]))
        return answer

    monkeypatch.setattr(LearnedTransforms, "_look", noting)
    made = [lambda shown: shown, lambda shown: shown / 2, lambda shown: shown.flip(3)]
    attack(network, steps=2, rate=5.0, operations=made)(picture(32), LABEL)
    scores = torch.zeros(3)
    for step in range(2):
        chances, slope = scores.softmax(0), torch.zeros(3)
        for chain, loss in looks[3 * step : 3 * step + 3]:
            along = torch.eye(3)[chain].sum(0) - 2 * chances
            slope += chances[chain].prod() * along * loss / 3
        scores = scores + 5.0 * slope
        torch.testing.assert_close(learned[step], scores)
    assert scores.abs().max() > 0.1


def noted(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The scores after each step."""
    seen: list[Tensor] = []
    whole = LearnedTransforms._learned

    def learned(self: LearnedTransforms, scores: Tensor, wanted: Tensor) -> Tensor:
        seen.append(whole(self, scores, wanted).detach())
        return seen[-1].clone().requires_grad_()

    monkeypatch.setattr(LearnedTransforms, "_learned", learned)
    return seen


def test_many_copies_pass_in_parts_with_the_gradient_of_their_mean(network: nn.Module) -> None:
    def copies(shown: Tensor) -> Tensor:
        return torch.cat([shown * (1 - at / 40) for at in range(40)])

    image = picture(32)
    loss, gradient = attack(network, operations=[copies])._look(image, LABEL, [0])
    leaf = image.clone().requires_grad_()
    expected = nn.functional.cross_entropy(network(copies(leaf)), LABEL.expand(40))
    assert loss == pytest.approx(float(expected.detach()), rel=1e-5)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, leaf)[0])


def test_crops_end_at_the_whole_image() -> None:
    image = picture(20)
    shown = CentreCrops(0.5, 5)(image)
    torch.testing.assert_close(shown[4:], image)
    assert shown.shape == (5, 3, 20, 20)
