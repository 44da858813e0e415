"""The preset ``diffattack`` against the baseline written down plainly: same losses, same gradients, same latents.

Two comparisons, because single precision cannot carry the first one. Null-text tuning takes 70 updates of AdamW, which
divides each gradient by its own size and so turns rounding errors of small gradients into errors of the embedding
(about 1e-6 after the first step, up to 4e-3 after the last); and a rounding error that moves one of the classifier's
ReLUs across zero changes the gradient at once, by more than 1e-4. So the whole path, tuning included,
is compared in double precision, and single precision only from a common trajectory, with the ReLUs made smooth.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor

from attnshift.attack.loop import Snapshot, optimise_latents
from attnshift.attack.method import Method
from attnshift.attack.prepare import PreparedBatch, Task, prepare_batch
from attnshift.recipes.reading import load_recipe
from later import later

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

    from attnshift.classifiers.classifier import Classifier

stable_diffusion = later("attnshift.diffusion.stable_diffusion")
handover = later("reference.handover")
setting = later("reference.setting")
plainly = later("reference.naive_diffattack")

ITERATIONS = 3

LOSSES = {"classification", "variance", "self_attention"}


@pytest.mark.heavy
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_whole_path_in_double_precision(prediction_type: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # The engine rounds attention and logits to single precision with .float(), which is not what is compared here.
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    side, dtype = 128, torch.float64
    classifier = setting.whole_image_classifier(dtype)
    tasks = setting.two_tasks(side, dtype)
    batch, snapshots = _run_engine(setting.sharp_pipeline(prediction_type, side, dtype), classifier, tasks, [])
    gradients = _gradients(snapshots)
    assert [len(span) for span in batch.observe.tokens] == [2, 1]
    for at, task in enumerate(tasks):
        pipeline = setting.sharp_pipeline(prediction_type, side, dtype)
        draw = (batch.method.recipe.seed, task.id)
        naive = plainly.naive_diffattack(
            pipeline, handover.bare(classifier), task.image, task.label, task.class_name, ITERATIONS, draw
        )
        for engine, plain in zip(batch.render.trajectory.unconditional, naive.preparation.embeddings, strict=True):
            assert _error(engine.states[at], plain[0]) < 1e-7
        for snapshot, gradient, iterate in zip(snapshots, gradients, naive.iterates, strict=False):
            assert _error(snapshot.latents[at], iterate.latent[0]) < 1e-7
            _check_losses(snapshot, at, iterate.losses, 1e-7)
            assert _error(gradient[at], iterate.gradient[0]) < 1e-7
        assert naive.iterates[-1].losses["self_attention"] > 0
        assert _error(snapshots[-1].latents[at], naive.latent[0]) < 1e-7


@pytest.mark.heavy
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_objective_in_single_precision(prediction_type: str) -> None:
    side, dtype = 224, torch.float32
    classifier = setting.whole_image_classifier(dtype)
    setting.smooth(classifier.network)
    tasks = setting.two_tasks(side, dtype)
    # One update per step is enough: the trajectory is handed to the naive side.
    short = ["reconstruction.updates=1", "reconstruction.updates_per_step=0"]
    batch, snapshots = _run_engine(setting.sharp_pipeline(prediction_type, side, dtype), classifier, tasks, short)
    gradients = _gradients(snapshots)
    pipeline = setting.sharp_pipeline(prediction_type, side, dtype)
    pipeline.scheduler.set_timesteps(20)
    for at, task in enumerate(tasks):
        preparation = handover.prepared(batch, pipeline, at, task.class_name)
        for snapshot, gradient in zip(snapshots, gradients, strict=False):
            iterate = plainly.look(
                pipeline, handover.bare(classifier), preparation, snapshot.latents[at : at + 1], task.label
            )
            _check_losses(snapshot, at, iterate.losses, 1e-4)
            assert _error(gradient[at], iterate.gradient[0]) < 1e-4


def _run_engine(
    pipeline: StableDiffusionPipeline, classifier: Classifier, tasks: list[Task], settings: list[str]
) -> tuple[PreparedBatch, list[Snapshot]]:
    recipe = load_recipe("diffattack", [f"optimiser.iterations={ITERATIONS}", *settings])
    batch = prepare_batch(Method.of(recipe), stable_diffusion.StableDiffusion(pipeline, "tiny"), [classifier], tasks)
    return batch, list(optimise_latents(batch))


def _gradients(snapshots: list[Snapshot]) -> list[Tensor]:
    """What the engine updated with, read off the running mean of its optimiser: mean <- 0.9 mean + 0.1 gradient."""
    means = [snapshot.state.optimiser.mean for snapshot in snapshots]
    return [(after - 0.9 * before) / 0.1 for before, after in pairwise(means)]


def _check_losses(snapshot: Snapshot, at: int, plain: dict[str, float], tolerance: float) -> None:
    engine = {name: float(values[at]) for name, values in snapshot.losses.items()}
    assert engine.keys() == plain.keys() == LOSSES
    # At the first iterate both branches are one, and the self-attention loss is zero but for rounding.
    assert engine == {name: pytest.approx(value, rel=tolerance, abs=1e-12) for name, value in plain.items()}
    assert sum(engine.values()) == pytest.approx(sum(plain.values()), rel=tolerance)


def _error(engine: Tensor, plain: Tensor) -> float:
    return float((engine - plain).norm() / plain.norm())
