"""Ingredients along the path of an attack: what its steps do, and what of it the classifiers see.

Each is a switch of the recipe's section ``path``.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import partial

from torch import Tensor

from attnshift.batching import image_units, spread
from attnshift.diffusion.backbone import Backbone
from attnshift.diffusion.conditioning import Conditioning
from attnshift.diffusion.denoising import Boundary, Trajectory, retraced, travelling
from attnshift.diffusion.visits import visits
from attnshift.ensemble.expectation import View
from attnshift.ensemble.surrogates import Surrogates
from attnshift.errors import RecipeError
from attnshift.randomness import generator
from attnshift.recipes.schema import PathSection, Recipe
from attnshift.types import RandomKey, Site

__all__ = ["boundary_of", "check_sites", "laid_out", "levels_at", "over_looks", "tangential"]


def laid_out(
    section: PathSection, backbone: Backbone, trajectory: Trajectory, stored: Sequence[Tensor], key: RandomKey
) -> Trajectory:
    """``trajectory`` as the attack walks it: with time travel, and with what previews need.

    ``stored`` are latents as ``invert`` returns them. Every visit has a constant of its own after
    it, so that the clean path, and each preview of it, ends at the last of them.
    """
    if section.passes > 1:
        planned = visits(len(trajectory.noise_schedule), section.passes, section.travelled)
        trajectory = travelling(trajectory, planned, key)
    elif section.seen == "end":
        return trajectory
    return retraced(backbone, trajectory, stored)


def boundary_of(
    section: PathSection, backbone: Backbone, prompts: Sequence[str], empty: Conditioning
) -> Boundary | None:
    """The most that the path is pulled towards ``prompts``, which name both classes of each image.

    ``empty`` is the empty prompt for each image.
    """
    if not section.boundary:
        return None
    weight = empty.states.new_full((len(prompts),), section.boundary * section.boundary_guidance)
    return Boundary(backbone.embed(prompts), empty, weight)


def levels_at(recipe: Recipe, key: RandomKey) -> tuple[int, ...] | None:
    """The step at which each image's preview is taken in the iteration of ``key``; None where the
    classifiers see the end of the path."""
    section = recipe.path
    if section.seen == "end":
        return None
    if section.level != "random":
        return (section.level,) * len(key.ids)
    steps = recipe.diffusion.denoising_steps - section.looks_ahead
    return tuple(int(generator(key.seed, id, key.iteration, "level").integers(steps)) for id in key.ids)


def check_sites(recipe: Recipe, sites: Collection[Site]) -> None:
    """Raise ``RecipeError`` if terms read attention at ``sites`` in steps that are not walked."""
    if sites and not recipe.previews_the_end:
        raise RecipeError(
            "path.seen is 'preview' and leaves steps out whose attention terms read; leave the terms out, or let "
            "path.look_ahead or path.level reach the last step"
        )


def over_looks(surrogates: Surrogates, now: float) -> Surrogates:
    """The surrogates of points that show two previews side by side, [batch,3,height,2 width].

    The loss is ``now`` times that on the second, the preview now, and the rest that on the first,
    the preview after the next step (AdvFM, CVPR 2026). Views are those of each.
    """
    views = [partial(_seen, view, look) for look in (0, 1) for view in surrogates.views]
    count = len(surrogates.views)
    shares = (*[(1 - now) / count] * count, *[now / count] * count)
    return replace(surrogates, views=views, shares=shares)


def _seen(view: View, look: int, images: Tensor) -> Tensor:
    return view(images.chunk(2, -1)[look])


def tangential(gradient: Tensor, noise: Tensor) -> Tensor:
    """``gradient`` [batch,channels,rows,columns] without its part along the score at the latents.

    The score is the predicted ``noise`` but for a factor. What is left runs along surfaces of equal
    density (DPAC, 2025).
    """
    unit = image_units(noise)
    return gradient - spread((gradient * unit).flatten(1).sum(1), unit) * unit
