"""The folders in which libraries keep what they have downloaded, empty."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch


def empty_hubs(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    """torch.hub's folder of weights, empty as the Hugging Face cache beside it; a download fails the test."""

    def refuse(url: object, *_: object, **__: object) -> None:
        pytest.fail(f"tried to download {url}")

    patch.setenv("TORCH_HOME", str(folder))
    patch.delenv("ATTNSHIFT_WEIGHTS", raising=False)
    patch.setattr(torch.hub, "download_url_to_file", refuse)
    patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder / "huggingface"))
    patch.setattr("huggingface_hub.file_download.http_get", refuse)
    checkpoints = folder / "hub" / "checkpoints"
    checkpoints.mkdir(parents=True)
    return checkpoints
