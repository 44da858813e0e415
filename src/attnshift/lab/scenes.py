"""Scenes of the tabletop world: parameters of an image, a pure function of (seed, split, index)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from attnshift.lab.shapes import SHAPES
from attnshift.randomness import generator

__all__ = ["CLASSES", "COLOURS", "FLOORS", "SKIES", "SPLITS", "Scene", "scene"]

CLASSES: tuple[str, ...] = tuple(SHAPES)
SPLITS: tuple[str, ...] = ("train", "tuning", "test")

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.82, 0.12, 0.10),
    "green": (0.14, 0.58, 0.18),
    "blue": (0.14, 0.30, 0.86),
    "yellow": (0.93, 0.80, 0.12),
    "orange": (0.95, 0.47, 0.08),
    "purple": (0.52, 0.18, 0.66),
    "teal": (0.10, 0.62, 0.64),
    "white": (0.92, 0.92, 0.90),
}
FLOORS: dict[str, str] = {"wood": "a wooden floor", "tiles": "a tiled floor", "grass": "the grass"}
SKIES: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "day": ((0.42, 0.60, 0.84), (0.82, 0.88, 0.93)),
    "studio": ((0.36, 0.37, 0.44), (0.66, 0.66, 0.72)),
    "dusk": ((0.46, 0.38, 0.50), (0.92, 0.76, 0.64)),
    "warm": ((0.66, 0.62, 0.56), (0.88, 0.85, 0.79)),
}


@dataclass(frozen=True)
class Scene:
    """Parameters of one image. Angles are in radians, lengths in object units, colours in [0,1]."""

    label: int
    colour: str
    floor: str
    sky: str
    coverage: float
    """Share of the frame that the object covers; the camera's distance is chosen for it."""
    object_yaw: float
    camera_yaw: float
    camera_pitch: float
    field_of_view: float
    shift: tuple[float, float]
    """Place of the object in the free space of the frame: to the right and down, each in [-1,1]."""
    light_yaw: float
    light_pitch: float
    light: float
    tint: tuple[float, float, float]
    gloss: float
    floor_phase: tuple[float, float]
    floor_yaw: float

    @property
    def class_name(self) -> str:
        return CLASSES[self.label]

    @property
    def captions(self) -> tuple[str, ...]:
        """Descriptions of the scene, the longest first."""
        name, where = self.class_name, FLOORS[self.floor]
        article = "an" if self.colour[0] in "aeiou" else "a"
        return (
            f"a photo of {article} {self.colour} {name} on {where}",
            f"a photo of {article} {self.colour} {name}",
            f"a photo of a {name} on {where}",
            f"a photo of a {name}",
            name,
        )


def scene(seed: int, split: str, index: int) -> Scene:
    """Scene ``index`` of ``split``. Classes alternate: ten images in a row hold each class once."""
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; the splits are {', '.join(SPLITS)}")
    draw = generator("lab scene", seed, split, index)
    tint = draw.uniform(0.9, 1.1, size=3)
    return Scene(
        label=index % len(CLASSES),
        colour=str(draw.choice(list(COLOURS))),
        floor=str(draw.choice(list(FLOORS))),
        sky=str(draw.choice(list(SKIES))),
        coverage=float(draw.uniform(0.10, 0.34)),
        object_yaw=float(draw.uniform(0, 2 * math.pi)),
        camera_yaw=float(draw.uniform(0, 2 * math.pi)),
        camera_pitch=float(draw.uniform(0.16, 0.62)),
        field_of_view=float(draw.uniform(0.6, 0.9)),
        shift=(float(draw.uniform(-1, 1)), float(draw.uniform(-1, 0.6))),
        light_yaw=float(draw.uniform(0, 2 * math.pi)),
        light_pitch=float(draw.uniform(0.6, 1.15)),
        light=float(draw.uniform(0.85, 1.15)),
        tint=(float(tint[0]), float(tint[1]), float(tint[2])),
        gloss=float(draw.uniform(0.15, 0.6)),
        floor_phase=(float(draw.uniform(-8, 8)), float(draw.uniform(-8, 8))),
        floor_yaw=float(draw.uniform(0, 2 * math.pi)),
    )
