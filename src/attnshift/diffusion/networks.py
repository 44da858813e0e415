"""Networks of diffusers and transformers, made of files that ``checks`` has read as data."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers.utils import logging as diffusers_logging
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from attnshift.diffusion.checks import check_unexpected
from attnshift.errors import ModelError
from attnshift.untrusted import check_finite

__all__ = ["fill_checked", "load_checked", "silence"]


def silence() -> None:
    """Silence the libraries: an error is reported once, by this package."""
    diffusers_logging.set_verbosity(diffusers_logging.CRITICAL)
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()


def load_checked(folder: Path, kind: Any, variant: str | None, dtype: torch.dtype) -> nn.Module:
    """The network in ``folder``, once every weight has come from its file and is a number."""
    network, found = kind.from_pretrained(
        folder, dtype=dtype, variant=variant, use_safetensors=True, local_files_only=True, output_loading_info=True
    )
    _check_whole(network, found["missing_keys"], found["unexpected_keys"], folder)
    return network


def fill_checked(outline: nn.Module, weights: Mapping[str, Tensor], dtype: torch.dtype, where: Path) -> nn.Module:
    """The network that ``outline`` describes without memory, with ``weights``, once each of them
    has its place and is a number; messages name ``where`` they come from."""
    if isinstance(outline, PreTrainedModel):
        kind: Any = type(outline)
        network, found = kind.from_pretrained(
            None, config=outline.config, state_dict=dict(weights), dtype=dtype, output_loading_info=True
        )
        absent, unexpected = found["missing_keys"], found["unexpected_keys"]
    else:
        cast = {key: value.to(dtype) if value.is_floating_point() else value for key, value in weights.items()}
        absent, unexpected = outline.load_state_dict(cast, strict=False, assign=True)
        network = outline.eval()
    _check_whole(network, absent, unexpected, where)
    return network


def _check_whole(network: nn.Module, absent: Collection[str], unexpected: Iterable[str], where: Path) -> None:
    check_unexpected(unexpected, where)
    empty = sorted({*absent, *(key for key, value in network.state_dict().items() if value.is_meta)})
    if empty:
        # Libraries draw them at random.
        raise ModelError(f"{where} holds no weights for {empty[0]} ({len(empty)} in all); is it whole?")
    check_finite(network.state_dict(), where)
