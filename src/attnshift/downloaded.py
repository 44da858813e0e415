"""Weights of LPIPS, DISTS and others, read from the caches of their libraries; nothing is
downloaded.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from pickle import UnpicklingError
from typing import Literal

import torch
from safetensors import SafetensorError
from torch import nn

from attnshift.errors import UnavailableError

__all__ = ["LpipsNetwork", "hub_file", "load_dists", "load_lpips", "only_weights", "reading"]

LpipsNetwork = Literal["alex", "vgg", "squeeze"]


def load_lpips(network: LpipsNetwork) -> nn.Module:
    """LPIPS of torchmetrics on ``network``, frozen: two images [batch,3,height,width] ->
    [batch,1,1,1].

    torchvision's weights of ``network`` must be in the cache, else ``UnavailableError`` is raised.
    torchmetrics itself contains the weights of LPIPS.
    """
    return _lpips(network, _torchvision(network))


def load_dists() -> nn.Module:
    """DISTS of torchmetrics on VGG-16, frozen: two images [batch,3,height,width] in [0,1] ->
    [batch].

    Raises ``UnavailableError`` if torchvision's weights of VGG-16 are not in the cache.
    """
    return _dists(_torchvision("vgg"))


def hub_file(url: str, what: str) -> Path:
    """Path of the file of ``url`` in torch.hub's cache.

    Raises ``UnavailableError`` if it is missing.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
    if not path.is_file():
        raise UnavailableError(f"needs {what}, and {path} is missing; put {url} there (TORCH_HOME moves the folder)")
    return path


@contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """Raise ``UnavailableError`` if ``path`` does not hold weights of ``what``.

    Only weights are read.
    """
    try:
        with only_weights():
            yield
    except (RuntimeError, TypeError, ValueError, OSError, EOFError, UnpicklingError, SafetensorError) as error:
        reason = str(error).partition("\n")[0]
        raise UnavailableError(f"{path} cannot be used as weights of {what}: {reason}") from None


@contextmanager
def only_weights() -> Iterator[None]:
    """Make every ``torch.load`` read tensors only. torchvision does not ask for that by itself."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _torchvision(network: LpipsNetwork) -> Path:
    from torchvision.models import AlexNet_Weights, SqueezeNet1_1_Weights, VGG16_Weights

    weights = {"alex": AlexNet_Weights, "vgg": VGG16_Weights, "squeeze": SqueezeNet1_1_Weights}[network].DEFAULT
    return hub_file(weights.url, f"torchvision's {weights}")


@cache
def _lpips(network: LpipsNetwork, path: Path) -> nn.Module:
    """LPIPS whose backbone weights are the file ``path``, loaded once."""
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    with reading(path, f"lpips network '{network}'"):
        # The metric object keeps the values of all calls. Its last step also drops the batch axis
        # of one image.
        return LearnedPerceptualImagePatchSimilarity(network).net


@cache
def _dists(path: Path) -> nn.Module:
    from torchmetrics.functional.image.dists import DISTSNetwork

    with reading(path, "dists"):
        return DISTSNetwork().eval().requires_grad_(False)
