"""External baselines: one image at a time, within the radius, draws by image, library's results."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy
import pytest
import torch
from torch import Tensor, nn

from attnshift.baselines.external.art_baselines import AutoAttack
from attnshift.baselines.external.networks import Averaged, SpectrumSimulation, seed_generators
from attnshift.baselines.external.torchattack_baselines import BSR, DI, SSA, TI, TorchattackBaseline
from attnshift.batching import select_rows
from attnshift.classifiers import load_classifier
from attnshift.data.images import quantise
from attnshift.ensemble.surrogates import Surrogates
from attnshift.errors import RecipeError, UserError
from attnshift.losses.classification import CrossEntropy
from attnshift.randomness import generator
from attnshift.registry import Entry, Table, build
from attnshift.types import Goals, RandomKey
from lab_scenes import rendered
from later import later
from tiers import fast_first, fast_where

if TYPE_CHECKING:
    from attnshift.baselines.external.baseline import ExternalBaseline

torchattack = later("torchattack")

LABELS = [3, 7, 5]
KEY = RandomKey(0, ("a", "b", "c"), 0)
QUICK: list[ExternalBaseline] = [
    DI(steps=3),
    TI(steps=3, kernel_len=5),
    SSA(steps=3, num_spectrum=3),
    BSR(steps=5, num_scale=5),
    AutoAttack(steps=4, queries=4),
]
TRANSFER = [baseline for baseline in QUICK if isinstance(baseline, TorchattackBaseline)]


def name_of(baseline: object) -> str:
    return type(baseline).__name__


with_every_baseline = pytest.mark.parametrize("baseline", QUICK, ids=name_of)


def with_baselines(*names: str) -> pytest.MarkDecorator:
    """Every baseline, of which those with these names belong to the fast tier."""
    values = fast_where(lambda each: name_of(each) in names, QUICK)
    return pytest.mark.parametrize("baseline", values, ids=name_of)


with_transfer_attacks = pytest.mark.parametrize("baseline", fast_first(TRANSFER, 2), ids=name_of)


@pytest.fixture(scope="module")
def images() -> Tensor:
    return quantise(rendered(LABELS).images)


@pytest.fixture(scope="module")
def surrogates() -> Surrogates:
    pair = [load_classifier("lab:resnet"), load_classifier("lab:efficientnet")]
    return Surrogates(pair, CrossEntropy(), Goals.of(LABELS, [None] * 3))


def only(surrogates: Surrogates, at: int) -> tuple[Surrogates, RandomKey]:
    return select_rows(surrogates, torch.tensor([at])), RandomKey(0, KEY.ids[at : at + 1], 0)


def entropy(surrogates: Surrogates, images: Tensor, classes: Tensor) -> Tensor:
    with torch.no_grad():
        logits = Averaged(surrogates.classifiers)(images)
    return nn.functional.cross_entropy(logits, classes, reduction="none")


def state() -> str:
    """Of the global generators of torch, numpy and Python, in words."""
    legacy: Any = numpy.random.get_state()
    return f"{torch.get_rng_state().tolist()} {legacy[1].tolist()} {legacy[2:]} {random.getstate()}"


def seeded(id: str) -> None:
    """Global generators as a baseline seeds them for an image."""
    number = int(generator(0, id, "peer").integers(2**32))
    torch.manual_seed(number)
    numpy.random.seed(number)
    random.seed(number)


@with_baselines("DI", "SSA")
@pytest.mark.parametrize("epsilon", fast_first([1.5 / 255, 16 / 255]))
def test_results_stay_within_the_radius(
    baseline: ExternalBaseline, epsilon: float, surrogates: Surrogates, images: Tensor
) -> None:
    extremes = torch.cat([images[:1], torch.zeros_like(images[:1]), torch.ones_like(images[:1])])
    found = replace(baseline, epsilon=epsilon)(surrogates, extremes, KEY)
    assert found.shape == extremes.shape
    assert found.min() >= 0
    assert found.max() <= 1
    assert (found - extremes).abs().max() <= epsilon + 1e-6
    assert not found.requires_grad


@with_baselines("SSA", "AutoAttack")
def test_the_label_loses(baseline: ExternalBaseline, surrogates: Surrogates, images: Tensor) -> None:
    found = baseline(surrogates, images, KEY)
    before, after = (entropy(surrogates, each, surrogates.goals.labels) for each in (images, found))
    assert (after > before + 0.2).all()


@with_transfer_attacks
def test_the_target_wins(baseline: TorchattackBaseline, surrogates: Surrogates, images: Tensor) -> None:
    targets = torch.tensor([0, 1, 8])
    targeted = replace(surrogates, goals=Goals(surrogates.goals.labels, targets))
    found = baseline(targeted, images, KEY)
    before, after = (entropy(surrogates, each, targets) for each in (images, found))
    assert (after < before - 0.2).all()


@with_baselines("SSA", "AutoAttack")
def test_neither_batch_mates_nor_global_generators_change_a_bit(
    baseline: ExternalBaseline, surrogates: Surrogates, images: Tensor
) -> None:
    torch.manual_seed(1)
    together = baseline(surrogates, images, KEY)
    torch.manual_seed(2)
    numpy.random.seed(2)
    random.seed(2)
    for at in (2, 0):
        alone, key = only(surrogates, at)
        assert torch.equal(baseline(alone, images[at : at + 1], key), together[at : at + 1])


@with_every_baseline
def test_global_generators_are_left_alone(baseline: ExternalBaseline, surrogates: Surrogates, images: Tensor) -> None:
    alone, key = only(surrogates, 0)
    before = state()
    baseline(alone, images[:1], key)
    assert state() == before


def test_global_generators_are_left_alone_by_a_failure() -> None:
    def draw_and_fail() -> float:
        return (torch.rand(1).item() + numpy.random.rand() + random.random()) / 0

    before = state()
    with pytest.raises(ZeroDivisionError), seed_generators(0, "a", torch.device("cpu")):
        draw_and_fail()
    assert state() == before


@with_baselines("DI", "SSA")
def test_draws_belong_to_the_seed_and_the_image(
    baseline: ExternalBaseline, surrogates: Surrogates, images: Tensor
) -> None:
    if isinstance(baseline, TI):
        pytest.skip("it draws nothing")
    alone, _ = only(surrogates, 0)
    first, *others = (baseline(alone, images[:1], key) for key in (RandomKey(0, ("a",), 0), RandomKey(1, ("a",), 0)))
    others.append(baseline(alone, images[:1], RandomKey(0, ("z",), 0)))
    assert all(not torch.equal(first, other) for other in others)


@with_every_baseline
def test_no_gradient_is_kept_and_no_word_said(
    baseline: ExternalBaseline, surrogates: Surrogates, images: Tensor, capfd: pytest.CaptureFixture[str]
) -> None:
    alone, key = only(surrogates, 0)
    with torch.no_grad():
        baseline(alone, images[:1], key)
    assert all(parameter.grad is None for each in surrogates.classifiers for parameter in each.network.parameters())  # type: ignore[attr-defined]
    assert capfd.readouterr() == ("", "")


DIRECT: list[tuple[TorchattackBaseline, Callable[[nn.Module], Any]]] = [
    (
        DI(epsilon=8 / 255, steps=4, step_size=3 / 255, decay=0.9, resize_rate=1.2, diversity_prob=0.7),
        lambda network: torchattack.DIFGSM(network, eps=8 / 255, steps=4, alpha=3 / 255, decay=0.9,
                                           resize_rate=1.2, diversity_prob=0.7),
    ),
    (
        DI(epsilon=8 / 255, steps=4, resize_rate=0.9, diversity_prob=1.0),
        lambda network: torchattack.DIFGSM(network, eps=8 / 255, steps=4),
    ),
    (
        BSR(epsilon=8 / 255, steps=3, num_scale=4, num_block=3),
        lambda network: torchattack.BSR(network, eps=8 / 255, steps=3, num_scale=4),
    ),
    (
        TI(epsilon=8 / 255, steps=4, decay=0.0, kernel_len=7),
        lambda network: torchattack.TIFGSM(network, eps=8 / 255, steps=4, kern_len=7),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("baseline", "direct"), DIRECT, ids=["DI", "DI-shrinking", "BSR", "TI-without-momentum"])
def test_the_library_itself_gives_the_same(
    baseline: TorchattackBaseline, direct: Callable[[nn.Module], Any], surrogates: Surrogates, images: Tensor
) -> None:
    alone, key = only(surrogates, 1)
    seeded("b")
    expected = direct(Averaged(surrogates.classifiers))(images[1:2], torch.tensor(LABELS[1:2]))
    torch.testing.assert_close(baseline(alone, images[1:2], key), expected, rtol=0, atol=1e-7)


Gradient = Callable[[Tensor], Tensor]


def naive_momentum(gradient: Gradient, image: Tensor, epsilon: float, steps: int) -> Tensor:
    """Algorithm 1 of Dong et al. (2018) with decay 1, written from the paper."""
    point, accumulated = image, torch.zeros_like(image)
    for _ in range(steps):
        slope = gradient(point)
        accumulated = accumulated + slope / slope.abs().mean()
        point = (point + epsilon / steps * accumulated.sign()).clamp(image - epsilon, image + epsilon).clamp(0, 1)
    return point


def slope_of(network: Callable[[Tensor], Tensor], label: int, point: Tensor) -> Tensor:
    leaf = point.detach().requires_grad_()
    logits = network(leaf)
    loss = nn.functional.cross_entropy(logits, torch.tensor([label] * len(logits)))
    return torch.autograd.grad(loss, leaf)[0]


def mostly_equal(found: Tensor, expected: Tensor) -> bool:
    """Equal but for pixels where rounding turned the sign of a value that is nearly zero."""
    return float(((found - expected).abs() < 1e-6).float().mean()) > 0.995


def test_translation_invariance_smooths_each_gradient_before_the_momentum(
    surrogates: Surrogates, images: Tensor
) -> None:
    network = Averaged(surrogates.classifiers)
    kernel = torch.from_numpy(torchattack.TIFGSM.gkern(5, 3))

    def smoothed(point: Tensor) -> Tensor:
        padded = nn.functional.pad(slope_of(network, 3, point), [2] * 4)
        windows = padded.unfold(2, 5, 1).unfold(3, 5, 1)
        return (windows * kernel).sum((4, 5))

    alone, key = only(surrogates, 0)
    found = TI(epsilon=8 / 255, steps=4, kernel_len=5)(alone, images[:1], key)
    assert mostly_equal(found, naive_momentum(smoothed, images[:1], 8 / 255, 4))


def test_spectrum_simulation_averages_gradients_before_the_momentum(surrogates: Surrogates, images: Tensor) -> None:
    spectrum = SpectrumSimulation(Averaged(surrogates.classifiers), 1, 0.5, 8 / 255)

    def average(point: Tensor) -> Tensor:
        return torch.stack([slope_of(spectrum, 3, point) for _ in range(3)]).mean(0)

    alone, key = only(surrogates, 0)
    found = SSA(epsilon=8 / 255, steps=3, num_spectrum=3)(alone, images[:1], key)
    seeded("a")
    assert mostly_equal(found, naive_momentum(average, images[:1], 8 / 255, 3))


def test_spectra_are_the_librarys_where_it_has_them() -> None:
    image = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(5)
    expected = torchattack.SSA(nn.Identity(), eps=8 / 255, rho=0.3).transform(image)
    torch.manual_seed(5)
    torch.testing.assert_close(SpectrumSimulation(nn.Identity(), 1, 0.3, 8 / 255)(image), expected, rtol=0, atol=1e-4)


def test_an_image_whose_gradient_vanishes_stays(images: Tensor) -> None:
    flat = Surrogates([lambda shown: 0 * shown.mean((2, 3))], CrossEntropy(), Goals.of([0], [None]))
    for baseline in TRANSFER:
        assert torch.equal(baseline(flat, images[:1], RandomKey(0, ("a",), 0)), images[:1])


@pytest.mark.heavy
def test_autoattack_turns_images_or_leaves_them(surrogates: Surrogates, images: Tensor) -> None:
    network = Averaged(surrogates.classifiers)
    found = AutoAttack(steps=10, attacks=("apgd-dlr",))(surrogates, images, KEY)
    assert (network(found).argmax(1) != surrogates.goals.labels).all()
    assert torch.equal(AutoAttack(epsilon=1e-6, steps=2, queries=3)(surrogates, images, KEY), images)
    wrong = replace(surrogates, goals=Goals.of([4, 4, 4], [None] * 3))
    assert torch.equal(AutoAttack()(wrong, images, KEY), images)


def test_autoattack_asks_square_so_many_questions(images: Tensor) -> None:
    """Square makes a prediction and two losses for each proposal, and a few calls besides."""
    asked = []

    def constant(shown: Tensor) -> Tensor:
        asked.append(len(shown))
        return torch.tensor([[3.0, 2.0, 1.0]]) + 0 * shown.mean((2, 3))

    sure = Surrogates([constant], CrossEntropy(), Goals.of([0], [None]))
    for queries in (5, 20):
        asked.clear()
        AutoAttack(attacks=("square",), queries=queries)(sure, images[:1], RandomKey(0, ("a",), 0))
        assert 3 * queries < sum(asked) <= 3 * queries + 10


def test_autoattack_refuses_what_it_cannot_do(surrogates: Surrogates, images: Tensor) -> None:
    targeted = replace(surrogates, goals=Goals.of(LABELS, [0, 1, 2]))
    with pytest.raises(RecipeError, match="baseline 'autoattack' cannot be targeted"):
        AutoAttack()(targeted, images, KEY)
    two = replace(surrogates, classifiers=[lambda shown: shown.mean((2, 3))[:, :2]])
    with pytest.raises(RecipeError, match="needs three classes; leave it out of attacks"):
        AutoAttack().check(two, images)
    AutoAttack(attacks=("apgd-ce",)).check(two, images)


def test_a_rate_that_resizes_nothing_is_refused(surrogates: Surrogates, images: Tensor) -> None:
    with pytest.raises(RecipeError, match=r"resize_rate 1\.01 does not change a side of 64 pixels"):
        DI(resize_rate=1.01).check(surrogates, images)


@pytest.mark.parametrize(
    ("baseline", "library"),
    [(DI(), "torchattack"), (TI(), "scipy"), (AutoAttack(), "art"), (AutoAttack(), "multiprocess")],
    ids=str,
)
def test_a_missing_library_is_named(
    baseline: ExternalBaseline, library: str, surrogates: Surrogates, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(
        UserError, match=rf"needs {library}, which is not installed: pip install 'attnshift\[baselines\]'"
    ):
        baseline.check(surrogates, images)


@pytest.mark.parametrize(
    ("target", "options", "complaint"),
    [
        ("torchattack_baselines:TI", {"kernel_len": 4}, "kernel_len: Value error, must be odd"),
        ("torchattack_baselines:DI", {"diversity_prob": 1.5}, "diversity_prob"),
        ("torchattack_baselines:SSA", {"sigma": -1}, "sigma"),
        ("torchattack_baselines:BSR", {"rotation": 3}, "rotation: Unexpected keyword argument"),
        ("art_baselines:AutoAttack", {"attacks": []}, "attacks"),
        ("art_baselines:AutoAttack", {"attacks": ["fab"]}, "attacks.0"),
    ],
)
def test_options_are_checked(target: str, options: dict[str, Any], complaint: str) -> None:
    table = Table("baseline", {"it": Entry("", "", f"attnshift.baselines.external.{target}")})
    with pytest.raises(RecipeError, match=f"baseline 'it': {complaint}"):
        build(table, "it", options)
    assert build(table, "it", {}) is not None
