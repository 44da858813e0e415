"""Grad-CAM, maps of the pixels that speak for a class, at a network's last features."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from attnshift.classifiers.classifier import Classifier
from attnshift.errors import ModelError

__all__ = ["grad_cam"]


@torch.no_grad()
def grad_cam(classifier: Classifier, images: Tensor, labels: Tensor) -> Tensor:
    """Grad-CAM maps [batch,1,height,width] in [0,1] of ``images`` [batch,3,height,width] in [0,1].

    Each map shows which pixels speak for the image's label in ``labels`` [batch]. It is resized to
    the image and divided by its maximum. It is zero if no value is positive, and at a margin that
    the classifier crops. Maps are constants, without a gradient.

    Selvaraju et al., "Grad-CAM", ICCV 2017, eq. 1 and 2, at the features of timm's
    ``forward_features``: weights = mean over positions of the logit's gradient, map = relu(sum over
    channels of weights * features).

    In a transformer whose head reads the class token alone, the gradient is zero at all final patch
    tokens. There, the features are the patch tokens that enter the last block's attention,
    ``blocks[-1].norm1``: the last tokens that such a logit depends on.

    A convolutional network of torchvision has its features where ``layer4`` or ``features`` ends.

    Raises ``ModelError`` for a network whose features cannot be read as a map.
    """
    inputs, labels = classifier.preprocessing(images), classifier.own_labels(labels)
    block = _last_convolutions(classifier.network)
    if block is not None:
        features, gradients = _at_output(block, lambda: classifier.network(inputs), labels)
        if features.ndim != 4 or features[0, 0].numel() < 2:
            raise _refusal(classifier, f"features of shape {tuple(features.shape)} are not understood")
        return _finished(classifier, features, gradients, images)
    features = _final_features(classifier, inputs)
    as_maps = _layout(classifier, features)
    with torch.enable_grad():
        logits = classifier.network.forward_head(features)  # type: ignore[operator]
        gradients = _logit_gradients(logits, labels, features)
    if gradients.any() and not as_maps(gradients).any():
        features, gradients = _before_last_attention(classifier, inputs, labels)
        if not as_maps(gradients).any():
            raise _refusal(classifier, "its logits do not depend on the patch tokens at blocks[-1].norm1")
    return _finished(classifier, as_maps(features), as_maps(gradients), images)


def _finished(classifier: Classifier, features: Tensor, gradients: Tensor, images: Tensor) -> Tensor:
    """Maps of ``images``, of ``features`` and ``gradients`` [batch,channels,rows,columns]."""
    weights = gradients.mean((2, 3), keepdim=True)
    maps = (weights * features).sum(1, keepdim=True).relu().float()
    maps = classifier.preprocessing.lay_over(maps, images.shape[-2:])
    peaks = maps.amax((2, 3), keepdim=True)
    return maps / torch.where(peaks > 0, peaks, 1)


def _last_convolutions(network: nn.Module) -> nn.Module | None:
    """The block of a convolutional network of torchvision that ends with its last features; None
    for other networks. torchvision's Swin keeps channels last and permutes its features."""
    if hasattr(network, "forward_features") or hasattr(network, "permute"):
        return None
    block = getattr(network, "layer4", getattr(network, "features", None))
    return block if isinstance(block, nn.Module) else None


def _at_output(block: nn.Module, run: Callable[[], Tensor], labels: Tensor) -> tuple[Tensor, Tensor]:
    """Output of ``block`` in the pass that ``run`` makes, as a leaf, and its gradient."""
    leaves: list[Tensor] = []

    def cut(_module: nn.Module, _arguments: tuple[Tensor, ...], output: Tensor) -> Tensor:
        leaves.append(output.detach().requires_grad_())
        # What follows may work in place, as DenseNet's last relu does.
        return leaves[-1].clone()

    with block.register_forward_hook(cut), torch.enable_grad():
        logits = run()
        return leaves[-1], _logit_gradients(logits, labels, leaves[-1])


def _final_features(classifier: Classifier, inputs: Tensor) -> Tensor:
    """Features that the head reads, as a leaf, so that the gradient passes the head alone."""
    network = classifier.network
    if not (hasattr(network, "forward_features") and hasattr(network, "forward_head")):
        raise _refusal(classifier, f"{type(network).__name__} has no forward_features and forward_head")
    features = network.forward_features(inputs)  # type: ignore[operator]
    if not isinstance(features, Tensor):
        raise _refusal(classifier, f"forward_features returns a {type(features).__name__}")
    return features.detach().requires_grad_()


def _logit_gradients(logits: Tensor, labels: Tensor, features: Tensor) -> Tensor:
    """Gradient of each image's own logit.

    Images do not mix, so the gradient of the sum contains all.
    """
    return torch.autograd.grad(logits.gather(1, labels[:, None]).sum(), features)[0]


def _layout(classifier: Classifier, features: Tensor) -> Callable[[Tensor], Tensor]:
    """Function from the layout of ``features`` to [batch,channels,rows,columns]."""
    network, shape = classifier.network, tuple(features.shape)
    grid = _token_grid(network, shape[1]) if len(shape) == 3 else None
    # Another axis can be as long as the channels. timm's networks with channels last state it in
    # output_fmt.
    axis = 3 if getattr(network, "output_fmt", None) == "NHWC" else 1
    if len(shape) == 4 and shape[axis] == getattr(network, "num_features", None):
        grid = shape[1:3] if axis == 3 else shape[2:]
    if grid is None or math.prod(grid) < 2:
        raise _refusal(classifier, f"features of shape {shape} are not understood")
    if len(shape) == 4:
        return lambda values: values.movedim(axis, 1)
    # Patch tokens are last. Prefix tokens are first, and some networks add them after the last
    # block (CaiT, XCiT).
    return lambda tokens: tokens[:, -math.prod(grid) :].transpose(1, 2).unflatten(2, grid)


def _token_grid(network: nn.Module, tokens: int) -> tuple[int, ...] | None:
    """Rows and columns of the patch tokens among ``tokens``, or None if they form no grid."""
    patches = tokens - (getattr(network, "num_prefix_tokens", None) or 0)
    grid = getattr(getattr(network, "patch_embed", None), "grid_size", None)
    if grid is None or math.prod(grid) != patches:
        grid = (math.isqrt(patches), math.isqrt(patches))
    return tuple(grid) if math.prod(grid) == patches else None


def _before_last_attention(classifier: Classifier, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens [batch,tokens,channels] before the last block's attention, and their gradient."""
    network = classifier.network
    blocks = getattr(network, "blocks", None)
    norm = getattr(blocks[-1], "norm1", None) if blocks else None  # type: ignore[index]
    if norm is None:
        raise _refusal(classifier, "its logits do not depend on its final patch tokens and blocks[-1].norm1 is missing")
    return _at_output(norm, lambda: network.forward_head(network.forward_features(inputs)), labels)  # type: ignore[operator]


def _refusal(classifier: Classifier, found: str) -> ModelError:
    return ModelError(
        f"no Grad-CAM for classifier '{classifier.name}': {found}; leave that classifier out, "
        "or do without Grad-CAM (mask source 'attention' or 'given')"
    )
