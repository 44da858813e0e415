"""From latents to images along the path, and to previews of where the path leads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from attnshift.batching import batch_record, constant, per_image, select_rows
from attnshift.data.images import into_range
from attnshift.diffusion.backbone import Backbone
from attnshift.diffusion.denoising import Boundary, Trajectory, Walk, walk
from attnshift.types import Branch, Site

__all__ = ["Background", "Renderer"]


@batch_record
class Background:
    """The pixels outside the masks, which an attack with ``paste_back`` leaves as they are.

    images [batch,3,height,width]; masks [batch,1,height,width] in [0,1].
    """

    images: Tensor = per_image()
    masks: Tensor = per_image()

    def behind(self, changed: Tensor) -> Tensor:
        """``changed`` [batch,3,height,width] inside the masks, the images outside of them."""
        return torch.lerp(self.images, changed, self.masks)


@batch_record
class Renderer:
    """All that turns latents at the start level into images.

    As it is prepared it shows the end of the path, and the path has no ``boundary``; ``pushed`` and
    ``looking`` make the renderers of an iteration.
    """

    backbone: Backbone = constant()
    trajectory: Trajectory = per_image()
    residual: Tensor | None = per_image()
    """The part of each image that the clean path loses, [batch,3,height,width]; it is added to
    every decoded image. None where the recipe says so."""
    background: Background | None = per_image()
    checkpointing: bool = constant()
    gradient_steps: int = constant()
    walk: Callable[..., Walk] = constant(default=walk)
    decode: Callable[[Tensor, bool], Tensor] = constant(kw_only=True)
    boundary: Boundary | None = per_image(default=None)
    """The pull that the attacked path has, at most; None where the recipe asks for none."""
    levels: tuple[int, ...] | None = per_image(default=None)
    """The step at which each image's preview is taken; None shows the end of the path."""
    ahead: bool = constant(default=False)
    """Whether the images are previews one step later, with those at ``levels`` beside them."""

    def __call__(self, latents: Tensor, sites: Sequence[Site] = (), added: Tensor | None = None) -> Branch:
        """Denoise and decode ``latents`` [batch,channels,rows,columns]; read the attention of
        ``sites``. Pixels ``added`` [batch,3,height,width] count to the decoded images.

        Images whose previews are taken at one step go together, and no image walks further than it
        has to; only then can ``sites`` be read.
        """
        if self.levels is None or len(set(self.levels)) == 1:
            return self._shown(latents, sites, added)
        steps = torch.tensor(self.levels)
        groups = [(steps == step).nonzero()[:, 0] for step in steps.unique()]
        parts = [
            select_rows(self, rows)(latents[rows], sites, None if added is None else added[rows]) for rows in groups
        ]
        return _joined(parts, torch.cat(groups).argsort())

    def _shown(self, latents: Tensor, sites: Sequence[Site], added: Tensor | None) -> Branch:
        trajectory, step = self.trajectory, None if self.levels is None else self.levels[0]
        if step is not None:
            trajectory = trajectory.until(step + self.ahead)
        walked = self.walk(self.backbone, trajectory, latents, sites, self.checkpointing, self.gradient_steps)
        noise = trajectory.noise(trajectory.way[0], latents.detach(), walked.predictions[0].detach())
        branch = Branch(walked.latents, self._image(walked.latents, added), walked.attention, noise=noise)
        if step is None or not self.ahead:
            return branch
        return replace(branch, earlier=self._image(walked.previews[trajectory.last_visit(step)], added))

    def _image(self, final: Tensor, added: Tensor | None) -> Tensor:
        images = self.decode(final, self.checkpointing)
        if self.residual is not None:
            images = images + self.residual
        if added is not None:
            images = images + added
        images = into_range(images)
        return images if self.background is None else self.background.behind(images)

    @property
    def whole(self) -> bool:
        """Whether the images are those at the end of the path."""
        last = len(self.trajectory.noise_schedule) - 1
        return self.levels is None or all(step + self.ahead == last for step in self.levels)

    def looking(self, levels: tuple[int, ...] | None, ahead: bool) -> Renderer:
        """The renderer of previews at the images' steps ``levels``, or one step ``ahead``."""
        return replace(self, levels=levels, ahead=ahead)

    def pushed(self, shares: Tensor | None) -> Renderer:
        """The renderer whose path is pulled towards the boundary, by ``shares`` [batch] of the most
        that the recipe asks for; more than 1 count as 1, and without any the path is as it is."""
        if self.boundary is None or shares is None or not bool(shares.any()):
            return self
        pull = replace(self.boundary, weight=shares.clamp(max=1) * self.boundary.weight)
        return replace(self, trajectory=replace(self.trajectory, boundary=pull))

    def still(self, images: Tensor) -> Renderer:
        """A renderer of latents that never move: it shows ``images`` [batch,3,height,width], which
        are theirs, and asks no network."""
        return replace(self, residual=images, walk=_stay, decode=_nothing)


def _stay(backbone: Backbone, trajectory: Trajectory, latents: Tensor, *_: object) -> Walk:
    return Walk(latents, {}, (latents,))


def _nothing(final: Tensor, checkpointing: bool) -> Tensor:
    return final.new_zeros(1)


def _joined(parts: Sequence[Branch], order: Tensor) -> Branch:
    """Branches without attention as one, whose image ``at`` is number ``order[at]`` of them all."""

    def together(tensors: Sequence[Tensor | None]) -> Tensor | None:
        there = [each for each in tensors if each is not None]
        return torch.cat(there)[order] if there else None

    latents, images = (torch.cat([getattr(part, name) for part in parts])[order] for name in ("latents", "images"))
    earlier, noise = (together([getattr(part, name) for part in parts]) for name in ("earlier", "noise"))
    return Branch(latents, images, {}, earlier, noise)
