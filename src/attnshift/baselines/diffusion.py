"""Attacks that edit images through a diffusion model. Options are read without torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import Field

from attnshift.baselines.options import ScaledOptions
from attnshift.ensemble import RULES
from attnshift.errors import RecipeError
from attnshift.registry import build
from attnshift.sizes import size_of

if TYPE_CHECKING:
    from attnshift.baselines.edits import Edit, EditInput
    from attnshift.diffusion.backbone import Backbone
    from attnshift.ensemble.fusion import FusionRule

__all__ = ["DiffusionBaseline", "PromptedBaseline", "Template", "check_negative_prompt"]


@dataclass(frozen=True)
class DiffusionBaseline(ScaledOptions, ABC):
    """Published attack that needs a diffusion model, and a prompt for each image.

    ``prepare`` does once whatever does not depend on how far the attack goes. What it returns is
    the attack on these images at any strength, with the control arm: strength 0. The fusion rule
    ``fusion`` computes the direction from the surrogates' gradients, by default from their mean
    logits.
    """

    flow: ClassVar[bool] = False
    """True for an attack on the velocity of a rectified flow, which other models do not predict."""
    fusion: str = "logits"
    """Name of a fusion rule, which makes one direction of the surrogates' gradients."""
    fusion_options: dict[str, Any] = field(default_factory=dict)
    """Options of the fusion rule."""

    @abstractmethod
    def prepare(self, given: EditInput) -> Edit:
        """The attack on the images of ``given``; random draws depend on its key alone."""

    def prompt(self, class_name: str) -> str:
        """The prompt of an image of that class; empty where the attack uses the empty one."""
        return ""

    @property
    def generates(self) -> bool:
        """True where images are made of noise: the control arm then is a twin, which stands in the
        place of the clean image."""
        return False

    @property
    def milder(self) -> Self | None:
        """The attack for images whose control arm breaks a budget already; None if there is
        none."""
        return None

    def check(self, given: EditInput) -> None:
        """Raise ``UserError`` if the attack cannot run on images of that size."""
        given.backbone.check_size(size_of(given.images))
        if self.flow:
            from attnshift.diffusion.flow import Flow

            path = given.backbone.noise_schedule(2, 1, size_of(given.images)).path
            self.check_path(given.backbone.name, isinstance(path, Flow))
        self.rule()(given.surrogates, given.images)

    def check_path(self, pipeline: str, flow: bool) -> None:
        """Raise ``RecipeError`` if the attack needs a rectified flow and ``pipeline``, which is a
        ``flow`` or not, is none."""
        if self.flow and not flow:
            raise RecipeError(
                f"{type(self).__name__} perturbs the velocity of a rectified flow, and {pipeline} predicts none; take "
                "a pipeline of Stable Diffusion 3 or FLUX.1, or lab-flow"
            )

    def rule(self) -> FusionRule:
        """The fusion rule, with its options."""
        return build(RULES, self.fusion, self.fusion_options)


Template = Annotated[str, Field(pattern=r"^[^{}]*\{\}[^{}]*$")]
"""Prompt in which ``{}`` stands for the class name."""


@dataclass(frozen=True)
class PromptedBaseline(DiffusionBaseline):
    """Attack whose prompt names the class of the image."""

    template: Template = "a photo of a {}"
    """Prompt; ``{}`` stands for the class name."""

    def prompt(self, class_name: str) -> str:
        return self.template.replace("{}", class_name)


def check_negative_prompt(backbone: Backbone, guidance: float, further: bool = False) -> None:
    """Raise ``RecipeError`` if the attack weights predictions without a prompt, by ``guidance`` or
    ``further``, and ``backbone`` has none: its guidance is distilled."""
    if not backbone.guided and (guidance != 1 or further):
        raise RecipeError(
            f"the attack guides by a negative prompt, and {backbone.name} takes none: its guidance is distilled; set "
            "`baseline.guidance` to 1 and use no null text and no boundary, or take another pipeline"
        )
