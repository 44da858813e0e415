"""How visible an object still is after an edit: two images [batch,3,height,width] in [0,1], masks -> [batch].

Masks [batch,1,height,width] in [0,1] say how much of each pixel the object covers in the clean image. An edit that
removes the object fools whoever looks for it and shows no weakness. Two numbers tell: whether the structure inside the
object is still there, and whether the object as a whole still stands out from what surrounds it. The first sees noise
and lost detail, the second an object that fades.
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
    """Structural similarity inside the object, in [-1,1]; 1 where nothing changed, nan for an empty mask.

    SSIM (Wang et al., TIP 2004) with its constants and its window, a Gaussian of 11 pixels with sigma 1.5; local means
    and variances are over what the object covers of the window, and so is the mean of the map. What lies outside of
    the mask counts nowhere.
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
    """Share of the object's difference from its surroundings that is left: 1 unchanged, 0 gone, below 0 inverted.

    With c and e the colours that the clean image and the edit have at the object's pixels, and C and E the mean colours
    of its surroundings in each: sum <e - E, c - C> / sum <c - C, c - C>, the least-squares factor by which the object's
    contrast was multiplied. It is exact for an object that is blended into its surroundings; noise averages out.
    Of the rest of the image only the mean colour of the surroundings counts. nan without an object, without
    surroundings, or where the object differs from them by less than one level of 255 (root mean square).
    """
    ring = surroundings(masks)
    before, after = (images - _mean(images, ring)[:, :, None, None] for images in (clean, edit))
    contrast = _mean(before * before, masks).mean(1)
    kept = _mean(after * before, masks).mean(1) / contrast
    return torch.where(contrast > _LEVEL**2, kept, torch.nan)


def surroundings(masks: Tensor) -> Tensor:
    """The ring around the object, [batch,1,height,width] of 0 and 1: pixels that it does not touch at all, up to a
    sixteenth of the image's side away from it, and at least 2 pixels."""
    touched = (masks > 0).to(masks)
    reach = max(2, round(min(masks.shape[-2:]) / 16))
    return max_pool2d(touched, 2 * reach + 1, stride=1, padding=reach) - touched


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    """Mean [batch,channels] over pixels that count as ``weights`` [batch,1,height,width] say; nan where none does."""
    return (values * weights).sum((2, 3)) / weights.sum((2, 3))


def _blur(images: Tensor) -> Tensor:
    """Each pixel's neighbourhood under the window, [batch,channels,height,width]; 0 beyond the border."""
    places = torch.arange(-_REACH, _REACH + 1).to(images)
    line = (-(places**2) / (2 * _SIGMA**2)).exp()
    window = (line[:, None] * line / line.sum() ** 2).expand(images.shape[1], 1, -1, -1)
    return conv2d(images, window, padding=_REACH, groups=images.shape[1])
