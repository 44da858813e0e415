"""Rules that average logits rather than gradients."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Annotated

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from attnshift.ensemble.fusion import softmax_over
from attnshift.ensemble.surrogates import Surrogates
from attnshift.registry import STRICT
from attnshift.types import Fused

__all__ = ["AdaEA", "Logits", "agreement"]


@dataclass(frozen=True)
class Logits:
    """The criterion on the mean of the logits: Dong et al., "MI-FGSM" (CVPR 2018), section 3.4."""

    __pydantic_config__ = STRICT

    def __call__(
        self,
        surrogates: Surrogates,
        points: Float[Tensor, "batch ..."],
        state: Float[Tensor, "batch ..."] | None = None,
    ) -> Fused:
        blend = surrogates.blend(points)
        return Fused(blend.gradient, blend.weights, blend.losses, blend.margins)


@dataclass(frozen=True)
class AdaEA:
    """Adaptive model ensemble attack: Chen et al., ICCV 2023, section 3, for each image by itself.

    Adaptive gradient modulation: every model's one-step example (a sign step of ``step``) is shown
    to the others; a model's weight is the softmax of ``beta`` times the sum, over the others, of
    the cross-entropy that its example has there over the one that their own example has. With a
    target the quotient is turned round, because there a low cross-entropy is success. The weights
    average logits.

    Disparity-reduced filter: where the models' gradients disagree, the gradient is dropped: at
    positions whose cosine over the channels, averaged over all pairs of models, lies below ``eta``.
    -1 switches it off.

    The paper's released code leaves the last model out of the filter and shares one vector of
    weights over the batch.
    """

    __pydantic_config__ = STRICT
    beta: Annotated[float, Field(ge=0)] = 10.0
    eta: Annotated[float, Field(ge=-1, le=1)] = -0.3
    step: Annotated[float, Field(gt=0)] = 2 / 255

    def __call__(
        self,
        surrogates: Surrogates,
        points: Float[Tensor, "batch ..."],
        state: Float[Tensor, "batch ..."] | None = None,
    ) -> Fused:
        seen = surrogates.gradients(points)
        reach = self._reach(surrogates, points, seen.gradients, seen.active)
        blend = surrogates.blend(points, softmax_over(self.beta * reach, seen.active))
        kept = agreement(seen.gradients, seen.active) >= self.eta
        return Fused(blend.gradient * kept[:, None], blend.weights, seen.losses, seen.margins)

    def _reach(
        self,
        surrogates: Surrogates,
        points: Float[Tensor, "batch *point"],
        gradients: Float[Tensor, "models batch *point"],
        active: Bool[Tensor, "models batch"],
    ) -> Float[Tensor, "models batch"]:
        """Success of each model's example on the other active ones."""
        goals = surrogates.goals
        targets = (goals.labels if goals.targets is None else goals.targets).expand(len(gradients), -1)
        # entropies[j, i] [batch]: model i on the example of model j.
        entropies = torch.stack(
            [
                -surrogates.logits(points.detach() - self.step * gradient.sign())
                .log_softmax(2)
                .gather(2, targets[..., None])[..., 0]
                for gradient in gradients
            ]
        ).clamp(min=1e-12)
        own = entropies.diagonal().T[None]
        quotients = entropies / own if goals.targets is None else own / entropies
        others = active & ~torch.eye(len(gradients), dtype=torch.bool, device=active.device)[..., None]
        return torch.where(others, quotients, 0.0).sum(1)


def agreement(
    gradients: Float[Tensor, "models batch channels height width"], active: Bool[Tensor, "models batch"]
) -> Float[Tensor, "batch height width"]:
    """Cosine over the channels at each position, averaged over all pairs of active models; 1 where
    there is no pair; in [-1,1]."""
    total, pairs = torch.zeros_like(gradients[0, :, 0]), active.new_zeros(active.shape[1:], dtype=torch.long)
    for first, second in combinations(range(len(gradients)), 2):
        both = active[first] & active[second]
        cosine = torch.cosine_similarity(gradients[first], gradients[second], dim=1, eps=1e-30)
        total = total + torch.where(both[:, None, None], cosine, 0.0)
        pairs = pairs + both
    mean = total / pairs.clamp(min=1)[:, None, None]
    return torch.where((pairs > 0)[:, None, None], mean, 1.0).clamp(-1, 1)
