"""Weights of LPIPS, DISTS and others, read from a folder of the user's or from the caches of their
libraries; nothing is downloaded.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from attnshift.errors import UnavailableError
from attnshift.weights_folder import WEIGHTS_FILES, LpipsNetwork, folder_file, weights_folder

__all__ = ["dists_file", "hub_file", "load_dists", "load_lpips", "lpips_file", "only_weights", "reading_weights"]


def load_lpips(network: LpipsNetwork) -> nn.Module:
    """LPIPS of torchmetrics on ``network``, frozen: two images [batch,3,height,width] ->
    [batch,1,1,1].

    torchmetrics itself contains the weights of LPIPS. Those of ``network``, torchvision's for
    ImageNet, are a file of the user's folder (``weights_folder``) or else of torch.hub's cache;
    ``UnavailableError`` is raised without them.
    """
    return _lpips(network, lpips_file(network))


def lpips_file(network: LpipsNetwork) -> Path:
    """File that ``load_lpips`` reads; ``UnavailableError`` says where it is missing."""
    return folder_file(network) or _torchvision(network, weights_folder())


def load_dists() -> nn.Module:
    """DISTS of torchmetrics on VGG-16, frozen: two images [batch,3,height,width] in [0,1] ->
    [batch].

    Raises ``UnavailableError`` if torchvision's weights of VGG-16 are not in torch.hub's cache.
    """
    return _dists(dists_file())


def dists_file() -> Path:
    """File that ``load_dists`` reads; ``UnavailableError`` says where it is missing."""
    return _torchvision("vgg")


def hub_file(url: str, what: str) -> Path:
    """Path of the file of ``url`` in torch.hub's cache.

    Raises ``UnavailableError`` if it is missing.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
    if not path.is_file():
        raise UnavailableError(f"needs {what}, and {path} is missing; put {url} there (TORCH_HOME moves the folder)")
    return path


@contextmanager
def reading_weights(path: Path, what: str) -> Iterator[None]:
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


def _torchvision(network: LpipsNetwork, lacking: Path | None = None) -> Path:
    """File of torch.hub's cache with the weights of ``network``.

    A message says that the folder ``lacking`` does not hold them.
    """
    from torchvision.models import get_model_weights

    weights = get_model_weights(WEIGHTS_FILES[network].model)["DEFAULT"]
    beside = f", which {lacking} does not hold" if lacking else ""
    return hub_file(weights.url, f"torchvision's {weights}{beside}")


@cache
def _lpips(network: LpipsNetwork, path: Path) -> nn.Module:
    """LPIPS whose backbone weights are the file ``path``, loaded once."""
    from torchmetrics.functional.image.lpips import _NoTrainLpips

    with reading_weights(path, f"lpips network '{network}'"):
        weights = load_file(path) if path.suffix == ".safetensors" else torch.load(path, map_location="cpu")
        # torchmetrics has no argument for the backbone's weights: it would read torch.hub's cache.
        lpips = _NoTrainLpips(net=network, pnet_rand=True)
        lpips.net.load_state_dict({name: _of_features(weights, name) for name in lpips.net.state_dict()})
        return lpips.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _of_features(weights: dict[str, Tensor], name: str) -> Tensor:
    """Weight of torchvision's model that torchmetrics calls ``name``:
    slice1.0.bias, slices.0.0.bias."""
    wanted = "features." + re.sub(r"^(slices\.\d+|slice\d+)\.", "", name)
    if wanted not in weights:
        raise ValueError(f"{wanted} is missing")
    return weights[wanted]


@cache
def _dists(path: Path) -> nn.Module:
    from torchmetrics.functional.image.dists import DISTSNetwork

    with reading_weights(path, "dists"):
        return DISTSNetwork().eval().requires_grad_(False)
