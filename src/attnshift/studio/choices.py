"""AttackChoices of a person as a recipe, and the ranges that the page offers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from attnshift.errors import RecipeError
from attnshift.losses import TERMS
from attnshift.recipes.presets import preset_names, preset_summary
from attnshift.recipes.reading import load_latent_recipe, parse_recipe
from attnshift.recipes.schema import Recipe

__all__ = ["LIMITS", "NO_BUDGET", "AttackChoices", "Knob", "Limits", "chosen_recipe", "knobs", "presets", "template_of"]

NO_BUDGET = "none"


@dataclass(frozen=True)
class Limits:
    """Range of the limits that a budget of a metric can have, and the usual one."""

    low: float
    high: float
    step: float
    usual: float


LIMITS = {
    "ssim": Limits(0.8, 0.995, 0.005, 0.95),
    "haarpsi": Limits(0.7, 0.995, 0.005, 0.9),
    "l2": Limits(0.5, 20.0, 0.5, 3.0),
    "linf": Limits(0.01, 0.2, 0.005, 0.03),
    "lpips-squeeze": Limits(0.01, 0.3, 0.01, 0.05),
    "lpips-alex": Limits(0.01, 0.3, 0.01, 0.05),
    "dists": Limits(0.01, 0.3, 0.01, 0.05),
}
"""Metrics of a budget that the page offers."""


@dataclass(frozen=True)
class Knob:
    """A slider for the weight of the term ``name``.

    ``offered`` is false where the term cannot be weighed against the preset's own, which have other
    units.
    """

    name: str
    about: str
    weight: float
    highest: float
    offered: bool

    @property
    def step(self) -> float:
        return self.highest / 60


@dataclass(frozen=True, kw_only=True)
class AttackChoices:
    """All that a person chooses beside the image. ``terms`` maps names to weights."""

    preset: str
    class_name: str
    prompt: str
    metric: str = NO_BUDGET
    limit: float = 0.0
    iterations: int
    classification: float
    terms: Mapping[str, float]
    seed: int = 0
    masked: bool = False
    """Change only what the mask covers."""


def presets() -> dict[str, str]:
    """Name of each preset that the page offers -> what it is.

    >>> "fast" in presets()
    True
    """
    return {name: preset_summary(name) for name in preset_names()}


def knobs(recipe: Recipe) -> tuple[Knob, ...]:
    """A slider for each term, at the weight that ``recipe`` gives it.

    Shares of the classification's pull go up to 3. Where ``recipe`` has terms and does not count in
    shares, their weights go up to three times what they are, and no other term is offered.
    """
    shares = recipe.optimiser.balance == "share" or not recipe.terms
    moves = recipe.optimiser.learning_rate > 0
    made = []
    for name, entry in TERMS.items():
        section = recipe.terms.get(name)
        weight = 0.0 if section is None else section.weight
        highest = max(3.0, 1.5 * weight) if shares else 3 * weight or 1.0
        made.append(Knob(name, entry.summary, weight, highest, moves and (shares or section is not None)))
    return tuple(made)


def template_of(prompt: str, class_name: str) -> str:
    """The template of a recipe that gives ``prompt`` for ``class_name``; a ``RecipeError`` where
    the prompt does not name the class.

    >>> template_of("a photo of a red mug on a table", "mug")
    'a photo of a red {} on a table'
    """
    text = " ".join(prompt.split())
    found = re.search(rf"(?<!\w){re.escape(class_name)}(?!\w)", text) if class_name else None
    if found is None:
        raise RecipeError(f"the prompt does not name the class; write '{class_name}' in it, as in 'a photo of a …'")
    if "{}" in text:
        raise RecipeError("the prompt holds {}, which stands for the class in a recipe; leave it out")
    return text[: found.start()] + "{}" + text[found.end() :]


def chosen_recipe(choices: AttackChoices) -> Recipe:
    """The preset with all that was chosen in its place; a ``RecipeError`` where that does not fit
    together.

    Terms that a preset without any gets count in shares. A budget switches an early finish off. A
    mask is one that the change of the image keeps to.
    """
    preset = load_latent_recipe(choices.preset)
    values = preset.model_dump(mode="json")
    template = template_of(choices.prompt, choices.class_name)
    if preset.prompt.prompt(choices.class_name).text != choices.prompt:
        values["prompt"]["template"] = template
    values["seed"] = choices.seed
    values["classification"]["weight"] = choices.classification
    values["optimiser"]["iterations"] = choices.iterations
    _put_terms(values, preset, choices.terms)
    _put_budget(values, preset, choices)
    if choices.masked:
        values["mask"] |= {"source": "given", "paste_back": True}
    recipe = parse_recipe(values, choices.preset)
    if recipe == preset:
        return preset
    return recipe.model_copy(update={"name": f"{choices.preset}-studio"})


def _put_terms(values: dict[str, Any], preset: Recipe, weights: Mapping[str, float]) -> None:
    for name, weight in weights.items():
        if name in values["terms"]:
            values["terms"][name]["weight"] = weight
        elif weight > 0:
            values["terms"][name] = {"weight": weight}
    if values["terms"] and not preset.terms:
        values["optimiser"]["balance"] = "share"


def _put_budget(values: dict[str, Any], preset: Recipe, choices: AttackChoices) -> None:
    if choices.metric == NO_BUDGET:
        values["budget"] = {"metric": NO_BUDGET, "limit": 0.0, "also": {}}
        return
    if (choices.metric, choices.limit) == (preset.budget.metric, preset.budget.limit):
        return
    values["budget"] = {"metric": choices.metric, "limit": choices.limit, "also": {}}
    values["finish"]["early"] = False
