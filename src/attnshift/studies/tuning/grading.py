"""Grade of a trial: one number for the attacked images,
from the verdicts of the tuning classifiers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Grade", "grade"]


@dataclass(frozen=True)
class Grade:
    """``success`` and ``success_with_floor`` are shares of all images, in [0,1], and means over the
    tuning classifiers; ``ssim`` is the mean over the images. See ``grade``."""

    score: float
    success: float
    success_with_floor: float
    ssim: float


def grade(right: Tensor, reached: Tensor, margin: Tensor, similarity: Tensor, floor: float) -> Grade:
    """Grade the attacked images: all [models,batch] over the tuning classifiers,
    but ``similarity`` [batch], an SSIM.

    ``right``: seen as its class when clean; ``achieved``: seen as the attack wants it when attacked
    (``Goals.achieved``); ``margin``: by how many logits it then resists (``margins``).

    An image succeeds on a classifier where it is right, reached and similar enough
    (``similarity >= floor``). The score is the share of all models * batch verdicts that succeed,
    plus mean(s) / (2 * models * batch), where s is

    - 0 where the classifier is not right on the clean image,
    - else (1 - tanh(margin / 10)) / 2, in (0,1), where the image is similar enough,
    - else (similarity - floor) / (1 + floor), in [-1,0).

    The second part gives the search a slope while few verdicts change;
    it is too small to outweigh one verdict.
    """
    similarity, margin = similarity.double(), margin.double()
    near, success = similarity >= floor, right & reached
    slope = torch.where(near, (1 - torch.tanh(margin / 10)) / 2, (similarity - floor) / (1 + floor)) * right
    with_floor = (success & near).double().mean()
    score = with_floor + slope.mean() / (2 * right.numel())
    return Grade(float(score), float(success.double().mean()), float(with_floor), float(similarity.mean()))
