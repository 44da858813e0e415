"""From the gradients of several classifiers to one direction, image by image: rules that weigh
gradients."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from attnshift.ensemble.surrogates import SurrogateGradients, Surrogates
from attnshift.errors import RecipeError
from attnshift.registry import STRICT
from attnshift.types import Fused

__all__ = [
    "Consensus",
    "FusionRule",
    "Laggard",
    "Progress",
    "Scale",
    "Uniform",
    "Weighted",
    "Worst",
    "combine",
    "effective_models",
    "softmax_over",
]

Scale = Literal["norm", "unit", "raw"]
"""Ways to add weighted gradients, with units u_i = g_i / |g_i|.

``norm``: (sum w_i u_i) * (sum w_i |g_i|): no model drowns the others, and the classification weight
keeps its meaning. ``unit``: sum w_i u_i, as the notes write it. ``raw``: sum w_i g_i, the gradient
of the weighted loss.
"""
Positive = Annotated[float, Field(gt=0)]


@runtime_checkable
class FusionRule(Protocol):
    """A rule receives the classifiers and not ready gradients: some rules probe trial images.

    ``points`` are where the gradients are wanted. ``state`` is ``Fused.state`` of the iteration
    before, None in the first one and for a rule that has none.
    """

    def __call__(
        self,
        surrogates: Surrogates,
        points: Float[Tensor, "batch ..."],
        state: Float[Tensor, "batch ..."] | None = None,
    ) -> Fused: ...


@dataclass(frozen=True)
class _Weighing(ABC):
    """A rule whose weights follow from what the models answer.

    Models without a gradient have no weight.
    """

    __pydantic_config__ = STRICT
    scale: Scale = "norm"
    """``norm``: (sum w_i u_i) * (sum w_i |g_i|), with units u_i of the gradients g_i. ``unit``: sum
    w_i u_i. ``raw``: sum w_i g_i."""

    def __call__(
        self,
        surrogates: Surrogates,
        points: Float[Tensor, "batch ..."],
        state: Float[Tensor, "batch ..."] | None = None,
    ) -> Fused:
        seen = surrogates.gradients(points)
        weights = softmax_over(self.scores(surrogates, seen, state), seen.active)
        direction = combine(seen.gradients, weights, self.scale)
        return Fused(direction, weights, seen.losses, seen.margins, self.next_state(seen, state))

    @abstractmethod
    def scores(
        self, surrogates: Surrogates, seen: SurrogateGradients, state: Float[Tensor, "batch ..."] | None
    ) -> Float[Tensor, "models batch"]:
        """The higher, the more a model counts; weights are their softmax over the models that
        pull."""

    def next_state(
        self, seen: SurrogateGradients, state: Float[Tensor, "batch ..."] | None
    ) -> Float[Tensor, "batch ..."] | None:
        """The state for the next iteration; None for a rule that has none."""
        return None


@dataclass(frozen=True)
class Uniform(_Weighing):
    """Every model that still pulls counts the same; with ``scale = "raw"`` by the gradient of their
    mean loss."""

    def scores(
        self, surrogates: Surrogates, seen: SurrogateGradients, state: Float[Tensor, "batch ..."] | None
    ) -> Float[Tensor, "models batch"]:
        return torch.zeros_like(seen.losses)


@dataclass(frozen=True)
class Weighted(_Weighing):
    """Fixed shares, ``weights`` by name of the surrogate; those that it does not name count 1, and
    0 leaves one out."""

    weights: dict[str, Annotated[float, Field(ge=0)]] = field(default_factory=dict)

    def scores(
        self, surrogates: Surrogates, seen: SurrogateGradients, state: Float[Tensor, "batch ..."] | None
    ) -> Float[Tensor, "models batch"]:
        strangers = sorted(set(self.weights) - set(surrogates.names))
        if strangers:
            raise RecipeError(
                f"fusion rule 'weighted' gives a weight to {', '.join(strangers)}, which is no surrogate; "
                f"the surrogates are {', '.join(surrogates.names)}"
            )
        shares = seen.losses.new_tensor([self.weights.get(name, 1.0) for name in surrogates.names])
        if not bool(shares.any()):
            raise RecipeError("fusion rule 'weighted' gives every surrogate the weight 0; leave one above 0")
        return shares.log()[:, None].expand_as(seen.losses)


@dataclass(frozen=True)
class Consensus(_Weighing):
    """Models that agree with the mean direction count more: softmax of ``tau`` * cos(g_i, mean u).

    The notes' adaptive rule. Two models always count the same, and one of another architecture than
    the rest next to nothing: look at the effective number of models.
    """

    tau: Positive = 5.0

    def scores(
        self, surrogates: Surrogates, seen: SurrogateGradients, state: Float[Tensor, "batch ..."] | None
    ) -> Float[Tensor, "models batch"]:
        units = _units(seen.gradients).flatten(2)
        return self.tau * torch.cosine_similarity(units, units.sum(0, keepdim=True), dim=2, eps=1e-30)


@dataclass(frozen=True)
class Progress(_Weighing):
    """Models that have lately given way count more: softmax of a running mean of each margin's
    decrease.

    The mean keeps ``decay`` of itself from one iteration to the next; ``temperature`` is in logits.
    The notes' second adaptive rule. The first iteration is uniform.
    """

    temperature: Positive = 1.0
    decay: Annotated[float, Field(ge=0, lt=1)] = 0.7

    def scores(
        self, surrogates: Surrogates, seen: SurrogateGradients, state: Float[Tensor, "batch ..."] | None
    ) -> Float[Tensor, "models batch"]:
        return self._decrease(seen, state) / self.temperature

    def next_state(
        self, seen: SurrogateGradients, state: Float[Tensor, "batch 2 models"] | None
    ) -> Float[Tensor, "batch 2 models"]:
        """The margins, and the running mean of their decrease."""
        return torch.stack([seen.margins.T, self._decrease(seen, state).T], 1)

    def _decrease(
        self, seen: SurrogateGradients, state: Float[Tensor, "batch 2 models"] | None
    ) -> Float[Tensor, "models batch"]:
        if state is None:
            return torch.zeros_like(seen.margins)
        before, mean = state[:, 0].T, state[:, 1].T
        return self.decay * mean + (1 - self.decay) * (before - seen.margins)


@dataclass(frozen=True)
class Laggard(_Weighing):
    """Models that resist most count most: softmax of the margins over ``temperature``, in
    logits."""

    temperature: Positive = 1.0

    def scores(
        self, surrogates: Surrogates, seen: SurrogateGradients, state: Float[Tensor, "batch ..."] | None
    ) -> Float[Tensor, "models batch"]:
        return seen.margins / self.temperature


@dataclass(frozen=True)
class Worst(_Weighing):
    """The gradient of the highest loss; models that share it share its weight.

    With ``smooth`` above 0 that of smooth * logsumexp(losses / smooth), which is the highest loss
    as ``smooth`` goes to 0.
    """

    scale: Scale = "raw"
    smooth: Annotated[float, Field(ge=0)] = 0.0

    def scores(
        self, surrogates: Surrogates, seen: SurrogateGradients, state: Float[Tensor, "batch ..."] | None
    ) -> Float[Tensor, "models batch"]:
        losses = seen.losses.masked_fill(~seen.active, -torch.inf)
        if self.smooth:
            return losses / self.smooth
        return torch.where(losses == losses.max(0).values, 0.0, -torch.inf)


def combine(
    gradients: Float[Tensor, "models batch *point"], weights: Float[Tensor, "models batch"], scale: Scale
) -> Float[Tensor, "batch *point"]:
    """Gradients with weights as one direction; see ``Scale``."""
    shape = (*weights.shape, *[1] * (gradients.ndim - 2))
    if scale == "raw":
        return (weights.view(shape) * gradients).sum(0)
    direction = (weights.view(shape) * _units(gradients)).sum(0)
    if scale == "unit":
        return direction
    return direction * (weights * gradients.flatten(2).norm(dim=2)).sum(0).view(shape[1:])


def softmax_over(
    scores: Float[Tensor, "models batch"], active: Bool[Tensor, "models batch"]
) -> Float[Tensor, "models batch"]:
    """Softmax over the models that are active; columns sum to 1, or to 0 where none is."""
    scores = scores.masked_fill(~active, -torch.inf)
    some = (scores != -torch.inf).any(0)
    return torch.where(some, scores, 0.0).softmax(0) * some


def effective_models(weights: Sequence[Sequence[float]]) -> float:
    """Effective number of models: 1 / sum w_i^2, averaged over iterations [iterations,models].

    N for even shares, 1 for a single voice; an iteration in which no model pulls is left out, and 0
    stands for none.
    """
    voices = [1 / sum(each * each for each in shares) for shares in weights if any(shares)]
    return sum(voices) / len(voices) if voices else 0.0


def _units(gradients: Float[Tensor, "models batch *point"]) -> Float[Tensor, "models batch *point"]:
    norms = gradients.flatten(2).norm(dim=2).clamp(min=1e-30)
    return gradients / norms.view(*norms.shape, *[1] * (gradients.ndim - 2))
