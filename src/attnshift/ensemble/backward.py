"""Changes of a surrogate's backward pass, which leave its answers as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from attnshift.batching import batch_record, constant, image_norms, image_units, per_image, spread
from attnshift.classifiers.classifier import Classifier
from attnshift.classifiers.layers import find_layer, output_of, way_back
from attnshift.errors import ModelError
from attnshift.randomness import generator
from attnshift.types import Goals, RandomKey

__all__ = ["BackwardPass", "FeatureLoss"]


@dataclass(frozen=True)
class FeatureLoss:
    """Features that speak for the true class are lowered beside the loss on the logits: FIA, Wang
    et al., ICCV 2021, eq. 3 to 6.

    The loss is the sum of weights times features at one ``layer`` (see ``layers.find_layer``). An
    image's weights are its clean gradient at that layer, of the true logit or with a target of the
    true logit less the target's, averaged over ``draws`` copies, in each of which a share
    ``dropped`` of the values is black. At the layer the loss pulls ``share`` times as hard as the
    logits do, by the norms of an image's gradients, and so alike on every network.
    """

    share: float
    layer: float | str
    draws: int
    dropped: float

    def weights(
        self,
        classifier: Classifier,
        layer: nn.Module,
        images: Float[Tensor, "batch 3 height width"],
        goals: Goals,
        key: RandomKey,
    ) -> Float[Tensor, "batch ..."]:
        """Weights of the features of ``images`` at ``layer`` of ``classifier``, each image's of
        norm 1."""
        total: Tensor | float = 0.0
        for draw in range(self.draws):
            total = total + image_units(self._gradient(classifier, layer, self._copy(images, key, draw), goals))
        return image_units(total)  # type: ignore[arg-type]

    def _copy(
        self, images: Float[Tensor, "batch 3 height width"], key: RandomKey, draw: int
    ) -> Float[Tensor, "batch 3 height width"]:
        drawn = [generator(key.seed, id, "features", draw).random(images.shape[1:]) for id in key.ids]
        kept = torch.stack([torch.from_numpy(each) for each in drawn]) >= self.dropped
        return images * kept.to(images)

    def _gradient(
        self, classifier: Classifier, layer: nn.Module, images: Float[Tensor, "batch 3 height width"], goals: Goals
    ) -> Float[Tensor, "batch ..."]:
        seen: list[Tensor] = []

        def note(_module: nn.Module, _inputs: tuple[Any, ...], output: Any) -> None:
            seen.append(output_of(output))  # type: ignore[arg-type]

        with layer.register_forward_hook(note), torch.enable_grad():
            logits = classifier(images.detach().requires_grad_())
            pull = logits.gather(1, goals.labels[:, None])[:, 0]
            if goals.targets is not None:
                pull = pull - logits.gather(1, goals.targets[:, None])[:, 0]
            if len(seen) != 1 or seen[0] is None or len(seen[0]) != len(images):
                raise ModelError(
                    f"classifier '{classifier.name}' does not show its layer {self.layer} each image once, and "
                    "features.share needs that; take another features.layer, or leave that classifier out"
                )
            return torch.autograd.grad(pull.sum(), seen[0])[0].float()


@batch_record
class BackwardPass:
    """What the backward pass of one surrogate does otherwise than its network.

    ``skip_decay`` and ``relu_leak`` are as in ``layers.way_back``. At ``layer`` the gradient gets
    ``share`` of its own norm along ``weights`` [batch,...], image by image and view by view; an
    image without a gradient stays without.
    """

    network: nn.Module = constant()
    skip_decay: float = constant(default=1.0)
    relu_leak: float = constant(default=0.0)
    layer: nn.Module | None = constant(default=None)
    share: float = constant(default=0.0)
    weights: Tensor | None = per_image(default=None)

    @classmethod
    def of(
        cls,
        classifier: Classifier,
        skip_decay: float,
        relu_leak: float,
        features: FeatureLoss | None,
        images: Float[Tensor, "batch 3 height width"],
        goals: Goals,
        key: RandomKey,
    ) -> BackwardPass:
        """That of ``classifier`` in an attack on ``images``.

        Raises ``ModelError`` where ``features`` do not fit it.
        """
        plain = cls(classifier.network, skip_decay, relu_leak)
        if features is None:
            return plain
        inputs = classifier.preprocessing(images[:1]).expand(2, -1, -1, -1)
        layer = find_layer(classifier.name, classifier.network, inputs, features.layer)
        weights = features.weights(classifier, layer, images, goals, key)
        return replace(plain, layer=layer, share=features.share, weights=weights)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Each pass of the network that is made meanwhile goes back this way."""
        with ExitStack() as stack:
            if self.skip_decay != 1.0 or self.relu_leak:
                stack.enter_context(way_back(self.network, self.skip_decay, self.relu_leak))
            if self.layer is not None:
                stack.enter_context(self.layer.register_forward_hook(self._pull))
            yield

    def _pull(self, _module: nn.Module, _inputs: tuple[Any, ...], output: Any) -> None:
        features, weights = output_of(output), self.weights
        if features is None or weights is None or not features.requires_grad:
            return
        along = self.share * weights.repeat(len(features) // len(weights), *[1] * (weights.ndim - 1))
        features.register_hook(_added(along))


def _added(along: Float[Tensor, "rows ..."]) -> Callable[[Tensor], Tensor]:
    def add(gradient: Tensor) -> Tensor:
        return gradient + (spread(image_norms(gradient.float()), along) * along).to(gradient)

    return add
