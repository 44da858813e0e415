"""The guided denoising steps that an attack differentiates: from a latent at the start level to one
at the last."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from attnshift.batching import batch_record, concatenated, constant, per_image, spread
from attnshift.diffusion.backbone import Backbone, Prediction, Probe, Read
from attnshift.diffusion.conditioning import Conditioning
from attnshift.diffusion.noise_schedule import NoiseSchedule
from attnshift.diffusion.visits import Visit, visits
from attnshift.randomness import normal_like
from attnshift.types import AttentionMaps, RandomKey, Site

__all__ = [
    "Boundary",
    "InterferenceText",
    "Trajectory",
    "Walk",
    "crossed",
    "denoise",
    "guided_prediction",
    "predict",
    "read_along",
    "retraced",
    "travelling",
    "walk",
]


@batch_record
class InterferenceText:
    """The interference prompt, and its phrase alone as a probe."""

    text: Conditioning = per_image()
    phrase: Probe = per_image()


@batch_record
class Boundary:
    """Pull towards the boundary of two classes: Collins et al., "NatADiff" (ICLR 2026).

    ``weight`` [batch] times the difference of the predictions under ``text``, a prompt that names
    both, and under the ``empty`` prompt is added to each prediction.
    """

    text: Conditioning = per_image()
    empty: Conditioning = per_image()
    weight: Float[Tensor, "batch"] = per_image()


@batch_record
class Trajectory:
    """All that denoising needs of an image: the start, the text, and the correction of its clean
    path.

    ``visits`` are those of the steps in their order; none stands for each step once. Each of
    ``offsets`` is added after its visit, each of ``straight`` where the visit goes to the last
    level at once. ``renewals`` hold the noise that takes the latents back before a step is visited
    once more, None after the other visits. ``guidance`` 1 is the conditional prediction alone.
    """

    noise_schedule: NoiseSchedule = constant()
    start: Float[Tensor, "batch channels rows columns"] = per_image()
    text: Conditioning = per_image()
    unconditional: tuple[Conditioning, ...] = per_image(depth=1)
    offsets: tuple[Float[Tensor, "batch channels rows columns"], ...] | None = per_image(depth=1)
    guidance: float = constant()
    interference: InterferenceText | None = per_image(default=None)
    visits: tuple[Visit, ...] = constant(default=())
    renewals: tuple[Float[Tensor, "batch channels rows columns"] | None, ...] = per_image(depth=1, default=())
    straight: tuple[Float[Tensor, "batch channels rows columns"], ...] | None = per_image(depth=1, default=None)
    boundary: Boundary | None = per_image(default=None)

    @property
    def way(self) -> tuple[Visit, ...]:
        return self.visits or visits(len(self.noise_schedule))

    def last_visit(self, step: int) -> int:
        """Number of the last visit of ``step``."""
        return max(visit.number for visit in self.way if visit.index == step)

    def until(self, step: int) -> Trajectory:
        """The way that ends with the last visit of ``step``: a one-step preview of its own end.

        It needs ``straight``, and so the preview of the clean path is the end of the clean path.
        """
        assert self.offsets is not None
        assert self.straight is not None
        number, way = self.last_visit(step), self.way
        last = replace(way[number], again=False, straight=True)
        offsets = (*self.offsets[:number], self.straight[number])
        return replace(self, visits=(*way[:number], last), offsets=offsets)

    def moved(self, visit: Visit, latents: Tensor, prediction: Tensor) -> Tensor:
        """The latents [batch,channels,rows,columns] after ``visit``, along ``prediction``."""
        moved = self._led(visit, latents, prediction, -1 if visit.straight else visit.index + 1)
        return moved if self.offsets is None else moved + self.offsets[visit.number]

    def preview(self, visit: Visit, latents: Tensor, prediction: Tensor) -> Tensor:
        """The latents at the last level to which ``prediction`` leads at once."""
        assert self.straight is not None
        return self._led(visit, latents, prediction, -1) + self.straight[visit.number]

    def noise(self, visit: Visit, latents: Tensor, prediction: Tensor) -> Tensor:
        """The noise in ``latents`` that ``prediction`` says."""
        path, level = self.noise_schedule.path, self.noise_schedule.levels[visit.index]
        # The level of noise alone is at the other end.
        return path.step(latents, prediction, level, 1 - path.clean)

    def _led(self, visit: Visit, latents: Tensor, prediction: Tensor, target: int) -> Tensor:
        levels = self.noise_schedule.levels
        return self.noise_schedule.path.step(latents, prediction, levels[visit.index], levels[target])

    def renewed(self, visit: Visit, latents: Tensor) -> Tensor:
        """The latents after ``visit``, with as much noise as brings them back before the step if
        that is visited again."""
        renewal = self.renewals[visit.number] if visit.again else None
        if renewal is None:
            return latents
        source, target = self.noise_schedule.levels[visit.index : visit.index + 2]
        return self.noise_schedule.path.noised_again(latents, renewal, source, target)


class Walk(NamedTuple):
    """One walk along a trajectory: the ``latents`` at its end, the ``attention`` of the sites asked
    for in the last visit of each step, and of each visit the prediction and, where the trajectory
    has ``straight``, the preview by it."""

    latents: Float[Tensor, "batch channels rows columns"]
    attention: AttentionMaps
    predictions: tuple[Float[Tensor, "batch channels rows columns"], ...] = ()
    previews: tuple[Float[Tensor, "batch channels rows columns"], ...] = ()


def denoise(
    backbone: Backbone,
    trajectory: Trajectory,
    latents: Float[Tensor, "batch channels rows columns"],
    sites: Collection[Site] = (),
    checkpointing: bool = False,
    gradient_steps: int = 0,
) -> tuple[Float[Tensor, "batch channels rows columns"], AttentionMaps]:
    """The end of ``walk`` and the attention that it reads."""
    walked = walk(backbone, trajectory, latents, sites, checkpointing, gradient_steps)
    return walked.latents, walked.attention


def walk(
    backbone: Backbone,
    trajectory: Trajectory,
    latents: Float[Tensor, "batch channels rows columns"],
    sites: Collection[Site] = (),
    checkpointing: bool = False,
    gradient_steps: int = 0,
) -> Walk:
    """Take ``latents`` through all denoising steps and read the attention of ``sites``, each in its
    view.

    With ``checkpointing`` a step keeps only its input and is run again in backward; its maps are
    outputs of the step, so that their gradient survives.

    The gradient goes back through the last ``gradient_steps`` visits, 0: through all. Those before
    are computed without autograd and their Jacobian counts as the identity, a straight-through
    estimator (Bengio et al. 2013): values are the same to the bit, what enters the first
    differentiated step passes its gradient on to ``latents``, and maps of the steps before have
    none.
    """
    order, way = tuple(sites), trajectory.way
    read: dict[int, tuple[Tensor, ...]] = {}
    predictions: list[Tensor] = []
    previews: list[Tensor] = []

    def step(latents: Float[Tensor, "batch channels rows columns"], visit: Visit) -> tuple[Float[Tensor, "..."], ...]:
        prediction, maps = guided_prediction(backbone, trajectory, latents, visit.index, order)
        moved = trajectory.moved(visit, latents, prediction)
        return trajectory.renewed(visit, moved), prediction, *maps

    start, constant = latents, len(way) - gradient_steps if gradient_steps else 0
    for visit in way:
        with torch.set_grad_enabled(torch.is_grad_enabled() and visit.number >= constant):
            if checkpointing and latents.requires_grad and torch.is_grad_enabled():
                moved, prediction, *maps = checkpoint(step, latents, visit, use_reentrant=False)
            else:
                moved, prediction, *maps = step(latents, visit)
            if trajectory.straight is not None:
                previews.append(trajectory.preview(visit, latents, prediction))
        latents = moved + (start - start.detach()) if visit.number + 1 == constant else moved
        predictions.append(prediction)
        read[visit.index] = tuple(maps)
    attention = {site: tuple(maps[at] for maps in read.values()) for at, site in enumerate(order)}
    return Walk(latents, attention, tuple(predictions), tuple(previews))


@torch.no_grad()
def retraced(
    backbone: Backbone, trajectory: Trajectory, stored: Sequence[Float[Tensor, "batch channels rows columns"]]
) -> Trajectory:
    """``trajectory`` with the constants by which its visits miss the ``stored`` latents: Ju et al.,
    "Direct inversion" (ICLR 2024).

    ``stored`` as ``invert`` returns them. From its start the way then passes through them, however
    often it visits a step, and every preview on it ends at the last of them.
    """
    bare = replace(trajectory, offsets=None, boundary=None)
    offsets, straight, latents = [], [], stored[0]
    for visit in bare.way:
        prediction, _ = guided_prediction(backbone, bare, latents, visit.index)
        offsets.append(stored[visit.index + 1] - bare.moved(visit, latents, prediction))
        straight.append(stored[-1] - bare.moved(replace(visit, straight=True), latents, prediction))
        latents = bare.renewed(visit, stored[visit.index + 1])
    return replace(trajectory, offsets=tuple(offsets), straight=tuple(straight))


def travelling(trajectory: Trajectory, planned: Sequence[Visit], key: RandomKey) -> Trajectory:
    """``trajectory`` along the visits ``planned``; their offsets are still to be made.

    The noise before a further visit of a step is drawn from the seed and the ids of ``key`` and the
    number of the visit before.
    """
    renewals = tuple(
        normal_like(trajectory.start, key.seed, key.ids, visit.number, "time travel") if visit.again else None
        for visit in planned
    )
    return replace(trajectory, visits=tuple(planned), renewals=renewals)


def crossed(
    prediction: Float[Tensor, "batch channels rows columns"],
    weight: Float[Tensor, "batch"],
    joint: Float[Tensor, "batch channels rows columns"],
    empty: Float[Tensor, "batch channels rows columns"],
) -> Float[Tensor, "batch channels rows columns"]:
    """``prediction`` moved towards a prompt that names two classes.

    The move is ``weight`` times the difference of the predictions under it, ``joint``, and under
    the ``empty`` prompt.
    """
    return prediction + spread(weight, prediction) * (joint - empty)


def guided_prediction(
    backbone: Backbone,
    trajectory: Trajectory,
    latents: Float[Tensor, "batch channels rows columns"],
    index: int,
    sites: tuple[Site, ...] = (),
) -> tuple[Float[Tensor, "batch channels rows columns"], tuple[Tensor, ...]]:
    """Prediction of step ``index`` under classifier-free guidance (Ho and Salimans 2022), and
    its maps.

    The batch of the pass is the unconditional part (none where the guidance is 1), the conditional
    one, the one under the interference prompt where a site's view is "separate", or a "probe" of
    joint attention, which only serves to read its attention, and the two of a boundary.
    """
    count, boundary = len(latents), trajectory.boundary
    guided = trajectory.guidance != 1
    texts = [trajectory.unconditional[index]] * guided + [trajectory.text]
    own = slice(guided * count, (guided + 1) * count)
    timestep = trajectory.noise_schedule.timesteps[index]
    further = () if boundary is None else (boundary.text, boundary.empty)
    prediction = predict(backbone, latents, timestep, texts, sites, trajectory.interference, further)
    output = prediction.output[own]
    if guided:
        unconditional = prediction.output[:count]
        output = unconditional + trajectory.guidance * (output - unconditional)
    if boundary is not None:
        output = crossed(output, boundary.weight, *prediction.output[-2 * count :].chunk(2))
    return output, tuple(prediction.attention[site] for site in sites)


def predict(
    backbone: Backbone,
    latents: Float[Tensor, "batch channels rows columns"],
    timestep: float,
    texts: Sequence[Conditioning],
    sites: Sequence[Site] = (),
    interference: InterferenceText | None = None,
    further: Sequence[Conditioning] = (),
) -> Prediction:
    """One pass over ``latents`` under each of ``texts``, one after the other in its batch, and at
    its end under each of ``further``.

    The attention of ``sites`` is read under the last of ``texts``; the interference prompt follows
    them for sites whose view needs it.
    """
    count, texts = len(latents), list(texts)
    own, apart = (slice(part * count, (part + 1) * count) for part in (len(texts) - 1, len(texts)))
    if any(site.view == "separate" or (site.view == "probe" and site.joint) for site in sites):
        assert interference is not None
        texts.append(interference.text)
    texts += further
    reads = [_read(site, own, apart, interference) for site in sites]
    return backbone.denoise(torch.cat([latents] * len(texts)), timestep, concatenated(texts), reads)


def read_along(
    backbone: Backbone,
    stored: Sequence[Float[Tensor, "batch channels rows columns"]],
    noise_schedule: NoiseSchedule,
    text: Conditioning,
    sites: Sequence[Site],
    interference: InterferenceText | None = None,
) -> AttentionMaps:
    """Attention of ``sites`` under ``text`` on ``stored`` latents, one for each denoising step, as
    ``invert`` returns them."""
    seen = [
        predict(backbone, latents, timestep, [text], sites, interference).attention
        for latents, timestep in zip(stored, noise_schedule.timesteps, strict=False)
    ]
    return {site: tuple(each[site] for each in seen) for site in sites}


def _read(site: Site, own: slice, apart: slice, interference: InterferenceText | None) -> Read:
    if site.view == "separate":
        return Read(site, apart)
    if site.view != "probe":
        return Read(site, own)
    assert interference is not None
    return Read(site, own, interference.phrase, apart if site.joint else None)
