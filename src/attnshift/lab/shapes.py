"""Ten objects of the tabletop world as signed distance functions.

An object stands on the floor ``y = 0`` at the origin and consists of parts. A part has a distance
function, from points [rays,3] to signed distances [rays] (negative inside), and a paint: the
object's own colour or a fixed one. Distance primitives follow I. Quilez, "Distance functions"
(iquilezles.org/articles/distfunctions); the objects are our own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["NOTHING", "SHAPES", "Paint", "Part", "Shape"]

Distance = Callable[[Tensor], Tensor]
Paint = Callable[[Tensor, Tensor], Tensor]
"""Function (points [rays,3], colour [3]) -> albedo [rays,3] in [0,1]."""


@dataclass(frozen=True)
class Part:
    distance: Distance
    paint: Paint


@dataclass(frozen=True)
class Shape:
    """Object: its parts, and the ball (height of its centre, radius) that encloses them."""

    parts: tuple[Part, ...]
    centre: float
    radius: float

    def distance(self, points: Tensor) -> Tensor:
        nearest = self.parts[0].distance(points)
        for part in self.parts[1:]:
            nearest = torch.minimum(nearest, part.distance(points))
        return nearest

    def albedo(self, points: Tensor, colour: Tensor) -> Tensor:
        distances = torch.stack([part.distance(points) for part in self.parts])
        owner = distances.argmin(0)
        painted = torch.empty_like(points)
        for index, part in enumerate(self.parts):
            chosen = owner == index
            if chosen.any():
                painted[chosen] = part.paint(points[chosen], colour)
        return painted


# Primitives. Points are [rays,3]; sizes are in object units (an object is about 1 high).


def _sphere(y: float, radius: float, x: float = 0.0, z: float = 0.0) -> Distance:
    return lambda p: _length(p[:, 0] - x, p[:, 1] - y, p[:, 2] - z) - radius


def _box(centre: tuple[float, float, float], half: tuple[float, float, float], round_: float = 0.0) -> Distance:
    def distance(p: Tensor) -> Tensor:
        qx, qy, qz = ((p[:, i] - centre[i]).abs() - (half[i] - round_) for i in range(3))
        outside = _length(qx.clamp(min=0), qy.clamp(min=0), qz.clamp(min=0))
        return outside + torch.maximum(qx, torch.maximum(qy, qz)).clamp(max=0) - round_

    return distance


def _cylinder(low: float, high: float, radius: float, x: float = 0.0, round_: float = 0.0) -> Distance:
    return _cone(low, high, radius, radius, x, round_)


def _cone(low: float, high: float, wide: float, narrow: float, x: float = 0.0, round_: float = 0.0) -> Distance:
    """Upright truncated cone, ``wide`` at ``low``, ``narrow`` at ``high``; a bound, not exact."""
    slope = (wide - narrow) / (high - low)
    shrink = (1 + slope * slope) ** -0.5
    middle, half = (low + high) / 2, (high - low) / 2 - round_

    def distance(p: Tensor) -> Tensor:
        y = p[:, 1]
        side = (_length(p[:, 0] - x, p[:, 2]) - (wide - slope * (y - low)) + round_) * shrink
        caps = (y - middle).abs() - half
        return _length(side.clamp(min=0), caps.clamp(min=0)) + torch.maximum(side, caps).clamp(max=0) - round_

    return distance


def _ring(y: float, large: float, small: float, flat: bool, x: float = 0.0) -> Distance:
    """Torus around the vertical axis (``flat``), else around the z axis."""

    def distance(p: Tensor) -> Tensor:
        across = _length(p[:, 0] - x, p[:, 2]) if flat else _length(p[:, 0] - x, p[:, 1] - y)
        along = p[:, 1] - y if flat else p[:, 2]
        return _length(across - large, along) - small

    return distance


def _rod(y: float, half: float, radius: float) -> Distance:
    return lambda p: torch.maximum(_length(p[:, 1] - y, p[:, 2]) - radius, p[:, 0].abs() - half)


def _gable(low: float, high: float, half_width: float, half_depth: float) -> Distance:
    """Roof, a triangular prism with its ridge along z."""
    slope = (high - low) / half_width
    shrink = (1 + slope * slope) ** -0.5

    def distance(p: Tensor) -> Tensor:
        sides = (p[:, 1] - high + slope * p[:, 0].abs()) * shrink
        return torch.maximum(torch.maximum(sides, low - p[:, 1]), p[:, 2].abs() - half_depth)

    return distance


def _without(solid: Distance, hole: Distance) -> Distance:
    return lambda p: torch.maximum(solid(p), -hole(p))


def _length(*components: Tensor) -> Tensor:
    total = components[0] * components[0]
    for component in components[1:]:
        total = torch.addcmul(total, component, component)
    return total.sqrt()


# Paints.


def _own(points: Tensor, colour: Tensor) -> Tensor:
    return colour.expand(points.shape)


def _fixed(red: float, green: float, blue: float) -> Paint:
    return lambda points, colour: points.new_tensor([red, green, blue]).expand(points.shape)


def _blend(share: float, red: float, green: float, blue: float) -> Paint:
    return lambda points, colour: torch.lerp(colour, colour.new_tensor([red, green, blue]), share).expand(points.shape)


def _pips(points: Tensor, colour: Tensor) -> Tensor:
    """Faces of a die: four, five or one dark spots, by the pair of faces that a point lies on."""
    local = points - points.new_tensor([0.0, 0.4, 0.0])
    face = local.abs().argmax(1)
    u = torch.where(face == 0, local[:, 1], local[:, 0])
    v = torch.where(face == 2, local[:, 1], local[:, 2])
    corners = _length(u.abs() - 0.2, v.abs() - 0.2) < 0.085
    centre = _length(u, v) < 0.095
    spot = torch.where(face == 0, corners, torch.where(face == 1, corners | centre, centre))
    ink = 0.06 if float(colour.mean()) > 0.3 else 0.9
    return torch.where(spot[:, None], points.new_tensor(ink), colour)


def _spots(points: Tensor, colour: Tensor) -> Tensor:
    """White dots on the cap of a mushroom, spaced evenly around its axis."""
    around = torch.atan2(points[:, 2], points[:, 0]) * (7 / 6.2831853)
    low = _length(((around + 0.5) % 1 - 0.5) * 0.42, points[:, 1] - 0.72) < 0.075
    top = _length(points[:, 0], points[:, 2]) < 0.11
    return torch.where((low | top)[:, None], points.new_tensor([0.95, 0.93, 0.88]), colour)


def _facade(points: Tensor, colour: Tensor) -> Tensor:
    """Doors and windows of a house, on its two gable ends and its two long walls."""
    x, y, z = points.unbind(1)
    end = z.abs() > 0.419
    door = end & (x.abs() < 0.095) & (y < 0.3)
    panes = end & ((x.abs() - 0.25).abs() < 0.075) & ((y - 0.36).abs() < 0.085)
    side = (x.abs() > 0.419) & ((z.abs() - 0.2).abs() < 0.09) & ((y - 0.32).abs() < 0.095)
    painted = torch.where(door[:, None], points.new_tensor([0.28, 0.16, 0.09]), colour)
    return torch.where((panes | side)[:, None], points.new_tensor([0.16, 0.22, 0.32]), painted)


_WOOD = _fixed(0.36, 0.22, 0.12)
_STEEL = _fixed(0.34, 0.35, 0.38)
_CREAM = _fixed(0.92, 0.88, 0.78)
_INK = _fixed(0.05, 0.05, 0.06)

SHAPES: dict[str, Shape] = {
    "ball": Shape((Part(_sphere(0.5, 0.5), _own),), 0.5, 0.5),
    "die": Shape((Part(_box((0, 0.4, 0), (0.4, 0.4, 0.4), 0.07), _pips),), 0.4, 0.66),
    "donut": Shape(
        (Part(_ring(0.2, 0.42, 0.2, flat=True), lambda p, c: torch.where((p[:, 1] > 0.2)[:, None], c, c * 0.55)),),
        0.2,
        0.63,
    ),
    "mug": Shape(
        (
            Part(_without(_cylinder(0, 0.9, 0.38, round_=0.03), _cylinder(0.1, 1.1, 0.3)), _own),
            Part(_without(_ring(0.46, 0.24, 0.06, flat=False, x=0.4), _cylinder(0.0, 1.0, 0.33)), _own),
        ),
        0.45,
        0.78,
    ),
    "mushroom": Shape(
        (
            Part(_cone(0, 0.6, 0.2, 0.14, round_=0.02), _CREAM),
            Part(_without(_sphere(0.5, 0.48), _box((0, -0.02, 0), (1, 0.5, 1))), _spots),
        ),
        0.5,
        0.58,
    ),
    "snowman": Shape(
        (
            Part(_sphere(0.34, 0.36), _own),
            Part(_sphere(0.84, 0.26), _own),
            Part(_sphere(1.2, 0.185), _own),
            Part(_sphere(1.24, 0.034, x=0.07, z=0.165), _INK),
            Part(_sphere(1.24, 0.034, x=-0.07, z=0.165), _INK),
            Part(_sphere(1.18, 0.05, z=0.2), _fixed(0.95, 0.45, 0.08)),
        ),
        0.68,
        0.73,
    ),
    "tree": Shape(
        (
            Part(_cylinder(0, 0.3, 0.09), _WOOD),
            Part(_cone(0.2, 0.66, 0.48, 0.14), _own),
            Part(_cone(0.52, 0.96, 0.38, 0.1), _own),
            Part(_cone(0.84, 1.28, 0.28, 0.01), _own),
        ),
        0.62,
        0.7,
    ),
    "bottle": Shape(
        (
            Part(_cylinder(0, 0.72, 0.25, round_=0.03), _own),
            Part(_cone(0.68, 0.9, 0.24, 0.09), _own),
            Part(_cylinder(0.85, 1.14, 0.09), _own),
            Part(_cylinder(1.12, 1.24, 0.105), _blend(0.75, 0.1, 0.1, 0.1)),
            Part(_cylinder(0.22, 0.5, 0.256), _blend(0.75, 0.95, 0.93, 0.86)),
        ),
        0.6,
        0.68,
    ),
    "house": Shape(
        (
            Part(_box((0, 0.28, 0), (0.42, 0.28, 0.42)), _facade),
            Part(_gable(0.54, 0.98, 0.52, 0.47), _blend(0.55, 0.3, 0.12, 0.08)),
            Part(_box((0.26, 0.84, 0.2), (0.07, 0.16, 0.07)), _fixed(0.45, 0.25, 0.2)),
        ),
        0.45,
        0.75,
    ),
    "dumbbell": Shape(
        (
            Part(_sphere(0.26, 0.26, x=0.5), _own),
            Part(_sphere(0.26, 0.26, x=-0.5), _own),
            Part(_rod(0.26, 0.5, 0.09), _STEEL),
        ),
        0.26,
        0.78,
    ),
}

NOTHING = Shape((Part(lambda points: torch.full_like(points[:, 0], 100.0), _own),), 0.0, 0.0)
"""No object: every ray and every shadow misses it."""
