"""A ball of network features around each image: steps of a stated length, and projection."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from attnshift.batching import image_norms, image_units, spread
from attnshift.downloaded import load_lpips
from attnshift.weights_folder import LpipsNetwork

__all__ = ["FeatureBall", "lpips_features"]

_OVERSHOOT, _NEWTON_STEPS, _HALVINGS = 0.1, 10, 10


def lpips_features(network: LpipsNetwork) -> Callable[[Tensor], Tensor]:
    """Features [batch,values] of images [batch,3,height,width] in [0,1], in which distances are
    Euclidean.

    They are those of the layers that LPIPS reads on ``network``, of unit length at each position,
    over the root of the number of positions (Laidlaw, Singla and Feizi, ICLR 2021, section 3). The
    distance is not LPIPS, which weighs channels by learned weights and has no root.
    ``UnavailableError`` is raised without the network's weights.
    """
    lpips = load_lpips(network)

    def features(images: Tensor) -> Tensor:
        lpips.to(images)
        layers = lpips.net(lpips.scaling_layer(2 * images - 1))  # type: ignore[operator]
        return torch.cat([(_unit(each) / each[0, 0].numel() ** 0.5).flatten(1) for each in layers], dim=1)

    return features


@dataclass(frozen=True)
class FeatureBall:
    """Images whose ``features`` are within ``radius`` [batch] of those of ``centre``.

    ``centre`` is [batch,3,height,width] in [0,1]; ``features`` maps such images to
    [batch,values].
    """

    features: Callable[[Tensor], Tensor]
    centre: Tensor
    radius: Tensor

    @cached_property
    def _middle(self) -> Tensor:
        with torch.no_grad():
            return self.features(self.centre)

    def distances(self, points: Tensor) -> Tensor:
        """Distances [batch] of ``points`` from the centre, in features."""
        return (self.features(points) - self._middle).norm(dim=1)

    def step(self, points: Tensor, uphill: Tensor, length: float, iterations: int) -> Tensor:
        """The step from ``points`` that is ``length`` radii long in features and climbs
        ``uphill``, a gradient, most.

        With J the Jacobian of the features it lies along the solution u of J'J u = uphill, which
        ``iterations`` of conjugate gradients approach (Hestenes and Stiefel, 1952). A vanishing
        gradient gives no step.
        """
        points = points.detach().requires_grad_()
        with torch.enable_grad():
            found = self.features(points)
            # The transposed Jacobian times ``weights`` is linear in them, so its gradient by them
            # is the Jacobian.
            weights = torch.zeros_like(found, requires_grad=True)
            (transposed,) = torch.autograd.grad(found, points, weights, create_graph=True)
        change, step = torch.zeros_like(found), torch.zeros_like(points)
        # The scale of the gradient has no part in the step, and would have one in rounding.
        left = image_units(uphill)
        direction, square = left, _products(left, left)
        for _ in range(iterations):
            (forward,) = torch.autograd.grad(transposed, weights, direction, retain_graph=True)
            share = square / _products(forward, forward).clamp(min=1e-30)
            step, change = step + spread(share, direction) * direction, change + share[:, None] * forward
            (back,) = torch.autograd.grad(found, points, forward, retain_graph=True)
            left, before = left - spread(share, back) * back, square
            square = _products(left, left)
            direction = left + spread(square / before.clamp(min=1e-30), direction) * direction
        return spread(length * self.radius / image_norms(change).clamp(min=1e-30), step) * step

    @torch.no_grad()
    def project(self, points: Tensor) -> Tensor:
        """Points of the ball near ``points`` in [0,1].

        Newton steps on the distance, each a tenth too long, then bisection of the segment from the
        centre: what comes back is within the radius.
        """
        for _ in range(_NEWTON_STEPS):
            excess, slope = self._excess(points)
            if not bool((excess > 0).any()):
                return points
            stride = (1 + _OVERSHOOT) * excess.clamp(min=0) / _products(slope, slope).clamp(min=1e-30)
            points = (points - spread(stride, slope) * slope).clamp(0, 1)
        within = spread(self.distances(points) <= self.radius, points)
        low, high = torch.where(within, points, self.centre), points
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            within = spread(self.distances(middle) <= self.radius, middle)
            low, high = torch.where(within, middle, low), torch.where(within, high, middle)
        return low

    def _excess(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Distances [batch] beyond the radius, and their gradient at ``points``."""
        points = points.detach().requires_grad_()
        with torch.enable_grad():
            excess = self.distances(points) - self.radius
            (slope,) = torch.autograd.grad(excess.sum(), points)
        return excess.detach(), slope


def _unit(features: Tensor) -> Tensor:
    """Features [batch,channels,rows,columns] of unit length over the channels."""
    return features / (features.square().sum(1, keepdim=True) + 1e-8).sqrt()


def _products(first: Tensor, second: Tensor) -> Tensor:
    return (first * second).flatten(1).sum(1)
