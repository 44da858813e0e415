"""Adapter to torchattacks (Kim, 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from attnshift.adapters.wrapped import Attacker, missing_library
from attnshift.diffusion.backbone import Backbone
from attnshift.errors import LabelError, ModelError
from attnshift.recipes.schema import Recipe

try:
    from torchattacks.attack import Attack
except ModuleNotFoundError as error:
    raise missing_library("torchattacks", error) from None

__all__ = ["TorchattacksAdapter"]


class TorchattacksAdapter(Attack):
    """Attack with the interface of torchattacks: ``adversarial = attack(images, labels)``.

    Images are [batch,3,height,width] in [0,1], or normalised after ``set_normalization_used``. All
    targeted modes of torchattacks work. In ``set_mode_targeted_by_label`` the labels are targets;
    the class that the model predicts stands for the true one, and an image that is already seen as
    its target is returned unchanged.

    >>> attack = TorchattacksAdapter(model, pipeline="lab", class_names=names)  # doctest: +SKIP
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        pipeline: str | Backbone,
        class_names: Sequence[str],
        recipe: str | Recipe = "fast",
        batch: int = 8,
    ):
        super().__init__("attnshift", model)
        self.supported_mode = ["default", "targeted"]
        attacker = Attacker.of(pipeline, recipe, class_names, batch)
        self.recipe = attacker.recipe.name
        # torchattacks stores every attribute that is set in the usual way, and never releases it.
        object.__setattr__(self, "_attacker", attacker)

    def __call__(self, inputs: Tensor, labels: Tensor | None = None, *args: Any, **kwargs: Any) -> Tensor:
        """Attack as torchattacks does, and restore the state of normalisation after an error."""
        applied = self._normalization_applied
        try:
            return super().__call__(inputs, labels, *args, **kwargs)
        finally:
            self._set_normalization_applied(applied)

    def forward(self, inputs: Tensor, labels: Tensor | None = None) -> Tensor:
        """Attacked images of ``inputs`` [batch,3,side,side] with class numbers ``labels``."""
        if self._model_training:
            raise ModelError("the attack needs the model in evaluation mode; undo set_model_training_mode")
        by_label = self.attack_mode == "targeted(label)"
        if labels is None and by_label:
            raise LabelError("set_mode_targeted_by_label needs labels, which are the targets")
        images = inputs.detach().to(self.device or inputs.device)
        attacker: Attacker = self.__dict__["_attacker"]
        if not self.targeted:
            return attacker(self.get_logits, images, labels)
        targets = self.get_target_label(images, labels)
        return attacker(self.get_logits, images, None if by_label else labels, targets)
