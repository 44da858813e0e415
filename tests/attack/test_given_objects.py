"""Terms and rules of the caller's own, given as objects."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

import pytest
import torch
from torch import Tensor

from attnshift import show
from attnshift.attack.latent_attack import LatentAttack
from attnshift.attack.method import Method
from attnshift.ensemble.fusion import Uniform
from attnshift.errors import RecipeError
from attnshift.recipes.reading import load_latent_recipe
from attnshift.sizes import Size
from attnshift.telemetry import Iteration, Telemetry

if TYPE_CHECKING:
    from attnshift.classifiers.classifier import Classifier
    from attnshift.diffusion.stable_diffusion import StableDiffusion
    from attnshift.ensemble.surrogates import Surrogates
    from attnshift.telemetry import Event
    from attnshift.types import Fused, Observation, Site


@dataclass(frozen=True)
class Redness:
    """Mean of the red channel; counts how often it was asked."""

    reads_interference: ClassVar[bool] = False
    calls: list[float] = field(default_factory=list)

    def sites(self, available: Iterable[Site], latents: Size) -> tuple[Site, ...]:
        return ()

    def __call__(self, observation: Observation) -> Tensor:
        self.calls.append(observation.progress)
        return observation.adversarial.images[:, 0].float().mean((1, 2))


@dataclass(frozen=True)
class Counting:
    """The uniform rule; counts how often it was asked."""

    calls: list[int] = field(default_factory=list)

    def __call__(self, surrogates: Surrogates, points: Tensor, state: Tensor | None = None) -> Fused:
        self.calls.append(len(points))
        return Uniform()(surrogates, points, state)


@dataclass(frozen=True)
class Recorder:
    """A consumer that keeps every event."""

    events: list[Event]
    iterations: bool = True

    def __call__(self, event: Event) -> None:
        self.events.append(event)

    def close(self) -> None:
        """Nothing is held."""


def test_given_objects_take_part_in_the_attack(backbone: StableDiffusion, classifiers: list[Classifier]) -> None:
    recipe = load_latent_recipe("quick", ["optimiser.iterations=2"])
    term, rule = Redness(), Counting()
    attack = LatentAttack(backbone, classifiers[:1], recipe, terms={"redness": term}, rule=rule)
    result = attack(torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)), [1], ["mug"])
    assert result.images.shape == (1, 3, 64, 64)
    assert term.calls
    assert rule.calls


def test_an_attack_is_followed_and_tells_its_history(
    backbone: StableDiffusion, classifiers: list[Classifier], capsys: pytest.CaptureFixture[str]
) -> None:
    named = replace(classifiers[0], name="<b>first</b>")
    recipe = load_latent_recipe("quick", ["optimiser.iterations=1", "finish.early=false"])
    seen: list[Event] = []
    attack = LatentAttack(backbone, [named], recipe, batch=1, progress=True, telemetry=Telemetry([Recorder(seen)]))
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    result = attack(images, [1, 1], ["mug", "mug"])

    assert [len(each.losses) for each in result.history] == [1, 1]
    assert [event.iteration for event in seen if isinstance(event, Iteration)] == [0, 1, 0, 1]
    assert [event.batch for event in seen if isinstance(event, Iteration)] == [0, 0, 1, 1]
    margins = [event.margins["<b>first</b>"] for event in seen if isinstance(event, Iteration) and event.losses]
    assert margins == [margin for each in result.history for margin in each.margins]
    assert [each.iteration for each in result.history] == result.iterations.tolist()

    assert repr(result) == f"AttackResult(2 images of 64 x 64, every surrogate fooled in {result.fooled.sum()})"
    page = result._repr_html_()
    assert page.count("data:image/png") == 4
    assert "<b>" not in page
    assert "attack" in capsys.readouterr().err
    assert show(result, scale=1).size == (5 * 68, 2 * 68)


def test_the_recipe_sets_weight_and_schedule_of_a_given_term() -> None:
    term = Redness()
    alone = Method.of(load_latent_recipe("quick"), {"redness": term}).objective.terms["redness"]
    assert (alone.term, alone.weight, alone.at(0.5)) == (term, 1.0, 1.0)
    recipe = load_latent_recipe("quick", ["terms.redness.weight=2.0"])
    assert Method.of(recipe, {"redness": term}).objective.terms["redness"].weight == 2.0
    replaced = Method.of(load_latent_recipe("quick", ["terms.variance.weight=3.0"]), {"variance": term})
    assert replaced.objective.terms["variance"].term == term


def test_what_cannot_be_meant_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"^term 'mine' lacks reads_interference$"):
        Method.of(load_latent_recipe("quick"), {"mine": object()})  # type: ignore[dict-item]
    with pytest.raises(RecipeError, match=r"^fusion rule 'given' lacks __call__\(surrogates, points, state\)$"):
        Method.of(load_latent_recipe("quick"), rule=object())  # type: ignore[arg-type]
    recipe = load_latent_recipe("quick", ["terms.mine.weight=2.0", "terms.mine.colour=red"])
    with pytest.raises(RecipeError, match="term 'mine' is a given object; set its options there"):
        Method.of(recipe, {"mine": Redness()})
