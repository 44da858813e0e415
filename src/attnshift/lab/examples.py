"""Examples for training a denoiser of the lab: latents with captions, class phrases and masks."""

# The annotations of diffusers and transformers are narrower than what they accept and return.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPTokenizer

from attnshift.lab.splits import Split
from attnshift.lab.tokenizer import MAX_LENGTH
from attnshift.lab.training import Report, TrainingBatch
from attnshift.sizes import Size

__all__ = ["ATTENTION_WEIGHT", "Drawn", "Examples", "encoded", "outside"]

ATTENTION_WEIGHT = 0.02
"""Weight of the attention supervision beside the squared error of the prediction."""
_EMPTY_CAPTIONS = 0.1


@torch.no_grad()
def encoded(autoencoder: AutoencoderKL, split: Split, path: Path, report: Report) -> Tensor:
    """Posterior means of all images and of their mirror images, [2,n,8,16,16], kept in ``path``."""
    if not path.exists():
        report("encoding the training images")
        parts = [
            torch.stack([autoencoder.encode(view).latent_dist.mean for view in (images, images.flip(3))])
            for images in (part / 127.5 - 1 for part in split.images.split(100))
        ]
        save_file({"latents": torch.cat(parts, 1)}, path)
    return load_file(path)["latents"]


@dataclass(frozen=True)
class Drawn:
    """Rows of one training step.

    ``clean`` latents [batch,channels,rows,columns], ``masks`` [batch,1,64,64] of their objects, and
    token ``ids`` of a caption with the positions of its class ``phrase``, both [batch,tokens]. An
    empty caption has no phrase.
    """

    clean: Tensor
    masks: Tensor
    ids: Tensor
    phrase: Tensor


class Examples:
    """Scaled ``latents``, as ``encoded`` orders them, with the captions and masks of ``split``."""

    def __init__(self, split: Split, tokenizer: CLIPTokenizer, latents: Tensor):
        captions = [scene.captions for scene in split.scenes]
        padded: dict[str, Any] = {"padding": "max_length", "max_length": MAX_LENGTH, "return_tensors": "pt"}
        self.choices = len(captions[0])
        flat = [caption for several in captions for caption in several]
        names = [scene.class_name for scene in split.scenes for _ in range(self.choices)]
        tokens = tokenizer(flat, return_offsets_mapping=True, **padded)
        starts = torch.tensor([caption.index(name) for caption, name in zip(flat, names, strict=True)])
        ends = starts + torch.tensor([len(name) for name in names])
        offsets = tokens["offset_mapping"]
        inside = (offsets[..., 0] >= starts[:, None]) & (offsets[..., 1] <= ends[:, None])
        self.phrase = inside & (offsets[..., 1] > offsets[..., 0])
        self.ids = tokens["input_ids"]
        self.empty = tokenizer([""], **padded)["input_ids"]
        self.latents, self.masks = latents, split.masks

    def draw(self, batch: TrainingBatch) -> Drawn:
        """Half of the rows are mirrored, and a tenth of the captions are empty."""
        mirrored = batch.uniform(len(batch.indices)) < 0.5
        masks = self.masks[batch.indices].float() / 255
        masks = torch.where(mirrored[:, None, None, None], masks.flip(3), masks)
        ids, phrase = self._captions(batch)
        return Drawn(self.latents[mirrored.long(), batch.indices], masks, ids, phrase)

    def _captions(self, batch: TrainingBatch) -> tuple[Tensor, Tensor]:
        rows = batch.indices * self.choices + torch.from_numpy(
            batch.draw.integers(self.choices, size=len(batch.indices))
        )
        empty = batch.uniform(len(rows), 1) < _EMPTY_CAPTIONS
        return torch.where(empty, self.empty, self.ids[rows]), self.phrase[rows] & ~empty


def outside(probabilities: Tensor, drawn: Drawn, grid: Size) -> Tensor:
    """Negative logarithm of the share of the phrase's attention inside the mask, [batch].

    ``probabilities`` [batch,heads,queries,tokens] are those of a cross-attention site on ``grid``.
    """
    mass = (probabilities.mean(1) * drawn.phrase[:, None, :]).sum(2)
    inside = torch.nn.functional.adaptive_avg_pool2d(drawn.masks, grid).flatten(1)
    share = (mass * inside).sum(1) / (mass.sum(1) + 1e-6)
    return -torch.log(share + 1e-3)
