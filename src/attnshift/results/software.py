"""Versions of the software that decides what a run writes: ours, torch,
and every plug-in that the run names."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version

from attnshift._version import __version__
from attnshift.baselines import BASELINES
from attnshift.classifiers import SOURCES
from attnshift.defences import DEFENCES
from attnshift.defences.names import parts_of
from attnshift.diffusion import BACKBONES
from attnshift.ensemble import RULES, TRANSFORMS
from attnshift.losses import TERMS
from attnshift.recipes.schema import BaselineRecipe, Recipe
from attnshift.registry import Table

__all__ = ["software"]


def software(recipe: Recipe | BaselineRecipe, pipeline: str, surrogates: tuple[str, ...]) -> dict[str, str]:
    """Version of each package that changes the last bits or the content of files, by its name."""
    used = [*_in_recipe(recipe), (BACKBONES, pipeline.partition(":")[0]), *_in_names(surrogates)]
    plugins = {table[name].package for table, name in used if name in table}
    return {"attnshift": __version__, "torch": version("torch")} | {
        package.rpartition(" ")[0]: package.rpartition(" ")[2] for package in sorted(plugins) if package
    }


def _in_recipe(recipe: Recipe | BaselineRecipe) -> Iterator[tuple[Table, str]]:
    if isinstance(recipe, BaselineRecipe):
        yield BASELINES, recipe.baseline.attack
        yield RULES, str(recipe.baseline.options.get("fusion", ""))
        return
    yield RULES, recipe.classification.fusion
    yield from ((TERMS, name) for name, section in recipe.terms.items() if section.weight)
    yield from ((TRANSFORMS, name) for name in recipe.expectation.transforms)


def _in_names(classifiers: tuple[str, ...]) -> Iterator[tuple[Table, str]]:
    for name in classifiers:
        *defences, classifier = parts_of(name)
        yield from ((DEFENCES, defence) for defence in defences)
        yield SOURCES, classifier.partition(":")[0]
