"""What the naive baseline is handed, made from the engine's objects."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reference.naive_diffattack import Network, Preparation, embed, find_words

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

    from attnshift.attack.prepare import PreparedBatch
    from attnshift.classifiers.classifier import Classifier

__all__ = ["bare", "prepared"]


def bare(classifier: Classifier) -> Network:
    """``classifier``, which must see the whole image."""
    facts = classifier.preprocessing
    assert facts.resized is None
    return Network(classifier.network, facts.size, facts.interpolation, tuple(facts.mean), tuple(facts.std))


def prepared(batch: PreparedBatch, pipeline: StableDiffusionPipeline, at: int, class_name: str) -> Preparation:
    """The trajectory of image ``at`` of ``batch``, whose prompt is ``class_name``."""
    trajectory, row = batch.render.trajectory, slice(at, at + 1)
    embeddings = [each.states[row] for each in trajectory.unconditional]
    return Preparation(embed(pipeline, class_name), find_words(pipeline, class_name), embeddings, trajectory.start[row])
