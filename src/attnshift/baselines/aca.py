"""ACA: momentum steps on the noise that an image is mapped to. Its options are read without
torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from attnshift.baselines.diffusion import check_negative_prompt
from attnshift.baselines.mapped import MappedBaseline
from attnshift.sizes import size_of

if TYPE_CHECKING:
    from attnshift.baselines.edits import Edit, EditInput

__all__ = ["ACA", "OfficialACA"]


@dataclass(frozen=True)
class ACA(MappedBaseline):
    """Adversarial content attack: Chen et al. (NeurIPS 2023).

    The image is mapped to the noise z_T by DDIM inversion of the whole schedule, conditional on the
    prompt; reconstruction makes the guided way back end at the image again. Then signs of an
    accumulated gradient move z_T within ``epsilon``. The gradient is taken at the end of the way
    back and used as if it were that of z_T.

    The defaults repair what hinders a comparison: nothing is lost on the way back, and the last
    iterate is tested too, each as an 8-bit file. The paper's prompts are detailed captions of the
    image. ``OfficialACA`` is the released attack.
    """

    pace_share: ClassVar[float] = 0.4
    nearness: Annotated[float, Field(ge=0)] = 0.1
    """Weight of the distance to the image, as a surrogate's network sees both (the paper's
    beta)."""
    guidance: Annotated[float, Field(ge=0)] = 7.5
    reconstruction: Literal["offset", "null_text"] = "offset"
    """Correction that makes the way back end at the image."""
    tested: Literal["files", "floats"] = "files"
    """``files``: 8-bit files are tested, the last iterate's too. ``floats``: unrounded images are,
    and the last iterate is not."""
    resize: Literal["own", "nearest"] = "own"
    """Who brings an image to the surrogates' size: each by itself, or nearest neighbours."""

    def check(self, given: EditInput) -> None:
        from attnshift.diffusion.backbone import check_steps

        super().check(given)
        check_negative_prompt(given.backbone, self.guidance, self.reconstruction == "null_text")
        size = size_of(given.images)
        check_steps(given.backbone, self.schedule_steps, self.schedule_steps, size, "baseline.schedule_steps")

    def prepare(self, given: EditInput) -> Edit:
        from attnshift.baselines.content import prepare_content

        return prepare_content(self, given)


@dataclass(frozen=True)
class OfficialACA(ACA):
    """ACA as its authors release it: null-text reconstruction, and the size by nearest
    neighbours."""

    reconstruction: Literal["offset", "null_text"] = "null_text"
    residual: bool = False
    tested: Literal["files", "floats"] = "floats"
    resize: Literal["own", "nearest"] = "nearest"
