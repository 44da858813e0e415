"""APA: a denoiser that has learned the image by heart, and momentum steps on the noise that it maps
the image to. Its options are read without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from attnshift.baselines.diffusion import Template
from attnshift.baselines.mapped import MappedBaseline
from attnshift.errors import RecipeError
from attnshift.sizes import size_of

if TYPE_CHECKING:
    from attnshift.baselines.edits import Edit, EditInput

__all__ = ["APA", "OfficialAPA"]


@dataclass(frozen=True)
class APA(MappedBaseline):
    """Adversary preferences alignment: Jiang et al. (APA), arXiv 2506.01511.

    First the denoiser's attention learns each image by heart: changes of low rank (LoRA), in
    ``memory_steps`` updates, so that the way back keeps the image. Then signs of an accumulated
    gradient move z_T within ``epsilon``. On the way back the last ``guided_steps`` steps are pushed
    as well: by the sign of the accumulated gradient at what each previews.

    The defaults repair what hinders a comparison: nothing is lost on the way back, and the last
    iterate that fools the surrogates as an 8-bit file is the result. ``OfficialAPA`` is the
    released attack. ``gradient = "skip"`` is APA-SG, ``"exact"`` is APA-GC.
    """

    lengths: ClassVar[tuple[str, ...]] = ("epsilon", "step_size", "push")
    pace_share: ClassVar[float] = 0.1
    template: Template = "{}"
    """Prompt; ``{}`` stands for the class name."""
    epsilon: Annotated[float, Field(gt=0, le=10)] = 0.4
    """Largest change of a value of z_T, whose values have a standard deviation of about 1."""
    gradient: Literal["skip", "exact"] = "skip"
    """``skip``: the gradient at the end of the way counts as that of z_T. ``exact``: it goes back
    through the denoiser."""
    inverted_steps: Annotated[int, Field(ge=1, le=999)] | None = None
    """Steps from the end of the schedule; None stands for all with ``skip``, and 11 with
    ``exact``."""
    guided_steps: Annotated[int, Field(ge=0, le=999)] = 10
    """Steps at the end of the way that are pushed (the paper's T_a)."""
    push: Annotated[float, Field(ge=0)] = 1.0
    """Length of the push, a change of each value of the noise, in shares of sqrt(1 - alpha)."""
    augmented: bool = True
    """Average over the images half way to each guided step's preview, shrunk to 90 to 100 % and
    padded; else the image alone is seen."""
    latent_nearness: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the mean squared distance to the image's latents, which the released APA-GC has at
    10."""
    memory_steps: Annotated[int, Field(ge=0, le=100_000)] = 200
    """Updates by which the denoiser learns an image by heart; 0 leaves it as it is."""
    memory_rank: Annotated[int, Field(ge=1, le=1024)] = 8
    """Rank of the LoRA."""
    memory_rate: Annotated[float, Field(gt=0, le=1)] = 1e-4
    """Learning rate of AdamW."""
    memory_decay: Annotated[float, Field(ge=0)] = 0.01
    """Weight decay of AdamW."""
    noise_offset: Annotated[float, Field(ge=0)] = 0.1
    """Standard deviation of what the noise of a channel has in common, while the denoiser
    learns."""
    reconstruction: Literal["offset", "none"] = "offset"
    """Correction that makes the way back end at the image."""
    tested: Literal["files", "none"] = "files"
    """``files``: the last iterate that fools all surrogates as an 8-bit file is the result.
    ``none``: the image that they saw last is, before the last step."""

    @property
    def way(self) -> int:
        """Steps from the image to z_T."""
        if self.inverted_steps is not None:
            return self.inverted_steps
        return self.schedule_steps if self.gradient == "skip" else min(11, self.schedule_steps)

    def check(self, given: EditInput) -> None:
        from attnshift.diffusion.backbone import check_steps
        from attnshift.diffusion.low_rank import Projecting

        super().check(given)
        size, options = size_of(given.images), "baseline.schedule_steps and inverted_steps"
        check_steps(given.backbone, self.schedule_steps, self.way, size, options)
        if self.memory_steps and not isinstance(given.backbone, Projecting):
            raise RecipeError(
                f"baseline 'apa' changes the denoiser's attention, and {given.backbone.name} does not show it; "
                "set `memory_steps` to 0, or take another pipeline"
            )

    def prepare(self, given: EditInput) -> Edit:
        from attnshift.baselines.memorised import prepare_memorised

        return prepare_memorised(self, given)


@dataclass(frozen=True)
class OfficialAPA(APA):
    """APA as its authors release it: the way back as it is, and the image seen last."""

    reconstruction: Literal["offset", "none"] = "none"
    residual: bool = False
    tested: Literal["files", "none"] = "none"
