"""Adapter to the Adversarial Robustness Toolbox (Nicolae et al., 2018)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy
import torch
from torch import Tensor

from attnshift.adapters.wrapped import Attacker, missing_library
from attnshift.attack.inputs import class_numbers
from attnshift.diffusion.backbone import Backbone
from attnshift.errors import LabelError, ModelError, RecipeError
from attnshift.recipes.schema import Recipe

try:
    from art.attacks.attack import EvasionAttack
    from art.defences.preprocessor.preprocessor import PreprocessorPyTorch
    from art.estimators.classification.pytorch import PyTorchClassifier
except ModuleNotFoundError as error:
    raise missing_library("adversarial-robustness-toolbox", error) from None

__all__ = ["ArtAdapter"]


class ArtAdapter(EvasionAttack):
    """Evasion attack for a ``PyTorchClassifier``: ``adversarial = attack.generate(x, y)``.

    ``x`` [batch,3,height,width] lies in the classifier's clip values. ``y`` are labels, or targets
    if ``targeted``, as numbers or one-hot. Without labels, and always in a targeted attack, the
    class that the classifier predicts stands for the true one. The classifier's preprocessing and
    its preprocessing defences in PyTorch are part of the attacked model.

    >>> attack = ArtAdapter(classifier, pipeline="lab", class_names=names)  # doctest: +SKIP
    """

    attack_params = [  # noqa: RUF012
        *EvasionAttack.attack_params, "pipeline", "recipe", "class_names", "targeted", "batch_size",
    ]  # fmt: skip
    _estimator_requirements = (PyTorchClassifier,)

    def __init__(
        self,
        estimator: PyTorchClassifier,
        *,
        pipeline: str | Backbone,
        class_names: Sequence[str],
        recipe: str | Recipe = "fast",
        targeted: bool = False,
        batch_size: int = 8,
    ):
        super().__init__(estimator=estimator)
        self.pipeline, self.recipe, self.class_names = pipeline, recipe, class_names
        self._targeted, self.batch_size = targeted, batch_size
        self._check_params()

    def generate(self, x: numpy.ndarray, y: numpy.ndarray | None = None, **kwargs: Any) -> numpy.ndarray:
        """Attacked images of ``x`` [batch,3,side,side], in the estimator's range of values.

        ``y`` are class numbers or one-hot rows: true classes, or targets where ``targeted`` is set.
        """
        if kwargs:
            raise RecipeError(f"generate takes x and y alone, not {', '.join(kwargs)}")
        if y is None and self.targeted:
            raise LabelError("a targeted attack needs y, the targets")
        low, high = _bounds(self.estimator)
        images = (torch.as_tensor(x, dtype=torch.float32, device=self.estimator.device) - low) / (high - low)
        classes = None if y is None else _indices(numpy.asarray(y), self.estimator.nb_classes)
        labels, targets = (None, classes) if self.targeted else (classes, None)
        found = low + (high - low) * self._attacker(_logits_of(self.estimator), images, labels, targets)
        return found.clamp(low, high).cpu().numpy()

    def _check_params(self) -> None:
        super()._check_params()
        if not isinstance(self.targeted, bool):
            raise RecipeError(f"targeted is {self.targeted!r}; give True or False")
        _bounds(self.estimator)
        self._attacker = Attacker.of(self.pipeline, self.recipe, self.class_names, self.batch_size)
        self.pipeline = self._attacker.backbone


def _bounds(estimator: PyTorchClassifier) -> tuple[float, float]:
    """Clip values of ``estimator``. Raises ``ModelError`` if the attack cannot get its gradient."""
    if not estimator.channels_first:
        raise ModelError("the estimator has channels_first=False; the attack needs images [batch, 3, height, width]")
    values: Any = estimator.clip_values
    if values is None or numpy.size(values) != 2:
        raise ModelError("the estimator needs two clip_values, such as (0, 1), for the attack to know black from white")
    numeric = [each for each in _preprocessors(estimator) if not isinstance(each, PreprocessorPyTorch)]
    if numeric:
        name = type(numeric[0]).__name__
        raise ModelError(f"no gradient passes the estimator's {name}; use a preprocessor that ART has in PyTorch")
    if estimator.postprocessing_defences:
        raise ModelError("the attack needs logits; take off the estimator's postprocessing_defences")
    return float(values[0]), float(values[1])


def _logits_of(estimator: PyTorchClassifier) -> Callable[[Tensor], Tensor]:
    """Function from images in [0,1] to ART's logits, in evaluation mode as in ART's own attacks."""
    low, high = _bounds(estimator)
    network = estimator.model.eval()

    def answer(images: Tensor) -> Tensor:
        shown = low + (high - low) * images
        for each in _preprocessors(estimator):
            shown = each.estimate_forward(shown) if shown.requires_grad else each.forward(shown)[0]
        return network(shown)

    return answer


def _preprocessors(estimator: PyTorchClassifier) -> list[Any]:
    return [each for each in estimator.preprocessing_operations if each.apply_predict]


def _indices(y: numpy.ndarray, classes: int) -> Tensor:
    """Class numbers [batch] from numbers [batch] or [batch,1] or one-hot rows [batch,classes]."""
    if y.ndim == 2 and y.shape[1] == classes:
        y = y.argmax(1)
    if y.ndim not in (1, 2) or y.size != len(y):
        raise LabelError(f"y has shape {y.shape}; expected class numbers [batch] or one-hot rows [batch, {classes}]")
    return torch.tensor(class_numbers("y", y.reshape(-1)))
