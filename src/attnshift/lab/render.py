"""Rendering of scenes by ray marching. All rays of an image are one batch of tensor operations.

The images of one call are rendered one after the other, so an image depends on its scene alone, to
the last bit. Vectorised kernels round differently at the ends of an array, so in a shared array a
pixel would depend on other images of the batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from attnshift.lab.scenes import COLOURS, SKIES, Scene
from attnshift.lab.shapes import NOTHING, SHAPES, Shape

__all__ = ["SIZE", "Rendering", "render_classes", "render_scenes"]

SIZE = 64
_HIT = 2e-3
_FAR = 60.0
_LEAST_COVERAGE = 0.085


@dataclass(frozen=True)
class Rendering:
    """Images [n,3,size,size] and masks [n,1,size,size], both in [0,1].

    A value of a mask is the share of the pixel that the object covers.
    """

    images: Tensor
    masks: Tensor


def render_scenes(scenes: Sequence[Scene], size: int = SIZE, samples: int = 2) -> Rendering:
    """Render ``scenes`` at ``size`` x ``size`` pixels with ``samples`` x ``samples`` rays each."""
    rendered = [_render(scene, size, samples) for scene in scenes]
    return Rendering(torch.stack([image for image, _ in rendered]), torch.stack([mask for _, mask in rendered]))


def render_classes(scene: Scene, size: int = SIZE, samples: int = 2) -> Tensor:
    """Images [classes+1,3,size,size] in [0,1] of ``scene`` with an object of each class in the
    place of its own, and last without one. The camera is the same."""
    camera = _framed(scene, SHAPES[scene.class_name])
    return torch.stack([_seen(scene, shape, camera, size, samples)[0] for shape in (*SHAPES.values(), NOTHING)])


def _render(scene: Scene, size: int, samples: int) -> tuple[Tensor, Tensor]:
    shape = SHAPES[scene.class_name]
    return _seen(scene, shape, _framed(scene, shape), size, samples)


def _seen(scene: Scene, shape: Shape, camera: _Camera, size: int, samples: int) -> tuple[Tensor, Tensor]:
    side = size * samples
    origins, directions = camera.rays(side)
    depth, hit = _march(shape, scene.object_yaw, origins, directions)
    colours = _background(scene, directions)
    floor_depth = torch.where(directions[:, 1] < -1e-4, -origins[:, 1] / directions[:, 1].clamp(max=-1e-4), _FAR)
    on_floor = (~hit & (floor_depth < _FAR)).nonzero()[:, 0]
    on_object = hit.nonzero()[:, 0]
    colours[on_floor] = _shade_floor(scene, shape, origins, directions, floor_depth, on_floor, colours, side)
    colours[on_object] = _shade_object(scene, shape, origins, directions, depth, on_object)
    image = (colours * colours.new_tensor(scene.tint)).clamp(0, 1) ** (1 / 1.15)
    image = image.view(side, side, 3).permute(2, 0, 1)
    mask = hit.float().view(1, side, side)
    pool = torch.nn.functional.avg_pool2d
    return pool(image[None], samples)[0], pool(mask[None], samples)[0]


@dataclass(frozen=True)
class _Camera:
    position: Tensor
    right: Tensor
    up: Tensor
    forward: Tensor
    extent: float

    def rays(self, side: int) -> tuple[Tensor, Tensor]:
        """Origins and unit directions of all rays, [side*side,3], row by row from the top left."""
        ticks = (torch.arange(side) + 0.5) / side * 2 - 1
        down, across = torch.meshgrid(ticks, ticks, indexing="ij")
        directions = (
            self.forward
            + (across.reshape(-1, 1) * self.extent) * self.right
            - (down.reshape(-1, 1) * self.extent) * self.up
        )
        directions = directions / directions.norm(dim=1, keepdim=True)
        return self.position.expand_as(directions), directions


def _camera(scene: Scene, shape: Shape, distance: float) -> _Camera:
    pitch, yaw = scene.camera_pitch, scene.camera_yaw
    backward = torch.tensor(
        [math.cos(pitch) * math.sin(yaw), math.sin(pitch), math.cos(pitch) * math.cos(yaw)], dtype=torch.float32
    )
    forward = -backward
    right = torch.tensor([math.cos(yaw), 0.0, -math.sin(yaw)])
    up = torch.linalg.cross(right, forward)
    extent = math.tan(scene.field_of_view / 2)
    centre = torch.tensor([0.0, shape.centre, 0.0])
    room = max(0.0, 1 - shape.radius / (extent * distance)) + 0.1
    aim = (-scene.shift[0] * right + scene.shift[1] * up) * room * extent * distance
    return _Camera(centre + aim + backward * distance, right, up, forward, extent)


def _framed(scene: Scene, shape: Shape) -> _Camera:
    """Camera at a distance at which the object covers ``scene.coverage`` of the frame.

    The distance is found on a coarse grid. At that distance the frame could cut a long object, so
    the camera moves back until the object is whole or covers only the least share.
    """
    extent = math.tan(scene.field_of_view / 2)
    whole = shape.radius / extent
    distance = whole * math.sqrt(0.3 / scene.coverage)
    camera = _camera(scene, shape, distance)
    for _ in range(6):
        _, hit = _march(shape, scene.object_yaw, *camera.rays(32))
        covered = max(float(hit.float().mean()), 0.01)
        wanted = max(whole, distance * math.sqrt(covered / scene.coverage))
        if covered < _LEAST_COVERAGE:
            wanted = min(wanted, distance * math.sqrt(covered / (_LEAST_COVERAGE * 1.1)))
        if abs(wanted / distance - 1) < 0.02:
            break
        distance = wanted
        camera = _camera(scene, shape, distance)
    return camera


def _to_object(points: Tensor, yaw: float) -> Tensor:
    """Points or directions [rays,3] in the object's own axes, rotated about the vertical axis."""
    c, s = math.cos(yaw), math.sin(yaw)
    x, y, z = points.unbind(1)
    return torch.stack([c * x - s * z, y, s * x + c * z], 1)


