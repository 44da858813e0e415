"""Any network from Python is a classifier, once two random images have shown that it is one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from attnshift import LatentAttack, load_classifier
from attnshift.classifiers.classifier import Classifier
from attnshift.classifiers.probe import check_attackable
from attnshift.errors import ModelError
from later import later

if TYPE_CHECKING:
    from attnshift.diffusion.stable_diffusion import StableDiffusion

outputs = later("transformers.modeling_outputs")

HALF = ((0.5,) * 3, (0.25,) * 3)


class Linear(nn.Module):
    """Logits [batch,4] of images of 8 x 8, and then ``after`` them."""

    def __init__(self, after: Callable[[Tensor], Any] = lambda logits: logits, classes: int = 4):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.head = nn.Linear(192, classes)
        self.after = after

    def forward(self, images: Tensor) -> Any:
        return self.after(self.head(images.flatten(1)))


def wrap(network: nn.Module, **changes: Any) -> Classifier:
    return Classifier.wrap(network, **({"name": "mine", "size": 8, "mean": HALF[0], "std": HALF[1]} | changes))


def test_a_wrapped_network_is_a_classifier() -> None:
    names = ("ball", "mug", "donut", "tree")
    network = Linear().train()
    classifier = wrap(network, class_names=names, interpolation="bicubic", resized=10)
    assert (classifier.name, classifier.classes, classifier.class_names) == ("mine", 4, names)
    assert (classifier.preprocessing.size, classifier.preprocessing.resized) == ((8, 8), (10, 10))
    assert not network.training
    images = torch.rand(2, 3, 10, 10)
    assert torch.allclose(classifier(images), network((images[..., 1:-1, 1:-1] - 0.5) / 0.25))


def test_its_classes_are_counted() -> None:
    assert wrap(Linear(classes=7)).classes == 7


def test_wrapping_disturbs_nobodys_draws() -> None:
    network = Linear()
    state = torch.get_rng_state()
    wrap(network)
    assert torch.equal(torch.get_rng_state(), state)


def test_it_can_be_attacked(backbone: StableDiffusion) -> None:
    images = torch.rand(1, 3, 64, 64)
    attack = LatentAttack(backbone, [wrap(Linear(), class_names=("ball", "mug", "donut", "tree"))], "quick")
    changed = attack.method.recipe.model_copy(
        update={"optimiser": attack.method.recipe.optimiser.model_copy(update={"iterations": 1})}
    )
    result = LatentAttack(backbone, attack.classifiers, changed)(images, [1])
    assert result.margins.shape == (1, 1)


@pytest.mark.parametrize(
    ("after", "message"),
    [
        (lambda logits: logits.softmax(1), "gives probabilities; let it return logits"),
        (lambda logits: (logits, logits), "gives a tuple instead of logits"),
        (
            lambda logits: outputs.ImageClassifierOutput(logits=logits),
            "gives a ImageClassifierOutput instead of logits",
        ),
        (lambda logits: logits * torch.nan, "not finite"),
        (lambda logits: logits * 0, "the same logits for two different images"),
        (lambda logits: logits[:1].expand(2, -1), "the same logits for two different images"),
        (lambda logits: logits[:, :1], "knows fewer than two classes"),
        (lambda logits: logits[..., None, None], "gives (2, 4, 1, 1) for two images instead of logits (2, classes)"),
        (lambda logits: logits.mean(0), "gives (4,) for two images"),
    ],
)
def test_what_is_not_logits_is_refused_in_one_line(after: Callable[[Tensor], Any], message: str) -> None:
    with pytest.raises(ModelError) as caught:
        wrap(Linear(after))
    assert message in str(caught.value)
    assert str(caught.value).startswith("mine ")
    assert len(str(caught.value).splitlines()) == 1


class Raising(nn.Module):
    """A network whose author did not foresee these images."""

    def __init__(self, error: BaseException):
        super().__init__()
        self.error = error

    def forward(self, images: Tensor) -> Tensor:
        raise self.error


@pytest.mark.parametrize(
    "error",
    [
        AttributeError("no logits"),
        KeyError("logits"),
        MemoryError(),
        ZeroDivisionError("by zero"),
        NotImplementedError(),
    ],
    ids=repr,
)
def test_whatever_a_network_raises_is_one_line(error: BaseException) -> None:
    with pytest.raises(ModelError, match=r"^mine cannot take images \(2, 3, 8, 8\): \S") as caught:
        wrap(Raising(error))
    assert len(str(caught.value).splitlines()) == 1


def normed(**options: Any) -> nn.Module:
    network = nn.Sequential(nn.BatchNorm2d(3, **options), Linear())
    network[0].running_mean = None if options else torch.full((3,), 0.1)  # type: ignore[union-attr]
    return network


class AlwaysTraining(nn.Module):
    """Stays in training mode, as a network does that is frozen by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.network = normed()

    def train(self, mode: bool = True) -> AlwaysTraining:
        return self

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)


