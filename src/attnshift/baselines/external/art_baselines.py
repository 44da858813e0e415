"""Baselines of the Adversarial Robustness Toolbox (ART)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy
from pydantic import Field

from attnshift.baselines.external.baseline import ExternalBaseline
from attnshift.errors import RecipeError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from attnshift.ensemble.surrogates import Surrogates
    from attnshift.types import Goals

__all__ = ["AutoAttack"]

AttackName = Literal["apgd-ce", "apgd-dlr", "deepfool", "square"]


@dataclass(frozen=True)
class AutoAttack(ExternalBaseline):
    """AutoAttack (Croce and Hein, ICML 2020) by ART: ``attacks`` in turn until one succeeds.

    An image is returned unchanged if no attack succeeds, or if the surrogates' mean is wrong about
    the clean image. AutoAttack measures the robustness of the surrogates themselves; it is not made
    to transfer. It cannot be targeted.

    The published standard version has APGD on cross-entropy, targeted APGD on the difference of
    logits ratio, targeted FAB, and Square. ART has the untargeted ratio. In place of FAB it has
    DeepFool, whose result counts if it lies within ``epsilon``. Its APGD returns the last iterate
    and not the best. Steps, restarts, queries and the first step size (twice ``epsilon``) are the
    published ones, not ART's.
    """

    libraries: ClassVar[tuple[str, ...]] = ("art", "multiprocess")
    acts_with: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "steps": ("attacks", "apgd-ce", "apgd-dlr", "deepfool"),
        "restarts": ("attacks", "apgd-ce", "apgd-dlr", "square"),
        "queries": ("attacks", "square"),
    }
    attacks: Annotated[tuple[AttackName, ...], Field(min_length=1)] = ("apgd-ce", "apgd-dlr", "deepfool", "square")
    steps: Annotated[int, Field(ge=1, le=10_000)] = 100
    """Steps of APGD and of DeepFool."""
    restarts: Annotated[int, Field(ge=1, le=100)] = 1
    """Restarts of APGD and of Square."""
    queries: Annotated[int, Field(ge=1, le=1_000_000)] = 5000
    """Proposals of Square in each restart.

    ART calls the surrogates three times for each proposal.
    """

    def check(self, surrogates: Surrogates, images: Tensor) -> None:
        from attnshift.baselines.external.networks import Averaged, classes_of

        super().check(surrogates, images)
        if surrogates.goals.targets is not None:
            raise RecipeError("baseline 'autoattack' cannot be targeted: ART uses targets only on the way; drop them")
        if "apgd-dlr" in self.attacks and classes_of(Averaged(surrogates.classifiers), images[:1]) < 3:
            raise RecipeError("baseline 'autoattack': apgd-dlr needs three classes; leave it out of attacks")

    def _attack(self, network: nn.Module, image: Tensor, goals: Goals) -> Tensor:
        import torch
        from art.attacks.evasion import AutoAttack as Sequence
        from art.estimators.classification import PyTorchClassifier

        from attnshift.baselines.external.networks import classes_of

        estimator = PyTorchClassifier(
            network,
            torch.nn.CrossEntropyLoss(),
            tuple(image.shape[1:]),
            classes_of(network, image),
            clip_values=(0.0, 1.0),
            device_type="gpu" if image.is_cuda else "cpu",
        )
        parts = [self._part(name, estimator) for name in self.attacks]
        sequence = Sequence(estimator, eps=self.epsilon, eps_step=2 * self.epsilon, attacks=parts)
        found = sequence.generate(image.cpu().float().numpy(), goals.labels.cpu().numpy())
        return torch.from_numpy(found).to(image)

    def _part(self, name: AttackName, estimator: Any) -> Any:
        from art.attacks.evasion import AutoProjectedGradientDescent, DeepFool, SquareAttack

        if name == "deepfool":
            return DeepFool(estimator, max_iter=self.steps, epsilon=1e-3, verbose=False)
        if name == "square":
            return SquareAttack(
                estimator, eps=self.epsilon, max_iter=self.queries, nb_restarts=self.restarts, verbose=False
            )
        return AutoProjectedGradientDescent(
            estimator,
            norm=numpy.inf,
            eps=self.epsilon,
            eps_step=2 * self.epsilon,
            max_iter=self.steps,
            nb_random_init=self.restarts,
            loss_type="cross_entropy" if name == "apgd-ce" else "difference_logits_ratio",
            verbose=False,
        )