def _march(shape: Shape, yaw: float, origins: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """Depths [rays] of first hits with the object, and flags [rays] of hits.

    Rays that miss the object's ball are skipped.
    """
    depth = torch.full((len(origins),), _FAR)
    hit = torch.zeros(len(origins), dtype=torch.bool)
    near, far = _ball_span(shape, origins, directions)
    index = ((near < far) & (far > 0)).nonzero()[:, 0]
    start, way = _to_object(origins[index], yaw), _to_object(directions[index], yaw)
    t, far = near[index].clamp(min=0), far[index]
    for _ in range(64):
        if not len(index):
            break
        distance = shape.distance(torch.addcmul(start, way, t[:, None]))
        reached = distance < _HIT
        depth[index[reached]], hit[index[reached]] = t[reached], True
        t = t + distance * 0.95
        alive = ~reached & (t < far)
        index, start, way, t, far = index[alive], start[alive], way[alive], t[alive], far[alive]
    return depth, hit


def _ball_span(shape: Shape, origins: Tensor, directions: Tensor, slack: float = 0.02) -> tuple[Tensor, Tensor]:
    """Depths at which rays enter and leave the object's ball. For a miss, entry is beyond exit."""
    offset = origins - origins.new_tensor([0.0, shape.centre, 0.0])
    middle = -(offset * directions).sum(1)
    squared = (shape.radius + slack) ** 2 - (offset * offset).sum(1) + middle * middle
    half = squared.clamp(min=0).sqrt()
    return torch.where(squared > 0, middle - half, 1.0), torch.where(squared > 0, middle + half, 0.0)


def _light(scene: Scene) -> Tensor:
    pitch, yaw = scene.light_pitch, scene.light_yaw
    return torch.tensor([math.cos(pitch) * math.sin(yaw), math.sin(pitch), math.cos(pitch) * math.cos(yaw)])


def _shadow(scene: Scene, shape: Shape, points: Tensor, sharpness: float = 9.0) -> Tensor:
    """Share of light that reaches ``points``, 0 in full shadow.

    The nearest miss softens the edge.
    """
    light = torch.ones(len(points))
    ways = _light(scene).expand_as(points)
    near, far = _ball_span(shape, points, ways, slack=0.12)
    index = ((near < far) & (far > 0)).nonzero()[:, 0]
    start, way = _to_object(points[index], scene.object_yaw), _to_object(ways[index], scene.object_yaw)
    t, far = near[index].clamp(min=0.03), far[index]
    for _ in range(28):
        if not len(index):
            break
        distance = shape.distance(torch.addcmul(start, way, t[:, None]))
        light[index] = torch.minimum(light[index], (sharpness * distance / t).clamp(0, 1))
        t = t + distance.clamp(0.02, 0.3)
        alive = (t < far) & (light[index] > 0.01)
        index, start, way, t, far = index[alive], start[alive], way[alive], t[alive], far[alive]
    return light * light * (3 - 2 * light)


def _shade_object(
    scene: Scene, shape: Shape, origins: Tensor, directions: Tensor, depth: Tensor, index: Tensor
) -> Tensor:
    views = directions[index]
    points = torch.addcmul(origins[index], views, depth[index, None])
    local = _to_object(points, scene.object_yaw)
    normals = _to_object(_normals(shape, local), -scene.object_yaw)
    albedo = shape.albedo(local, torch.tensor(COLOURS[scene.colour]))
    light = _light(scene)
    facing = normals @ light
    shadow = _shadow(scene, shape, points + normals * 0.02)
    lit = facing.clamp(min=0) * shadow
    sky = 0.5 + 0.5 * normals[:, 1]
    half = torch.nn.functional.normalize(light - views, dim=1)
    shine = scene.gloss * (normals * half).sum(1).clamp(min=0) ** 40 * shadow
    rim = 0.12 * (1 + (normals * views).sum(1)).clamp(0, 1) ** 3
    occluded = 0.55 + 0.45 * (points[:, 1] / 0.35).clamp(0, 1)
    diffuse = (0.78 * scene.light) * lit + (0.24 + 0.16 * sky) * occluded
    return albedo * diffuse[:, None] + (shine + rim * sky)[:, None]


def _normals(shape: Shape, points: Tensor) -> Tensor:
    """Unit gradients of the distance at ``points`` [rays,3], by tetrahedral differences."""
    step = 1.5e-3
    corners = points.new_tensor([[1, -1, -1], [-1, -1, 1], [-1, 1, -1], [1, 1, 1]])
    gradient = sum(corner * shape.distance(points + corner * step)[:, None] for corner in corners)
    return torch.nn.functional.normalize(torch.as_tensor(gradient), dim=1)


def _background(scene: Scene, directions: Tensor) -> Tensor:
    top, horizon = (directions.new_tensor(colour) for colour in SKIES[scene.sky])
    height = (directions[:, 1:2] / 0.45).clamp(0, 1)
    return torch.lerp(horizon.expand(len(directions), 3), top, height.sqrt())


def _shade_floor(
    scene: Scene,
    shape: Shape,
    origins: Tensor,
    directions: Tensor,
    depth: Tensor,
    index: Tensor,
    background: Tensor,
    side: int,
) -> Tensor:
    points = torch.addcmul(origins[index], directions[index], depth[index, None])
    footprint = depth[index] * 2 / side / directions[index, 1].abs().clamp(min=0.02)
    albedo = _FLOOR_PAINT[scene.floor](*_floor_axes(scene, points), footprint)
    contact = shape.distance(_to_object(points, scene.object_yaw))
    occluded = 0.62 + 0.38 * (contact / 0.45).clamp(0, 1)
    lit = _light(scene)[1] * _shadow(scene, shape, points + points.new_tensor([0.0, 0.01, 0.0]))
    shade = 0.72 * scene.light * lit + 0.36 * occluded
    haze = (1 - torch.exp(-depth[index] * 0.035))[:, None]
    return torch.lerp(albedo * shade[:, None], background[index], haze)


def _floor_axes(scene: Scene, points: Tensor) -> tuple[Tensor, Tensor]:
    c, s = math.cos(scene.floor_yaw), math.sin(scene.floor_yaw)
    x, z = points[:, 0], points[:, 2]
    return c * x - s * z + scene.floor_phase[0], s * x + c * z + scene.floor_phase[1]


def _fade(footprint: Tensor, period: float) -> Tensor:
    """Remaining contrast of a pattern of ``period`` if a pixel covers ``footprint`` of floor."""
    return (1.4 - 2 * footprint / period).clamp(0, 1)


def _mixed(base: tuple[float, float, float], other: tuple[float, float, float], amount: Tensor) -> Tensor:
    return torch.lerp(amount.new_tensor(base).expand(len(amount), 3), amount.new_tensor(other), amount[:, None])


def _wood(x: Tensor, z: Tensor, footprint: Tensor) -> Tensor:
    plank = torch.floor(x / 0.7)
    tone = torch.sin(plank * 12.9898) * 0.5 + 0.5
    grain = torch.sin(x * 16 + 2.2 * torch.sin(z * 1.3 + plank * 3.1)) * 0.5 + 0.5
    seam = ((x / 0.7 - plank) < 0.06).float() * _fade(footprint, 0.35)
    amount = 0.5 + (0.45 * (tone - 0.5) + 0.4 * (grain - 0.5) * _fade(footprint, 0.4)) - 0.45 * seam
    return _mixed((0.40, 0.23, 0.12), (0.80, 0.56, 0.35), amount.clamp(0, 1))


def _tiles(x: Tensor, z: Tensor, footprint: Tensor) -> Tensor:
    u, v = x / 0.62, z / 0.62
    check = (torch.floor(u) + torch.floor(v)) % 2
    edge = torch.minimum((u % 1 - 0.5).abs(), (v % 1 - 0.5).abs())
    grout = (torch.maximum((u % 1 - 0.5).abs(), (v % 1 - 0.5).abs()) > 0.475).float() * _fade(footprint, 0.3)
    amount = 0.5 + (check - 0.5) * _fade(footprint, 1.2) - 0.25 * grout + 0.03 * edge
    return _mixed((0.44, 0.46, 0.48), (0.90, 0.90, 0.88), amount.clamp(0, 1))


def _grass(x: Tensor, z: Tensor, footprint: Tensor) -> Tensor:
    blades = torch.sin(x * 23 + 3 * torch.sin(z * 7.3)) * torch.sin(z * 19 + 3 * torch.sin(x * 6.1))
    patches = torch.sin(x * 1.7 + 1.3 * torch.sin(z * 1.1)) * torch.sin(z * 1.9 + x * 0.4)
    amount = 0.5 + 0.28 * blades * _fade(footprint, 0.3) + 0.2 * patches * _fade(footprint, 3.0)
    return _mixed((0.22, 0.40, 0.12), (0.56, 0.74, 0.34), amount.clamp(0, 1))


_FLOOR_PAINT = {"wood": _wood, "tiles": _tiles, "grass": _grass}
