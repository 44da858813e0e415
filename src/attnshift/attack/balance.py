"""Terms on one scale: each is divided by a running norm of its own gradient."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from attnshift.batching import batch_record, per_image

__all__ = ["GradNorm"]

_DECAY = 0.9


@batch_record
class GradNorm:
    """Running gradient norm of every term, [batch] each; 0 while a term has had no gradient yet.

    A weight then says how far a term pulls and no longer depends on the units of its value. The
    idea is that of Chen et al., "GradNorm" (ICML 2018), with running norms in place of trained
    weights. Costs one backward pass a term.
    """

    norms: Mapping[str, Tensor] = per_image(depth=1, default_factory=dict)

    def combine(self, gradients: Mapping[str, Tensor], weights: Mapping[str, float]) -> tuple[Tensor, GradNorm]:
        """Sum of w * g / |g|'s running mean over terms, and the norms after it.

        ``gradients`` [batch,...] are those of the weighted terms.
        """
        norms, total = dict(self.norms), torch.zeros_like(next(iter(gradients.values())))
        for name, weighted in gradients.items():
            gradient = weighted / weights[name]
            latest = gradient.flatten(1).norm(dim=1)
            before = norms.get(name, torch.zeros_like(latest))
            # A norm of 0 is no information: the self-attention term has none at the start.
            mean = torch.where(before > 0, _DECAY * before + (1 - _DECAY) * latest, latest)
            norms[name] = torch.where(latest > 0, mean, before)
            scale = weights[name] / norms[name].clamp(min=1e-30)
            total = total + gradient * scale.view(-1, *[1] * (gradient.ndim - 1))
        return total, GradNorm(norms)
