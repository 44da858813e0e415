"""NatADiff: sampling on the boundary between the true class and a wrong one. Its options are read
without torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field

from attnshift.baselines.diffusion import check_negative_prompt
from attnshift.baselines.guided import GuidedBaseline, Length, Share
from attnshift.classifiers.names import NAMES_FILE
from attnshift.ensemble import TRANSFORMS
from attnshift.errors import RecipeError
from attnshift.registry import build

if TYPE_CHECKING:
    from attnshift.baselines.edits import Edit, EditInput
    from attnshift.ensemble.transforms import Transform

__all__ = ["NatADiff", "NatADiffFromNoise"]


def _ordered(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] > bounds[1]:
        raise ValueError("the first number must not exceed the second")
    return bounds


Stretch = Annotated[tuple[Share, Share], AfterValidator(_ordered)]


@dataclass(frozen=True)
class NatADiff(GuidedBaseline):
    """NatADiff: Collins et al. (ICLR 2026), from the inverted image.

    The score is steered towards a prompt that names the wrong class and the true one, and along the
    normalised gradient of log p of the wrong class; logits are averaged over views of the predicted
    image first. Steps of a middle part are walked several times, with noise in between (time
    travel). The wrong class is the target, or the one whose prompt's text embedding is nearest.
    """

    lengths: ClassVar[tuple[str, ...]] = ("boundary", "scale")
    schedule_steps: Annotated[int, Field(ge=2, le=999)] = 50
    inverted_steps: Annotated[int, Field(ge=1, le=999)] = 20
    guidance: Annotated[float, Field(ge=0)] = 7.5
    boundary: Share = 0.2
    """Share of the guidance that goes to the joint prompt (the paper's mu)."""
    joint_guidance: Annotated[float, Field(ge=0)] = 7.5
    """Weight of the joint prompt's guidance (the paper's rho)."""
    joint_template: Annotated[str, Field(pattern=r"^[^{}]*\{wrong\}[^{}]*\{true\}[^{}]*$")] = (
        "a photo of a {wrong} and a {true}"
    )
    """Prompt that names both classes."""
    scale: Length = 0.4
    """Length of the gradient in the score (the paper's s)."""
    relative: bool = True
    """Whether ``scale`` counts in lengths of standard noise on the latents."""
    gradient: Literal["exact", "detached"] = "exact"
    """``detached``: the gradient does not go back through the denoiser."""
    guided: Stretch = (0.0, 0.7)
    """Part of the way whose steps have the gradient: shares of its steps that follow."""
    travelled: Stretch = (0.5, 0.8)
    """Part of the way whose steps are walked ``passes`` times."""
    passes: Annotated[int, Field(ge=1, le=100)] = 5
    """Visits of each step within ``travelled``."""
    views: Annotated[int, Field(ge=1, le=64)] = 8
    """Views of an image; the first is the image itself."""
    transforms: dict[str, dict[str, Any]] = field(
        default_factory=lambda: {"rotate": {}, "scale_and_shift": {}, "colour": {}}
    )
    """Transforms of the other views, by name, with their options."""
    tries: Annotated[int, Field(ge=1, le=100)] = 1
    """The most tries on an image that fools not all surrogates; ``boundary`` and ``scale`` grow by
    half of themselves with each. A budget's search goes the same way, with one try at each
    strength."""

    def check(self, given: EditInput) -> None:
        from attnshift.baselines.crossing import joint_prompts, wrong_classes
        from attnshift.classifiers.classifier import vocabulary

        super().check(given)
        check_negative_prompt(given.backbone, self.guidance, self.boundary > 0)
        self.made_transforms()
        names = vocabulary(given.surrogates.classifiers)  # type: ignore[arg-type]
        if not names:
            raise RecipeError(
                "baseline 'natadiff' needs class names, and no surrogate has them; "
                f"name them, one a line, in {NAMES_FILE} beside the weights"
            )
        joint_prompts(self, given, wrong_classes(self, given, names), names)

    def joint_prompt(self, wrong: str, true: str) -> str:
        return self.joint_template.replace("{wrong}", wrong).replace("{true}", true)

    def made_transforms(self) -> dict[str, Transform]:
        return {name: build(TRANSFORMS, name, options) for name, options in self.transforms.items()}

    def prepare(self, given: EditInput) -> Edit:
        from attnshift.baselines.crossing import prepare_crossing

        return prepare_crossing(self, given)


@dataclass(frozen=True)
class NatADiffFromNoise(NatADiff):
    """NatADiff from noise, as published, with all 200 steps."""

    start: Literal["inverted", "noise"] = "noise"
    schedule_steps: Annotated[int, Field(ge=2, le=999)] = 200
