"""Pictures of the pages on concepts.

    concepts.py DOCS

DOCS gets lab.png (a scene of each class, and the object's mask), objective.png (the way of an image and
of the gradient) and judging.png (what success, and attributable success, count).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy
from matplotlib import pyplot
from matplotlib.axes import Axes
from PIL import Image

from attnshift.lab.render import render_scenes
from attnshift.lab.scenes import scene

SIDE, GAP = 96, 4
OWN, OTHER, GREY = "#dfe6fb", "#fbe9d7", "#ececec"
Box = tuple[float, float, str, str]
"""Middle, words and colour of a box."""


def main(docs: Path) -> None:
    draw_lab(docs / "lab.png")
    draw_objective(docs / "objective.png")
    draw_judging(docs / "judging.png")


def draw_lab(target: Path) -> None:
    """The first scene of each class in the split ``test``, over its mask."""
    found = {each.class_name: each for each in (scene(0, "test", index) for index in range(100))}
    rendered = render_scenes([found[name] for name in sorted(found)], SIDE)
    images = (rendered.images.permute(0, 2, 3, 1) * 255).round().byte().numpy()
    masks = (rendered.masks.reshape(len(images), SIDE, SIDE) * 255).round().byte().numpy()
    sheet = Image.new("RGB", (len(images) * (SIDE + GAP) - GAP, 2 * SIDE + GAP), "white")
    for place, (image, mask) in enumerate(zip(images, masks, strict=True)):
        sheet.paste(Image.fromarray(numpy.ascontiguousarray(image)), (place * (SIDE + GAP), 0))
        sheet.paste(Image.fromarray(mask), (place * (SIDE + GAP), SIDE + GAP))
    sheet.save(target, optimize=True)


def draw_objective(target: Path) -> None:
    """Forward in full lines, the gradient in broken ones."""
    figure, axes = _canvas(9.6, 3.1)
    upper: Sequence[Box] = (
        (0.07, 0.74, "clean image", GREY),
        (0.24, 0.74, "autoencoder,\ninversion", OWN),
        (0.41, 0.74, "latents at the start\nthese are changed", OTHER),
        (0.60, 0.74, "denoising steps,\ndecoder", OWN),
        (0.76, 0.74, "edited image", GREY),
        (0.92, 0.74, "views,\nsurrogates", OWN),
    )
    lower: Sequence[Box] = (
        (0.60, 0.24, "attention terms\n(from the steps)", OWN),
        (0.76, 0.24, "image terms,\nthe budget", OWN),
        (0.92, 0.24, "one direction\n(fusion)", OWN),
        (0.41, 0.24, "step of the\noptimiser", OTHER),
    )
    for box in (*upper, *lower):
        _box(axes, box)
    for first, second in pairwise(upper):
        _arrow(axes, (first[0] + 0.07, 0.74), (second[0] - 0.07, 0.74))
    for above, below in ((upper[3], lower[0]), (upper[4], lower[1]), (upper[5], lower[2])):
        _arrow(axes, (above[0], 0.60), (below[0], 0.38))
    for before, after in ((lower[2], lower[1]), (lower[1], lower[0]), (lower[0], lower[3])):
        _arrow(axes, (before[0] - 0.07, 0.24), (after[0] + 0.07, 0.24), "--")
    _arrow(axes, (0.41, 0.38), (0.41, 0.60), "--")
    figure.savefig(target, bbox_inches="tight")


def draw_judging(target: Path) -> None:
    """Four arms of an image, and which of their failures an attack may claim."""
    figure, axes = _canvas(9.6, 2.3)
    arms = ("clean", "autoencoder alone", "reconstruction", "attack")
    for place, arm in enumerate(arms):
        _box(axes, (0.1 + 0.2 * place, 0.72, arm, OTHER if arm == "attack" else GREY))
        if place:
            _arrow(axes, (0.1 + 0.2 * place - 0.12, 0.72), (0.1 + 0.2 * place - 0.08, 0.72))
    for place, told in enumerate(
        ("a judge must be\nright here to count", "", "wrong already here:\nnot the attack's", "wrong here:\nsuccess")
    ):
        axes.text(0.1 + 0.2 * place, 0.36, told, ha="center", va="center", fontsize=9)
    axes.text(0.89, 0.72, "attributable =\nsuccess − what\nreconstruction breaks", ha="center", va="center", fontsize=9)
    figure.savefig(target, bbox_inches="tight")


def _canvas(width: float, height: float) -> tuple[pyplot.Figure, Axes]:
    figure, axes = pyplot.subplots(figsize=(width, height), dpi=110)
    axes.set_xlim(0, 1)
    axes.set_ylim(0.08, 0.92)
    axes.axis("off")
    figure.subplots_adjust(0, 0, 1, 1)
    return figure, axes


def _box(axes: Axes, box: Box) -> None:
    x, y, told, colour = box
    axes.text(x, y, told, ha="center", va="center", fontsize=9, bbox={"boxstyle": "round,pad=0.5", "fc": colour})


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], style: str = "-") -> None:
    axes.annotate("", end, start, arrowprops={"arrowstyle": "->", "linestyle": style})


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
