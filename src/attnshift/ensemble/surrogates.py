"""The classifiers that the attack sees, with what it lowers on each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attnshift.batching import batch_record, constant, per_image, select_rows
from attnshift.data.images import into_range
from attnshift.ensemble.backward import BackwardPass
from attnshift.ensemble.expectation import View, as_it_is
from attnshift.losses.classification import margins
from attnshift.types import Goals, RandomKey

__all__ = ["Criterion", "EnsembleGradient", "SurrogateGradients", "Surrogates"]


@runtime_checkable
class Criterion(Protocol):
    """A penalty on logits under the attack's goals: one fp32 value per image."""

    @property
    def reads_interference(self) -> bool: ...

    def __call__(self, logits: Float[Tensor, "batch classes"], goals: Goals) -> Float[Tensor, "batch"]: ...


class SurrogateGradients(NamedTuple):
    """What each model answers: gradients at the points, losses and margins.

    With several views gradients and losses are their means; margins are those of the image itself.
    """

    gradients: Float[Tensor, "models batch ..."]
    losses: Float[Tensor, "models batch"]
    margins: Float[Tensor, "models batch"]

    @property
    def active(self) -> Bool[Tensor, "models batch"]:
        """Models with a gradient; one that is fooled by as much as the criterion asks has none."""
        return self.gradients.flatten(2).norm(dim=2) != 0


class EnsembleGradient(NamedTuple):
    """The criterion on blended logits: its ``gradient`` at the points, the ``weights`` that were
    given to the models, and each model's own ``losses`` and ``margins``."""

    gradient: Float[Tensor, "batch ..."]
    weights: Float[Tensor, "models batch"]
    losses: Float[Tensor, "models batch"]
    margins: Float[Tensor, "models batch"]