@pytest.mark.parametrize(
    "network", [normed(track_running_stats=False), AlwaysTraining()], ids=["no statistics", "train"]
)
def test_logits_that_depend_on_batch_mates_are_refused(network: nn.Module) -> None:
    with pytest.raises(
        ModelError, match=r"^mine gives an image other logits when another one stands beside it; let its"
    ):
        wrap(network)
    assert wrap(normed()).classes == 4


def test_a_network_that_draws_at_random_is_not_taken_for_that() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        assert wrap(Linear(lambda logits: logits + torch.randn_like(logits))).classes == 4


@pytest.mark.parametrize(
    ("after", "message"),
    [
        (torch.detach, "no gradient passes it; take out argmax"),
        (lambda logits: 5.0 * nn.functional.one_hot(logits.argmax(1), 4), "no gradient passes it"),
        (lambda logits: torch.from_numpy(logits.detach().numpy()), "no gradient passes it"),
        (lambda logits: logits.mul(100).round(), "its gradient at an image is zero; take out what rounds"),
        (lambda logits: logits + (logits * 0).abs().sqrt(), "its gradient at an image is not finite"),
    ],
    ids=["detach", "argmax", "numpy", "round", "root of zero"],
)
def test_what_passes_no_gradient_is_a_judge_and_no_surrogate(
    backbone: StableDiffusion, after: Callable[[Tensor], Any], message: str
) -> None:
    classifier = wrap(Linear(after))
    with pytest.raises(ModelError, match=rf"^mine cannot be attacked: {message}"):
        LatentAttack(backbone, [classifier])


def test_surrogates_that_disagree_about_their_classes(backbone: StableDiffusion) -> None:
    surrogates = [wrap(Linear(), name="four"), wrap(Linear(classes=7), name="seven")]
    with pytest.raises(ModelError, match=r"do not have the same classes: four has 4, seven has 7$"):
        LatentAttack(backbone, surrogates)


@pytest.mark.parametrize("name", ["random:test_resnet", "random:test_vit", "lab:mobilevit"])
def test_what_passes_a_gradient_can_be_attacked(name: str) -> None:
    check_attackable(load_classifier(name))


def test_logits_of_a_log_softmax_are_logits() -> None:
    assert wrap(Linear(lambda logits: logits.log_softmax(1))).classes == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_names": ("ball", "mug")}, "gives (2, 4) for two images instead of logits (2, 2)"),
        ({"size": 16}, "cannot take images (2, 3, 16, 16)"),
        ({"std": (0.2, 0.2, 0)}, "std above 0"),
        ({"mean": (0.5,)}, "must be three values"),
        ({"interpolation": "lanczos"}, "'lanczos' is not one of nearest, bilinear, bicubic"),
        ({"size": 0}, "at least 1 pixel"),
    ],
)
def test_what_cannot_be_meant_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError) as caught:
        wrap(Linear(), **changes)
    assert message in str(caught.value)


def test_every_source_is_probed() -> None:
    """timm's mixers start with a head of zeros, so that untrained ones see nothing at all."""
    with pytest.raises(ModelError, match="the same logits for two different images; are its weights loaded"):
        load_classifier("random:mixer_s32_224")
