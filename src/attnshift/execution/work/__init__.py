"""Work of a run on a micro-batch: an attack in latents, or a baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from attnshift.attack.clean_path import Inversions, compute_uncached
from attnshift.attack.effort import Effort
from attnshift.attack.prepare import Task
from attnshift.attack.run import Watch
from attnshift.classifiers.classifier import Classifier
from attnshift.data.captions import phrases_of
from attnshift.data.datasets import Item
from attnshift.data.images import quantise
from attnshift.diffusion.backbone import Backbone
from attnshift.ensemble.surrogates import Surrogates
from attnshift.recipes.prompts import Caption
from attnshift.recipes.schema import BaselineRecipe, Recipe
from attnshift.sizes import Size

__all__ = ["BatchResult", "Work", "caption_of", "effort_columns", "work_of"]


@dataclass(frozen=True)
class BatchResult:
    """A micro-batch that is attacked.

    ``arms`` hold what is shown of each image, [batch,3,height,width], multiples of 1/255;
    ``margins`` [models,batch] are the surrogates' on exactly these. ``rows`` hold for each image
    the fields of its ``ResultRow`` that the attack decides, as far as they differ from their
    defaults. ``known``, bool [models,batch], is true where a surrogate sees the true class in the
    clean image. ``stopped_after`` is as in ``attack.run.Outcome``.
    """

    arms: Mapping[str, Tensor]
    margins: Mapping[str, Tensor]
    rows: Sequence[Mapping[str, Any]]
    known: Tensor
    stopped_after: int = 0

    @classmethod
    def judged(
        cls,
        surrogates: Surrogates,
        arms: Mapping[str, Tensor],
        rows: Sequence[Mapping[str, Any]],
        stopped_after: int = 0,
    ) -> BatchResult:
        rounded = {arm: quantise(images) for arm, images in arms.items()}
        judged = {arm: surrogates.judge(images)[1] for arm, images in rounded.items()}
        return cls(rounded, judged, rows, surrogates.known(rounded["clean"]), stopped_after)


def effort_columns(effort: Effort, images: int) -> dict[str, float]:
    """Columns of a ``ResultRow``: the ``effort`` of a micro-batch
    of so many ``images``, for one of them."""
    return {"surrogate_gradients": effort.gradients / images, "denoiser_evaluations": effort.denoisings / images}


class Work(Protocol):
    @property
    def weights(self) -> Mapping[str, str]:
        """Fingerprints of networks that the recipe names, by what they are."""
        ...

    def remarks(self, backbone: Backbone | None, classifiers: Sequence[Classifier]) -> tuple[str, ...]:
        """One line for each setting of the recipe that cannot act, with ``backbone`` if it is known
        or in one of the surrogates ``classifiers``."""
        ...

    def check(self, backbone: Backbone, classifiers: Sequence[Classifier], items: Sequence[Item], size: Size) -> None:
        """Raise whatever could stop ``carry_out`` on one of ``items`` later;
        the images themselves are not read."""
        ...

    def carry_out(
        self,
        backbone: Backbone,
        classifiers: Sequence[Classifier],
        tasks: Sequence[Task],
        watch: Watch | None = None,
        inversions: Inversions = compute_uncached,
    ) -> BatchResult:
        """Attack ``tasks`` together; ``watch`` sees every iteration and may end the attack,
        ``inversions`` are asked for those of the images; a baseline has neither."""
        ...


def work_of(recipe: Recipe | BaselineRecipe, places: Mapping[str, str] = {}) -> Work:
    """Return the work that carries out ``recipe``;
    a ``RecipeError`` where it names what does not exist.

    A model in ``places`` is loaded as what stands there.
    """
    from attnshift.execution.work.latents import LatentWork
    from attnshift.execution.work.pixels import PixelWork

    return PixelWork.of(recipe) if isinstance(recipe, BaselineRecipe) else LatentWork.of(recipe, places)


def caption_of(text: str, class_name: str) -> Caption | None:
    """The caption with this ``text``, in which the class is named; None for an empty one."""
    return Caption(text, phrases_of(text, class_name, "the plan")) if text else None
