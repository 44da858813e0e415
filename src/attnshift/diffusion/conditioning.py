"""What a denoiser is told of prompts: a record that only its backbone looks into."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace

from jaxtyping import Float
from torch import Tensor

from attnshift.batching import batch_record, per_image

__all__ = ["Conditioning", "restored", "tensors_of"]


@batch_record
class Conditioning:
    """Prompts as a denoiser reads them; ``Backbone.embed`` makes it.

    Null-text inversion tunes ``states``, and their number is the number of text columns in maps of
    cross-attention. A backbone that needs more extends the record.
    """

    states: Float[Tensor, "batch tokens width"] = per_image()
    """What the image's positions attend to."""
    pooled: Float[Tensor, "batch features"] | None = per_image(default=None)
    """One vector for each whole prompt, for models that want it."""


def tensors_of(conditioning: Conditioning, name: str) -> dict[str, Tensor]:
    """The tensors of ``conditioning`` by name: ``name`` and the field's."""
    values = {each.name: getattr(conditioning, each.name) for each in fields(conditioning)}
    return {f"{name}.{field}": value for field, value in values.items() if value is not None}


def restored(tensors: Mapping[str, Tensor], name: str, like: Conditioning) -> Conditioning:
    """What ``tensors_of`` has named so; all else is ``like``'s."""
    known = {each.name: tensors.get(f"{name}.{each.name}") for each in fields(like)}
    return replace(like, **{field: value for field, value in known.items() if value is not None})
