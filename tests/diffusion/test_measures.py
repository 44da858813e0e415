"""Measures of a pipeline: the share of a known noise that it predicts, and the spread of its latents."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor

from attnshift.diffusion import load_pipeline
from attnshift.diffusion.backbone import Prediction
from attnshift.diffusion.measures import PipelineMeasures, measure_pipeline
from attnshift.lab.weights import pipeline_folder
from attnshift.testing.models import pictures
from later import later
from pipelines import tiny_pipeline
from planted import edit_json

if TYPE_CHECKING:
    from attnshift.diffusion.stable_diffusion import StableDiffusion

stable_diffusion = later("attnshift.diffusion.stable_diffusion")

IMAGES = pictures(3)


@pytest.fixture(scope="module")
def lab() -> StableDiffusion:
    loaded = load_pipeline("lab")
    assert isinstance(loaded, stable_diffusion.StableDiffusion)
    return loaded


@pytest.fixture
def scaled(lab: StableDiffusion) -> Iterator[Callable[[float], PipelineMeasures]]:
    """Measures of the lab with its scaling factor multiplied."""
    right = lab.vae.config["scaling_factor"]

    def measured(factor: float) -> PipelineMeasures:
        lab.vae.register_to_config(scaling_factor=right * factor)
        return measure_pipeline(lab, IMAGES)

    yield measured
    lab.vae.register_to_config(scaling_factor=right)


class Velocity:
    """The lab's denoiser as a network that predicts v, behind a configuration that states ``stated``."""

    def __init__(self, inner: StableDiffusion, stated: str) -> None:
        self.inner, self.prediction_type = inner, stated

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)

    def denoise(self, latents: Tensor, timestep: int, text: Tensor) -> Prediction:
        found = self.inner.denoise(latents, timestep, text)
        alpha = float(self.inner.scheduler.alphas_cumprod[timestep])
        # The v that belongs to the predicted noise: (noise - sqrt(1 - alpha) latents) / sqrt(alpha).
        velocity = (found.output - (1 - alpha) ** 0.5 * latents) / alpha**0.5
        return found if self.prediction_type == "v_prediction" else Prediction(velocity, found.attention)


def test_a_right_pipeline_is_fine(lab: StableDiffusion) -> None:
    measures = measure_pipeline(lab, IMAGES)
    assert measures.verdict.kind == "fine"
    assert measures.predicted["epsilon"] > 0.6 > 0.2 > measures.predicted["v_prediction"]
    assert 0.8 < measures.spread < 1.6
    assert "lab predicts noise as trained pipelines do (3 images: " in measures.verdict.line
    assert measures == measure_pipeline(lab, IMAGES)


@pytest.mark.parametrize("count", [1, 2])
def test_one_image_is_enough(lab: StableDiffusion, count: int) -> None:
    assert measure_pipeline(lab, IMAGES[:count]).verdict.kind == "fine"


def test_flat_images_are_no_reason_for_doubt(lab: StableDiffusion) -> None:
    flat = torch.tensor([0.0, 1.0])[:, None, None, None].expand(2, 3, 64, 64)
    assert measure_pipeline(lab, flat).verdict.kind == "fine"


def test_an_epsilon_model_that_states_v_prediction_is_refused(tmp_path: Path) -> None:
    folder = shutil.copytree(pipeline_folder(), tmp_path / "lab")
    edit_json(folder / "scheduler" / "scheduler_config.json", prediction_type="v_prediction")
    verdict = measure_pipeline(stable_diffusion.load_stable_diffusion(str(folder)), IMAGES).verdict
    assert verdict.kind == "refused"
    assert "states the prediction type v_prediction, and its outputs are those of epsilon; correct" in verdict.line


def test_a_velocity_model_that_states_epsilon_is_refused(lab: StableDiffusion) -> None:
    right, wrong = (measure_pipeline(Velocity(lab, stated), IMAGES) for stated in ("v_prediction", "epsilon"))
    assert (right.verdict.kind, wrong.verdict.kind) == ("fine", "refused")
    assert "states the prediction type epsilon, and its outputs are those of v_prediction" in wrong.verdict.line
    assert right.predicted["v_prediction"] == pytest.approx(wrong.predicted["v_prediction"], abs=1e-3)


@pytest.mark.parametrize(
    ("factor", "kinds", "finding"),
    [
        (0.18215 / 1.333, {"refused"}, "spread too little"),
        (0.1, {"refused"}, "spread too little"),
        (0.4, {"doubtful"}, "spread too little"),
        (2, {"doubtful"}, "spread too far"),
        (4, {"doubtful", "refused"}, "spread too far"),
        (8, {"refused"}, "spread too far"),
    ],
)
def test_a_wrong_scaling_factor_is_said_or_refused(
    scaled: Callable[[float], PipelineMeasures], factor: float, kinds: set[str], finding: str
) -> None:
    verdict = scaled(factor).verdict
    assert verdict.kind in kinds
    assert finding in verdict.line
    assert "correct scaling_factor in vae/config.json, which should be about " in verdict.line


@pytest.mark.parametrize("stated", ["epsilon", "v_prediction"])
def test_a_random_pipeline_is_recognised_under_either_type(stated: str) -> None:
    measures = measure_pipeline(stable_diffusion.StableDiffusion(tiny_pipeline(stated, size=64), "tiny"), IMAGES)
    assert measures.is_random
    assert measures.verdict.kind == "doubtful"
    assert "tiny predicts no noise at all, as networks with random weights do (3 images" in measures.verdict.line


def test_a_denoiser_that_answers_zeros_counts_as_random(lab: StableDiffusion) -> None:
    class Zeros(Velocity):
        def denoise(self, latents: Tensor, timestep: int, text: Tensor) -> Prediction:
            return Prediction(torch.zeros_like(latents), {})

    assert measure_pipeline(Zeros(lab, "epsilon"), IMAGES).is_random


def test_measuring_draws_nothing_from_the_global_generator(lab: StableDiffusion) -> None:
    state = torch.get_rng_state()
    measure_pipeline(lab, IMAGES[:1])
    assert torch.get_rng_state().equal(state)
