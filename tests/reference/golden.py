"""The golden run: losses of preset ``diffattack`` that a change of the code must not move.

    PYTHONPATH=tests python -m reference.golden     writes tests/reference/golden.json anew

Rounding differs from processor to processor, and three things enlarge it above the tolerance: 70 updates of null-text
tuning, a ReLU at zero (tests/reference/test_diffattack.py), and AdamW from its second update on, wherever a mean of
gradients comes near zero. So a step is tuned by one update, the classifier has no ReLU, and the losses are those before
and after the first update, which is large, because distances of nearly equal maps are mostly rounding. Everything else
is the preset.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch

from attnshift.attack.loop import optimise_latents
from attnshift.attack.method import Method
from attnshift.attack.prepare import prepare_batch
from attnshift.diffusion.stable_diffusion import StableDiffusion
from attnshift.recipes.reading import load_recipe
from reference.setting import sharp_pipeline, smooth, two_tasks, whole_image_classifier

__all__ = ["GOLDEN", "PREDICTION_TYPES", "Losses", "golden_losses"]

GOLDEN = Path(__file__).with_suffix(".json")
PREDICTION_TYPES = ("epsilon", "v_prediction")
SIDE, DTYPE = 128, torch.float32
SETTINGS = [
    "reconstruction.updates=1",
    "reconstruction.updates_per_step=0",
    "optimiser.learning_rate=0.05",
    "optimiser.iterations=2",
]

Losses = dict[str, list[list[float]]]
"""For each weighted loss one list per image, with one value per iteration."""


def golden_losses(prediction_type: str) -> Losses:
    classifier = whole_image_classifier(DTYPE)
    smooth(classifier.network)
    backbone = StableDiffusion(sharp_pipeline(prediction_type, SIDE, DTYPE), "tiny")
    batch = prepare_batch(
        Method.of(load_recipe("diffattack", SETTINGS)), backbone, [classifier], two_tasks(SIDE, DTYPE)
    )
    snapshots = [snapshot for snapshot in optimise_latents(batch) if snapshot.losses]
    return {
        name: torch.stack([snapshot.losses[name] for snapshot in snapshots], 1).tolist() for name in snapshots[0].losses
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    found = {each: golden_losses(each) for each in PREDICTION_TYPES}
    GOLDEN.write_text(json.dumps(found, indent=1) + "\n")
