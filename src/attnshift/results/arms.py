"""Control arms: what is shown of every image beside the attack."""

from __future__ import annotations

__all__ = ["ARMS"]

ARMS: dict[str, str] = {
    "clean": "the image as it was read",
    "round_trip": "through the autoencoder and back",
    "reconstruction": "inverted and denoised, not attacked",
    "noise": "moved at random, as far as the attack moved it",
    "attack": "the adversarial image",
}
"""What every classifier is shown of every image; success that a control arm has too is not the attack's.

An attack on pixels has neither autoencoder nor inversion, and so no arm for them.
"""
