"""Measures of a pipeline on images: do its parts and the values
in its configurations belong together?

A wrong prediction type and a wrong scaling factor raise no error anywhere. They show in two
figures: how much of a known noise the denoiser predicts, and how far the latents spread.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from attnshift.diffusion.backbone import Backbone
from attnshift.diffusion.flow import Flow
from attnshift.randomness import normal
from attnshift.sizes import size_of

__all__ = ["PipelineMeasures", "PipelineVerdict", "measure_pipeline"]

_LEVEL = 0.5
"""Share of signal at which the prediction types are equally hard, and farthest apart."""

_STEPS = 20
"""Steps of the schedule in which that level is looked up; a few less do too."""

_UNRELATED = 0.2
"""Largest cosine between outputs and targets of a network that has learned nothing.

Random networks of all sizes stay below 0.1; a trained denoiser on latents 8 times too large reaches
0.7.
"""

_USUAL_SHARE = 0.4
"""Trained denoisers predict 0.7 to 0.95 of the noise at this level,
and 0.4 with latents twice too large."""

_APART = 0.25
"""Difference of the two shares from which the other prediction type is the right one.

With the right type the stated share leads by 0.5 to 1, with a scaling factor of half the right one
still by 0.3.
"""

_USUAL_SPREAD = (0.6, 1.6)
"""Four photographs have 0.65 to 1.1 with Stable Diffusion's autoencoder,
renders and photographs 1 to 1.5 in the lab.
"""

_ALIKE = 18.0
"""Least usual agreement of a tiny decoder with the one that it stands for, in dB.

