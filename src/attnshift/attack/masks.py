"""Masks of the object, in [0,1], which stay fixed during an attack.

A mask has two uses: it weights the pixels that terms count, and with ``paste_back`` the attack
changes nothing outside of it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from attnshift.attention.maps import of_share, phrase_map, resized
from attnshift.attention.selection import Selection
from attnshift.classifiers.classifier import Classifier
from attnshift.classifiers.gradcam import grad_cam
from attnshift.errors import RecipeError
from attnshift.recipes.schema import MaskSection
from attnshift.sizes import Size
from attnshift.types import AttentionMaps, Site, TokenSpan

__all__ = ["make_masks", "mask_sites", "pixel_weights"]

_LARGEST_GRID = 32 * 32
"""Positions of the largest self-attention that refines a mask where there are several; a map of
64 x 64 takes 67 MB a head and step."""


def mask_sites(section: MaskSection, available: Sequence[Site], latents: Size) -> tuple[Site, ...]:
    """The sites whose clean attention makes the mask; none where the mask comes from elsewhere."""
    if section.source != "attention":
        return ()
    cross = _cross(section).sites(available, "cross", latents)
    if not section.refine:
        return cross
    grids = {site.grid for site in available if site.kind == "self"}
    refining = max((grid for grid in grids if grid.area <= _LARGEST_GRID), default=min(grids, default=None))
    return (*cross, *(site for site in available if site.kind == "self" and site.grid == refining))


def make_masks(
    section: MaskSection,
    attention: AttentionMaps,
    tokens: Sequence[TokenSpan],
    classifiers: Sequence[Classifier],
    images: Tensor,
    labels: Tensor,
    given: Sequence[Tensor | None],
) -> Tensor | None:
    """Masks [batch,1,height,width] in [0,1], the highest value of each 1; nothing where the recipe
    asks for none.

    ``attention`` is the clean branch's at ``mask_sites``; ``given`` are the tasks' own,
    [1,height,width]. ``soft`` keeps what the source says, divided by its maximum; ``hard`` is 1
    from half of the maximum on. A source that sees nothing gives 1 everywhere.
    """
    if section.source == "none":
        return None
    if section.source == "given":
        raw = _given(given)
    elif section.source == "gradcam":
        raw = torch.stack([grad_cam(classifier, images, labels) for classifier in classifiers]).mean(0)
    else:
        raw = torch.stack([_attended(section, attention, span, image) for image, span in enumerate(tokens)])[:, None]
    raw = torch.nn.functional.interpolate(raw.to(images), images.shape[-2:], mode="bilinear")
    highest = raw.flatten(1).max(1).values.view(-1, 1, 1, 1)
    masks = torch.where(highest > 0, raw / highest.clamp(min=1e-12), 1.0)
    return (masks >= 0.5).to(masks) if section.edge == "hard" else masks


def pixel_weights(section: MaskSection, masks: Tensor | None, images: Tensor) -> Tensor:
    """W = outside + (1 - outside) * M, [batch,1,height,width]; 1 everywhere without a mask."""
    if masks is None:
        return torch.ones_like(images[:, :1])
    return section.outside + (1 - section.outside) * masks


def _cross(section: MaskSection) -> Selection:
    return Selection(places=("down", "up"), grid=section.grid)


def _given(masks: Sequence[Tensor | None]) -> Tensor:
    there = [mask for mask in masks if mask is not None]
    if len(there) < len(masks):
        raise RecipeError("mask.source is 'given' but no mask was given for every image; set `masks` to their folder")
    return torch.stack(there)


def _attended(section: MaskSection, attention: AttentionMaps, span: TokenSpan, image: int) -> Tensor:
    """The true phrase's map, [rows,columns]; each round of refinement lets it flow along the
    self-attention.

    A position then takes the mean of the map over the positions that it looks at, so that the map
    fills the object and keeps to its edges; what every position is left with says nothing and is
    taken off (as in the code of Nguyen et al., "Dataset diffusion", NeurIPS 2023).
    """
    cross = [site for site in attention if site.kind == "cross"]
    attended = phrase_map(attention, cross, _cross(section), span, image)
    selves = [site for site in attention if site.kind == "self"]
    if section.refine:
        rows = [of_share(step[image].float(), site, "part") for site in selves for step in attention[site]]
        flow = torch.stack([each.mean(0) for each in rows]).mean(0).to(attended)
        attended = resized(attended[None], selves[0].grid)[0]
        for _ in range(section.refine):
            attended = (flow @ attended.flatten()).view_as(attended)
        attended = attended - attended.min()
    return attended
