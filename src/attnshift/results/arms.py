"""Control arms: the images that classifiers are shown beside the attack."""

from __future__ import annotations

__all__ = ["ARMS"]

ARMS: dict[str, str] = {
    "clean": "the image as it was read; from noise: its twin, without the attack",
    "round_trip": "through the autoencoder and back",
    "reconstruction": "inverted and denoised, not attacked",
    "noise": "moved at random, as far as the attack moved it",
    "attack": "the adversarial image",
}
"""Arm -> its description. Classifiers are shown every arm of every image; success that a control
arm has as well does not count for the attack.

An attack on pixels has no autoencoder and no inversion, and so no arm for them. Nor has an attack
from noise. It reads no image: its clean arm is the twin, made of the same noise.
"""
