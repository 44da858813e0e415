"""Natural-looking adversarial images by steering a diffusion model's attention.

What this package exports is its public interface; docs/versions.md says how stable each part is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attnshift.lazy import lazy_names

if TYPE_CHECKING:
    from attnshift._version import __version__
    from attnshift.attack.interface import AttackResult
    from attnshift.attack.latent_attack import LatentAttack
    from attnshift.attack.pixel_attack import PixelAttack
    from attnshift.baselines.kinds import Baseline
    from attnshift.classifiers import load_classifier
    from attnshift.classifiers.classifier import Classifier
    from attnshift.defences.defended import Defence, Defended
    from attnshift.defences.names import load_defended
    from attnshift.diffusion import load_pipeline
    from attnshift.diffusion.backbone import Backbone
    from attnshift.ensemble.fusion import FusionRule
    from attnshift.ensemble.surrogates import Surrogates
    from attnshift.ensemble.transforms import Transform
    from attnshift.errors import AttnshiftError, UnavailableError, UserError
    from attnshift.execution.coordinate import RunOptions, attack_folder
    from attnshift.execution.settings import AttackSettings
    from attnshift.judging.verdicts import evaluate_run
    from attnshift.losses.objective import LossTerm
    from attnshift.recipes.reading import load_recipe
    from attnshift.recipes.schema import BaselineRecipe, Recipe
    from attnshift.registry import STRICT
    from attnshift.report.page import write_report
    from attnshift.report.showing import show
    from attnshift.results.run import open_run
    from attnshift.types import Fused, Observation, Site

__all__ = [
    "STRICT",
    "AttackResult",
    "AttackSettings",
    "AttnshiftError",
    "Backbone",
    "Baseline",
    "BaselineRecipe",
    "Classifier",
    "Defence",
    "Defended",
    "Fused",
    "FusionRule",
    "LatentAttack",
    "LossTerm",
    "Observation",
    "PixelAttack",
    "Recipe",
    "RunOptions",
    "Site",
    "Surrogates",
    "Transform",
    "UnavailableError",
    "UserError",
    "__version__",
    "attack_folder",
    "evaluate_run",
    "load_classifier",
    "load_defended",
    "load_pipeline",
    "load_recipe",
    "open_run",
    "show",
    "write_report",
]

_HOMES = {
    "STRICT": "attnshift.registry",
    "AttackResult": "attnshift.attack.interface",
    "AttackSettings": "attnshift.execution.settings",
    "AttnshiftError": "attnshift.errors",
    "Backbone": "attnshift.diffusion.backbone",
    "Baseline": "attnshift.baselines.kinds",
    "BaselineRecipe": "attnshift.recipes.schema",
    "Classifier": "attnshift.classifiers.classifier",
    "Defence": "attnshift.defences.defended",
    "Defended": "attnshift.defences.defended",
    "Fused": "attnshift.types",
    "FusionRule": "attnshift.ensemble.fusion",
    "LatentAttack": "attnshift.attack.latent_attack",
    "LossTerm": "attnshift.losses.objective",
    "Observation": "attnshift.types",
    "PixelAttack": "attnshift.attack.pixel_attack",
    "Recipe": "attnshift.recipes.schema",
    "RunOptions": "attnshift.execution.coordinate",
    "Site": "attnshift.types",
    "Surrogates": "attnshift.ensemble.surrogates",
    "Transform": "attnshift.ensemble.transforms",
    "UnavailableError": "attnshift.errors",
    "UserError": "attnshift.errors",
    "__version__": "attnshift._version",
    "attack_folder": "attnshift.execution.coordinate",
    "evaluate_run": "attnshift.judging.verdicts",
    "load_classifier": "attnshift.classifiers",
    "load_defended": "attnshift.defences.names",
    "load_pipeline": "attnshift.diffusion",
    "load_recipe": "attnshift.recipes.reading",
    "open_run": "attnshift.results.run",
    "show": "attnshift.report.showing",
    "write_report": "attnshift.report.page",
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
