"""Download of pipelines from the Hugging Face hub: safetensors and configurations, never code."""

# The annotations of diffusers are narrower than what it accepts.
# pyright: reportArgumentType=false

from __future__ import annotations

from pathlib import Path

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

from attnshift.diffusion.layout import Layout
from attnshift.errors import ModelError
from attnshift.untrusted import reason

__all__ = ["download", "download_network"]

_PATIENCE = 10
"""Seconds that the hub has for its first answer."""


def download(name: str, variant: str | None, layout: Layout) -> Path:
    """Folder of the pipeline ``name``, or ``USER/NAME``, of the hub,
    downloaded unless it is cached.

    Without an answer of the hub its cache is used. Raises ``ModelError`` if the pipeline is in
    neither of them.
    """
    refusal = _refusal(name)
    try:
        folder = layout.pipeline.download(
            name, variant=variant, use_safetensors=True, trust_remote_code=False, local_files_only=bool(refusal),
            **{part: None for part, given in layout.left_out.items() if given is None},
        )  # fmt: skip
    except Exception as error:  # noqa: BLE001
        # Each version of the library brings the exceptions of another network library.
        raise ModelError(f"cannot load the pipeline {name}: {refusal or reason(error)}") from None
    return Path(folder)


def download_network(name: str) -> Path:
    """Folder of the single network ``name``, or ``USER/NAME``, of the hub,
    as ``download`` finds it."""
    refusal = _refusal(name)
    try:
        folder = snapshot_download(
            name, allow_patterns=["config.json", "*.safetensors"], local_files_only=bool(refusal)
        )
    except Exception as error:  # noqa: BLE001
        raise ModelError(refusal or reason(error)) from None
    return Path(folder)


def _refusal(name: str) -> str:
    """Return why the hub does not give ``name``; empty if it does.

    It is asked once. Without a network, diffusers would ask again and again.
    """
    try:
        HfApi().model_info(name, timeout=_PATIENCE)
    except GatedRepoError:
        return "the Hugging Face hub wants its terms accepted; accept them on its page, then run `hf auth login`"
    except RepositoryNotFoundError:
        return "the Hugging Face hub has no such name that you may read; check it, or run `hf auth login`"
    except Exception as error:  # noqa: BLE001
        return f"the Hugging Face hub cannot be reached ({reason(error)}); give a folder, or connect to the network"
    return ""