TAESD's decoder for SDXL reaches 10 to 16 dB on latents of Stable Diffusion 1.
"""

PredictionType = Literal["epsilon", "v_prediction", "velocity"]


@dataclass(frozen=True)
class PipelineVerdict:
    """Conclusion from measures: ``fine``, ``doubtful`` or ``refused``,
    and one line that gives the figures."""

    kind: Literal["fine", "doubtful", "refused"]
    line: str


@dataclass(frozen=True)
class PipelineMeasures:
    """Measures of the pipeline ``name`` on ``images`` images, all at one noise level.

    ``predicted`` and ``cosine`` have a value for each prediction type that the model can have: the
    share of that type's target that the network's own output predicts, at most 1 and 0 for an
    output of zeros, and the cosine between the two, in [-1,1]. ``recovered`` is the share of the
    latents that the denoised latents give back, at most 1. ``spread`` is the latents' standard
    deviation, about 1 in a right pipeline.
    """

    name: str
    images: int
    stated: PredictionType
    predicted: Mapping[PredictionType, float]
    cosine: Mapping[PredictionType, float]
    recovered: float
    spread: float
    stand_in: float | None = None
    """Agreement of a tiny decoder with the pipeline's own on these images, in dB; None without
    one."""

    @property
    def doubt_of_decoder(self) -> str:
        """Line that says that the tiny decoder belongs to another pipeline;
        empty without a sign of that."""
        if self.stand_in is None or self.stand_in >= _ALIKE:
            return ""
        return (
            f"the tiny decoder of diffusion.decoder_source shows other images than {self.name}'s own decoder "
            f"({self.stand_in:.1f} dB, usual are 20 and more); was it distilled from this pipeline's?"
        )

    @property
    def is_random(self) -> bool:
        """True if the outputs have nothing to do with any target: the network is not trained."""
        return max(map(abs, self.cosine.values())) < _UNRELATED

    @property
    def verdict(self) -> PipelineVerdict:
        """The pipeline is refused where its configurations are plainly wrong for its weights.

        A random network is no error. A trained denoiser on latents of its own scale never does
        worse than predicting zeros, neither for the noise nor for the image.
        """
        share = self.predicted[self.stated]
        if self.is_random:
            return self._say("doubtful", "predicts no noise at all, as networks with random weights do")
        for other in self._others:
            if self.predicted[other] > max(share + _APART, _USUAL_SHARE):
                return self._say(
                    "refused",
                    f"states the prediction type {self.stated}, and its outputs are those of {other}; "
                    "correct prediction_type in scheduler/scheduler_config.json",
                )
        low, high = _USUAL_SPREAD
        kind = "refused" if min(share, self.recovered) < 0 else "doubtful"
        if not low <= self.spread <= high:
            return self._say(
                kind,
                f"makes latents that spread too {'little' if self.spread < low else 'far'}; correct scaling_factor in "
                f"vae/config.json, which should be about {1 / self.spread:.2g} times its value",
            )
        if kind == "refused" or share < _USUAL_SHARE:
            return self._say(kind, "predicts too little of the noise; do its parts and its scheduler belong together?")
        return self._say("fine", "predicts noise as trained pipelines do")

    @property
    def _others(self) -> tuple[PredictionType, ...]:
        return tuple(each for each in self.predicted if each != self.stated)

    def _say(self, kind: Literal["fine", "doubtful", "refused"], finding: str) -> PipelineVerdict:
        figures = f"{round(100 * self.predicted[self.stated])} % of a known noise is predicted as {self.stated}"
        figures += "".join(f", {round(100 * self.predicted[other])} % as {other}" for other in self._others)
        counted = f"{self.images} image" + "s" * (self.images != 1)
        return PipelineVerdict(
            kind, f"{self.name} {finding} ({counted}: {figures}; the latents' standard deviation is {self.spread:.2f})"
        )


@torch.no_grad()
def measure_pipeline(
    backbone: Backbone, images: Float[Tensor, "batch 3 height width"], schedule_steps: int = 20
) -> PipelineMeasures:
    """Measure ``backbone`` on ``images`` in [0,1], with one forward pass for each.

    Latents are noised with a known noise to the level of the schedule whose share of signal
    is nearest to one half, and the denoiser predicts that noise under an empty prompt. A backbone
    without ``prediction_type`` is taken as it answers.
    """
    steps = min(schedule_steps, _STEPS)
    schedule = backbone.noise_schedule(steps, steps - 1, size_of(images))
    path, alphas = schedule.path, schedule.alphas
    at = min(range(len(schedule)), key=lambda step: abs(alphas[step] - _LEVEL))
    level, timestep = schedule.levels[at], schedule.timesteps[at]
    text = backbone.embed([""])
    # One at a time: an attack that fits in memory must not fail here.
    latents = torch.cat([backbone.encode(image[None].to(backbone.device)) for image in images])
    noise = normal(tuple(latents.shape), "measures").to(latents)
    noised = path.noised(latents, noise, level)
    answers = torch.cat([backbone.denoise(each[None], timestep, text).output for each in noised])
    stated: PredictionType = "epsilon"
    outputs = answers
    targets: dict[PredictionType, Tensor]
    if isinstance(path, Flow):
        stated, targets = "velocity", {"velocity": noise - latents}
    else:
        targets = {"epsilon": noise, "v_prediction": level**0.5 * noise - (1 - level) ** 0.5 * latents}
    if getattr(backbone, "prediction_type", "epsilon") == "v_prediction":
        stated, outputs = "v_prediction", (answers - (1 - level) ** 0.5 * noised) / level**0.5
    return PipelineMeasures(
        name=backbone.name,
        images=len(images),
        stated=stated,
        predicted={kind: _share(outputs, target) for kind, target in targets.items()},
        cosine={kind: _cosine(outputs, target) for kind, target in targets.items()},
        recovered=_share(path.step(noised, answers, level, path.clean), latents),
        spread=float(latents.std()),
    )


def _share(found: Float[Tensor, "*shape"], target: Float[Tensor, "*shape"]) -> float:
    return float(1 - (found - target).square().sum() / target.square().sum().clamp_min(1e-12))


def _cosine(found: Float[Tensor, "*shape"], target: Float[Tensor, "*shape"]) -> float:
    return float(torch.nn.functional.cosine_similarity(found.flatten(), target.flatten(), dim=0))
