"""A recipe turned into the objects that carry it out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from attnshift.attack.budget import budget_of
from attnshift.classifiers.classifier import Classifier
from attnshift.diffusion import RECONSTRUCTIONS
from attnshift.diffusion.inversion import invert
from attnshift.diffusion.reconstruction import Reconstruction
from attnshift.ensemble import RULES, TRANSFORMS
from attnshift.ensemble.backward import BackwardPass, FeatureLoss
from attnshift.ensemble.expectation import Expectation
from attnshift.ensemble.fusion import FusionRule
from attnshift.ensemble.surrogates import Criterion, Surrogates
from attnshift.errors import RecipeError
from attnshift.losses import CLASSIFICATION, TERMS
from attnshift.losses.objective import LossTerm, Objective, StatefulTerm, WeightedTerm
from attnshift.losses.schedules import Schedule, schedule_of
from attnshift.metrics.budget import Budget
from attnshift.recipes.schema import BudgetSection, ClassificationSection, FeaturesSection, Recipe, TermSection
from attnshift.registry import build, check, load
from attnshift.types import Goals, RandomKey

if TYPE_CHECKING:
    from attnshift.diffusion.stand_in import StandIn

__all__ = ["Method", "check_guidance", "stand_in_of"]


@dataclass(frozen=True)
class Method:
    """A recipe with the objects that carry it out."""

    recipe: Recipe
    reconstruction: Reconstruction
    objective: Objective
    criterion: Criterion
    rule: FusionRule
    expectation: Expectation
    features: FeatureLoss | None
    classification: Schedule
    """Factor on ``recipe.classification.weight``."""
    pace: Schedule
    """Factor on ``recipe.optimiser.learning_rate``."""
    budget: Budget | None = None
    edge: Budget | None = None
    """The naturalness at which terms that hold back reach their shares; None without balance."""
    stand_in: StandIn | None = None
    """Decoder for the gradient in the place of the pipeline's own."""
    invert: Callable[..., tuple[Tensor, ...]] = invert

    @classmethod
    def of(
        cls,
        recipe: Recipe,
        given: Mapping[str, LossTerm | StatefulTerm] | None = None,
        rule: FusionRule | None = None,
        places: Mapping[str, str] = {},
    ) -> Method:
        """Build everything that ``recipe`` names, or raise ``RecipeError``. A term of weight 0 is
        switched off.

        ``given`` terms and a given ``rule`` are objects in place of what the recipe names, or
        beside it. The weight and the schedule of a given term are those of its section in the
        recipe; without a section its weight is 1. A model that ``recipe`` names is loaded from
        where ``places`` says, if it says so.
        """
        logits = recipe.classification
        _check_joint(recipe)
        given = given or {}
        sections = recipe.terms | {name: TermSection(weight=1.0) for name in given if name not in recipe.terms}
        terms = {
            name: WeightedTerm(_term(name, section, given), section.weight, schedule_of(section.schedule, name))
            for name, section in sections.items()
            if section.weight
        }
        budget = budget_of(recipe.budget)
        return cls(
            recipe,
            build(RECONSTRUCTIONS, recipe.reconstruction.method, recipe.reconstruction.options, ("method",)),
            Objective(terms),
            build(CLASSIFICATION, logits.loss, logits.options, ClassificationSection.model_fields),
            build(RULES, logits.fusion, logits.fusion_options) if rule is None else check(RULES, "given", rule),
            Expectation(
                recipe.expectation.draws,
                recipe.expectation.every,
                {
                    name: build(TRANSFORMS, name, section.options)
                    for name, section in recipe.expectation.transforms.items()
                },
            ),
            _features(recipe.features),
            schedule_of(logits.schedule, "classification"),
            schedule_of(recipe.optimiser.schedule, "optimiser"),
            budget,
            None if recipe.optimiser.balance == "none" else budget or budget_of(_EDGE),
            stand_in_of(recipe, places),
        )

    def surrogates(self, classifiers: Sequence[Classifier], goals: Goals, images: Tensor, key: RandomKey) -> Surrogates:
        """The ``classifiers`` as the attack on ``images`` [batch,3,height,width] sees them, without
        its views.

        Raises ``ModelError`` where the recipe asks for what a network does not have.
        """
        section, backward = self.recipe.classification, ()
        decay, leak = section.skip_decay, section.relu_leak
        if self.features is not None or decay != 1.0 or leak:
            backward = tuple(
                BackwardPass.of(each, decay, leak, self.features, images, goals, key) for each in classifiers
            )
        precision = classifiers[0].precision
        return Surrogates(classifiers, self.criterion, goals, precision=precision, backward=backward, key=key)

    @property
    def reads_interference(self) -> bool:
        steered = bool(self.recipe.path.boundary)
        return self.objective.reads_interference or self.criterion.reads_interference or steered


def stand_in_of(recipe: Recipe, places: Mapping[str, str] = {}) -> StandIn | None:
    """Tiny decoder that ``recipe`` names; None if the gradient goes back through the pipeline's
    own."""
    if recipe.diffusion.decoder == "own":
        return None
    # Its import loads diffusers.
    from attnshift.diffusion.stand_in import load_stand_in

    source = recipe.diffusion.decoder_source
    return load_stand_in(places.get(source, source))


_EDGE = BudgetSection(metric="ssim", limit=0.95)
"""The edge of a recipe that states no budget."""


def _features(section: FeaturesSection) -> FeatureLoss | None:
    return FeatureLoss(section.share, section.layer, section.draws, section.dropped) if section.share else None


def _term(name: str, section: TermSection, given: Mapping[str, LossTerm | StatefulTerm]) -> LossTerm | StatefulTerm:
    if name not in given:
        return build(TERMS, name, section.options, TermSection.model_fields)
    if section.options:
        raise RecipeError(f"term '{name}' is a given object; set its options there, and not in the recipe")
    return check(TERMS, name, given[name])


def _check_joint(recipe: Recipe) -> None:
    for name, section in recipe.terms.items():
        if section.options.get("tokens") == "joint" and not recipe.prompt.names_both:
            raise RecipeError(
                f"term '{name}' reads tokens 'joint', but prompt.template does not name both; "
                "give one that holds {interference}, such as 'a photo of a {} and a {interference}'"
            )


def check_guidance(recipe: Recipe, name: str, guided: bool) -> None:
    """Raise ``RecipeError`` if ``recipe`` needs classifier-free guidance and the pipeline ``name``,
    which is not ``guided``, takes none."""
    if guided:
        return
    method = recipe.reconstruction.method
    if load(RECONSTRUCTIONS, method).guided:
        raise RecipeError(
            f"reconstruction.method '{method}' needs a negative prompt, and {name} takes none: its guidance is "
            "distilled; choose 'offset'"
        )
    if recipe.path.boundary:
        raise RecipeError(
            f"path.boundary needs predictions without a prompt, and {name} has none: its guidance is distilled; set it "
            "to 0"
        )
    if recipe.diffusion.guidance != 1:
        raise RecipeError(
            f"diffusion.guidance is {recipe.diffusion.guidance:g}, and {name} takes no negative prompt: its guidance "
            "is distilled; set it to 1"
        )
