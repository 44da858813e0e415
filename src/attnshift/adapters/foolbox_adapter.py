"""Adapter to foolbox (Rauber et al., JOSS 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from attnshift.adapters.wrapped import Attacker, missing_library
from attnshift.diffusion.backbone import Backbone
from attnshift.errors import ModelError, RecipeError
from attnshift.recipes.schema import Recipe

try:
    import eagerpy
    from foolbox.attacks.base import FlexibleDistanceMinimizationAttack, get_criterion, raise_if_kwargs
    from foolbox.criteria import Misclassification, TargetedMisclassification
    from foolbox.distances import Distance
    from foolbox.models.base import Model
except ModuleNotFoundError as error:
    raise missing_library("foolbox", error) from None

__all__ = ["FoolboxAdapter"]


class FoolboxAdapter(FlexibleDistanceMinimizationAttack):
    """Attack on a ``foolbox.PyTorchModel``.

    It is called as ``raw, clipped, success = attack(model, images, criterion, epsilons=None)``.
    Images are in the model's bounds, which may be any, and foolbox applies the model's
    preprocessing. The criterion is ``Misclassification`` or labels, or
    ``TargetedMisclassification``; for the latter, the class that the model predicts stands for the
    true one.

    The attack has no radius. With numbers for ``epsilons``, foolbox clips the finished image to
    each of them, in the norm of ``distance``, and judges the clipped image.

    >>> attack = FoolboxAdapter(pipeline="lab", class_names=names)  # doctest: +SKIP
    """

    def __init__(
        self,
        *,
        pipeline: str | Backbone,
        class_names: Sequence[str],
        recipe: str | Recipe = "fast",
        batch: int = 8,
        distance: Distance | None = None,
    ):
        super().__init__(distance=distance)
        self._attacker = Attacker.of(pipeline, recipe, class_names, batch)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(recipe={self._attacker.recipe.name}, distance={self._distance})"

    def run(self, model: Model, inputs: Any, criterion: Any, *, early_stop: float | None = None, **kwargs: Any) -> Any:
        """Attacked images of ``inputs`` [batch,3,side,side], in the bounds of ``model``."""
        raise_if_kwargs(kwargs)
        given, restore = eagerpy.astensor_(inputs)
        if not isinstance(given.raw, Tensor):
            raise ModelError(
                f"images are a {type(given.raw).__name__}; the attack needs foolbox.PyTorchModel and tensors"
            )
        low, high = model.bounds
        labels, targets = _labels_and_targets(criterion)

        def answer(images: Tensor) -> Tensor:
            return model(low + (high - low) * images)

        found = self._attacker(answer, (given.raw - low) / (high - low), labels, targets)
        # foolbox requires that images are in the bounds to the last bit.
        return restore(eagerpy.astensor((low + (high - low) * found).clamp(low, high).to(given.raw)))


def _labels_and_targets(criterion: Any) -> tuple[Tensor | None, Tensor | None]:
    """Labels or targets of ``criterion``; the other is None."""
    criterion = get_criterion(criterion)
    if isinstance(criterion, Misclassification):
        return torch.as_tensor(criterion.labels.raw), None
    if isinstance(criterion, TargetedMisclassification):
        return None, torch.as_tensor(criterion.target_classes.raw)
    raise RecipeError(
        f"criterion {type(criterion).__name__} is unknown to the attack; give Misclassification or "
        "TargetedMisclassification"
    )
