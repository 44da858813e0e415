"""Texts of a pipeline: where phrases stand among what its denoiser attends to, and encoders that
can leave memory."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from attnshift.errors import ModelError
from attnshift.types import TokenSpan

__all__ = ["Encoders", "TextStream", "locate"]


@dataclass(frozen=True)
class TextStream:
    """One encoder's tokens, which stand in a row among all that a denoiser attends to.

    ``length`` counts them, the last of which is never part of a phrase, and ``start`` is the place
    of the first one.
    """

    name: str
    tokenizer: Any
    length: int
    start: int = 0

    def tokens(self, prompts: Sequence[str], tokenizer: Any = None) -> torch.Tensor:
        """Token ids [prompts,length], by another ``tokenizer`` if it is given."""
        encoded = (tokenizer or self.tokenizer)(
            list(prompts), padding="max_length", max_length=self.length, truncation=True, return_tensors="pt"
        )
        return encoded.input_ids


def locate(
    pipeline: str, streams: Sequence[TextStream], prompt: str, phrase: str, start: int | None, stream: str
) -> TokenSpan:
    """Token positions of ``phrase`` in ``prompt``, at character ``start`` or where it stands last,
    in the ``stream`` of that name or in one after the other.

    ``ModelError``, about ``pipeline``, if the phrase is absent or cut off.
    """
    names = [each.name for each in streams]
    if stream not in ("all", *names):
        raise ModelError(
            f"prompt.stream is {stream!r}, and {pipeline} reads texts as {' and '.join(names)}; choose one, or all"
        )
    found = list(re.finditer(f"(?={re.escape(phrase)})", prompt, re.IGNORECASE)) if phrase.strip() else []
    places = [each.start() for each in found if start is None or each.start() == start]
    if not places:
        raise ModelError(f"the phrase {phrase!r} does not stand in the prompt {prompt!r}")
    chosen = [each for each in streams if stream in ("all", each.name)]
    return tuple(at for each in chosen for at in _span(pipeline, each, prompt, phrase, places[-1]))


def _span(pipeline: str, stream: TextStream, prompt: str, phrase: str, start: int) -> TokenSpan:
    end = start + len(phrase)
    offsets = stream.tokenizer(prompt, return_offsets_mapping=True)["offset_mapping"]
    span = tuple(at for at, (first, last) in enumerate(offsets) if last > first and first < end and last > start)
    if not span or span[-1] >= stream.length - 1:
        raise ModelError(
            f"{prompt!r} takes {len(offsets)} tokens and {pipeline} reads {stream.length}: {phrase!r} would be cut; "
            "give a shorter class_name or prompt.template"
        )
    return tuple(stream.start + at for at in span)


class Encoders:
    """Text encoders by their names in the pipeline's folder; constants, on the device where they
    are used.

    ``reload`` brings back what ``release`` lets go; without it they stay.
    """

    def __init__(self, networks: Mapping[str, nn.Module], reload: Callable[[], Mapping[str, nn.Module]] | None):
        self._networks: Mapping[str, nn.Module] | None = networks
        self._reload = reload

    def __getitem__(self, name: str) -> Any:
        return self.all()[name]

    def all(self) -> Mapping[str, nn.Module]:
        """Every encoder, loaded again if it has been released."""
        if self._networks is None:
            assert self._reload is not None
            self._networks = self._reload()
        for network in self._networks.values():
            network.eval().requires_grad_(False)
        return self._networks

    def release(self) -> None:
        """Let go of the encoders if they can be loaded again."""
        if self._reload is not None:
            self._networks = None

    def to(self, device: torch.device) -> Encoders:
        """The same encoders on ``device``."""
        for network in self.all().values():
            network.to(device)
        return self