@batch_record
class Surrogates:
    """``classifiers`` map images [batch,3,height,width] in [0,1] to logits [batch,classes].

    Gradients are taken at *points* [batch,...], which ``show`` turns into images: the images
    themselves, or latents with the whole chain to the image behind them. ``views`` are what a
    classifier sees of an image, the first the image as it is; the others make the gradient an
    expectation over transformations (Athalye et al., ICML 2018). Gradients go through matrix
    products and convolutions in ``precision``; weights stay as they are. ``backward`` holds each
    classifier's own way back, or is empty: gradients then go back as the networks are.

    A classifier behind a random defence has an attribute ``takes_key`` that is true. It is called
    with the images and a key, which names its draws: ``key``, with the number of the view.
    """

    classifiers: Sequence[Callable[..., Tensor]] = constant()
    criterion: Criterion = constant()
    goals: Goals = per_image()
    show: View = constant(default=as_it_is)
    views: Sequence[View] = constant(default=(as_it_is,))
    shares: tuple[float, ...] | None = constant(default=None)
    """Weight of each view in the loss; None gives all the same."""
    precision: torch.dtype = constant(default=torch.float32)
    backward: tuple[BackwardPass, ...] = per_image(depth=1, default=())
    key: RandomKey | None = per_image(default=None)

    def at(self, iteration: int) -> Surrogates:
        """The same surrogates, with the random draws of ``iteration``."""
        return self if self.key is None else replace(self, key=replace(self.key, iteration=iteration))

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each classifier, its number where it has none."""
        return tuple(getattr(each, "name", str(at)) for at, each in enumerate(self.classifiers))

    def gradients(self, points: Float[Tensor, "batch ..."]) -> SurrogateGradients:
        """Losses and margins of each model at ``points``, and the gradient of its loss there."""
        points = points.detach().requires_grad_()
        gradients, losses, kept = [], [], []
        with torch.enable_grad():
            for logits in self._answers(points):
                loss = self._losses(logits)
                # The graph from the points to the views serves every model.
                (gradient,) = torch.autograd.grad(loss.sum(), points, retain_graph=True)
                gradients.append(gradient)
                losses.append(loss.detach())
                kept.append(margins(logits[0].detach(), self.goals))
        return SurrogateGradients(torch.stack(gradients), torch.stack(losses), torch.stack(kept))

    def blend(
        self, points: Float[Tensor, "batch ..."], weights: Float[Tensor, "models batch"] | None = None
    ) -> EnsembleGradient:
        """Average the logits, by ``weights`` or all alike, before the criterion sees them.

        A model on which the criterion is flat takes no part: it is fooled already.
        """
        points = points.detach().requires_grad_()
        with torch.enable_grad():
            answers = torch.stack([*self._answers(points)])
            losses, active = self._losses_and_active(answers.detach())
            shares = active.to(losses) if weights is None else weights * active
            shares = shares / shares.sum(0).clamp(min=1e-30)
            blended = (shares[:, None, :, None] * answers).sum(0)
            (gradient,) = torch.autograd.grad(self._losses(blended).sum(), points)
        own = torch.stack([margins(each, self.goals) for each in answers[:, 0].detach()])
        return EnsembleGradient(gradient, shares, losses, own)

    @torch.no_grad()
    def judge(
        self, points: Float[Tensor, "batch ..."], exact: bool = True
    ) -> tuple[Float[Tensor, "models batch"], Float[Tensor, "models batch"]]:
        """Losses and margins of the images as they are, without gradients.

        Those that are not ``exact`` are computed in the precision of the gradients.
        """
        logits = self.logits(points, exact)
        losses = torch.stack([self.criterion(each, self.goals) for each in logits])
        return losses, torch.stack([margins(each, self.goals) for each in logits])

    def known(self, points: Float[Tensor, "batch ..."]) -> Bool[Tensor, "models batch"]:
        """True where a classifier sees the true class."""
        return self.logits(points).argmax(2) == self.goals.labels

    @torch.no_grad()
    def logits(self, points: Float[Tensor, "batch ..."], exact: bool = True) -> Float[Tensor, "models batch classes"]:
        """Logits of the first view, the images as they are; ``exact`` as in ``judge``."""
        images = self.views[0](into_range(self.show(points)))
        with nullcontext() if exact else self._rough(images):
            return torch.stack([self._seen(each, images) for each in self.classifiers])

    def _answers(self, points: Float[Tensor, "batch ..."]) -> Iterator[Float[Tensor, "views batch classes"]]:
        """Each model's logits."""
        images = into_range(self.show(points))
        shown = torch.stack([view(images) for view in self.views])
        for place, classifier in enumerate(self.classifiers):
            with self._rough(images), self.backward[place].applied() if self.backward else nullcontext():
                if getattr(classifier, "takes_key", False):
                    logits = torch.stack([self._seen(classifier, each, at) for at, each in enumerate(shown)])
                else:
                    logits = classifier(shown.flatten(0, 1)).unflatten(0, shown.shape[:2])
            yield logits

    def _seen(
        self, classifier: Callable[..., Tensor], images: Float[Tensor, "batch 3 height width"], view: int = 0
    ) -> Float[Tensor, "batch classes"]:
        if self.key is None or not getattr(classifier, "takes_key", False):
            return classifier(images)
        return classifier(images, replace(self.key, view=view))

    def _rough(self, images: Tensor) -> torch.autocast:
        return torch.autocast(images.device.type, self.precision, enabled=self.precision != torch.float32)

    def _losses(self, logits: Float[Tensor, "views batch classes"]) -> Float[Tensor, "batch"]:
        """Mean of the criterion over the views, by their shares."""
        views, batch = logits.shape[:2]
        goals = select_rows(self.goals, torch.arange(batch).repeat(views))
        losses = self.criterion(logits.flatten(0, 1), goals).unflatten(0, (views, batch))
        return losses.mean(0) if self.shares is None else losses.new_tensor(self.shares) @ losses

    def _losses_and_active(
        self, answers: Float[Tensor, "models views batch classes"]
    ) -> tuple[Float[Tensor, "models batch"], Bool[Tensor, "models batch"]]:
        """Each model's loss, and whether it changes with the logits."""
        answers = answers.requires_grad_()
        losses = torch.stack([self._losses(each) for each in answers])
        (gradient,) = torch.autograd.grad(losses.sum(), answers)
        return losses.detach(), gradient.abs().amax((1, 3)) != 0
