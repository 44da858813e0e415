"""Networks of diffusers and transformers, loaded from folders that ``checks`` has read as data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers.utils import logging as diffusers_logging
from torch import nn
from transformers.utils import logging as transformers_logging

from attnshift.diffusion.checks import check_unexpected
from attnshift.errors import ModelError
from attnshift.untrusted import check_finite

__all__ = ["load_checked", "silence"]


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
    check_unexpected(found["unexpected_keys"], folder)
    absent = sorted(found["missing_keys"])
    if absent:
        # Libraries draw them at random.
        raise ModelError(f"{folder} holds no weights for {absent[0]} ({len(absent)} in all); is it whole?")
    check_finite(network.state_dict(), folder)
    return network
