"""Visibility of an object after an edit: [batch] from two images [batch,3,height,width] in [0,1].

Masks [batch,1,height,width] in [0,1] hold the share of each pixel that the object covers in the
clean image. An edit that removes the object fools any classifier and shows no weakness of it. One
measure compares the structure inside the object, and shows noise and lost detail. The other
compares the object's contrast to its surroundings, and shows an object that fades.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import conv2d, max_pool2d

__all__ = ["contrast_kept", "object_ssim", "surroundings"]

_SIGMA, _REACH = 1.5, 5
_LUMINANCE, _CONTRAST = 0.01**2, 0.03**2
_LEVEL = 1 / 255


def object_ssim(clean: Tensor, edit: Tensor, masks: Tensor) -> Tensor:
    """Structural similarity inside the object, in [-1,1]; 1 if nothing changed.

    It is nan for an empty mask. It is SSIM (Wang et al., TIP 2004) with its constants and its
    window, a Gaussian of 11 pixels with sigma 1.5. Local means and variances, and the mean of the
    map, are weighted by the mask. Pixels outside the mask do not count.
    """
    covered = _blur(masks).clamp(min=1e-12)
    ours, theirs, ours_squared, theirs_squared, product = (
        _blur(masks * values) / covered for values in (clean, edit, clean * clean, edit * edit, clean * edit)
    )
    covariance = product - ours * theirs
    variances = (ours_squared - ours * ours).clamp(min=0) + (theirs_squared - theirs * theirs).clamp(min=0)
    luminance = (2 * ours * theirs + _LUMINANCE) / (ours * ours + theirs * theirs + _LUMINANCE)
    structure = (2 * covariance + _CONTRAST) / (variances + _CONTRAST)
    return _mean(luminance * structure, masks).mean(1)


def contrast_kept(clean: Tensor, edit: Tensor, masks: Tensor) -> Tensor:
    """Remaining share of the object's contrast to its surroundings.

    It is 1 for an unchanged object, 0 for one that is gone, and below 0 for an inverted one. c and
    e are the colours of the clean image and the edit at the object's pixels. C and E are the mean
    colours of its surroundings in each. The share is sum <e - E, c - C> / sum <c - C, c - C>, the
    least-squares factor of the object's contrast. It is exact for an object that is blended into
    its surroundings; noise averages out. Of the rest of the image, only the mean colour of the
    surroundings counts. It is nan without an object, without surroundings, or if the object differs
    from them by less than one level of 255 (root mean square).
    """
    ring = surroundings(masks)
    before, after = (images - _mean(images, ring)[:, :, None, None] for images in (clean, edit))
    contrast = _mean(before * before, masks).mean(1)
    kept = _mean(after * before, masks).mean(1) / contrast
    return torch.where(contrast > _LEVEL**2, kept, torch.nan)


def surroundings(masks: Tensor) -> Tensor:
    """Ring around the object, [batch,1,height,width] of 0 and 1.

    It has the pixels that the object does not touch, up to a sixteenth of the image's side away
    from it, and at least 2 pixels.
    """
    touched = (masks > 0).to(masks)
    reach = max(2, round(min(masks.shape[-2:]) / 16))
    return max_pool2d(touched, 2 * reach + 1, stride=1, padding=reach) - touched


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    """Mean [batch,channels] with ``weights`` [batch,1,height,width]; nan if all are 0."""
    return (values * weights).sum((2, 3)) / weights.sum((2, 3))


def _blur(images: Tensor) -> Tensor:
    """Images smoothed by the window, [batch,channels,height,width]; 0 beyond the border."""
    places = torch.arange(-_REACH, _REACH + 1).to(images)
    line = (-(places**2) / (2 * _SIGMA**2)).exp()
    window = (line[:, None] * line / line.sum() ** 2).expand(images.shape[1], 1, -1, -1)
    return conv2d(images, window, padding=_REACH, groups=images.shape[1])
