"""Short hashes of tensors: equal tensors have equal hashes, from any file and any library."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

__all__ = ["fingerprint", "fingerprint_of"]


def fingerprint(networks: Mapping[str, nn.Module], facts: Iterable[object] = ()) -> str:
    """Hash of all weights and buffers of ``networks`` and of the text of ``facts``, as 24 hex
    digits.
    """
    tensors = {f"{name}.{key}": value for name, each in networks.items() for key, value in each.state_dict().items()}
    return fingerprint_of(tensors, facts)


def fingerprint_of(tensors: Mapping[str, Tensor], facts: Iterable[object] = ()) -> str:
    """Hash of names, types, shapes and bytes of ``tensors`` and of the text of ``facts``."""
    digest = hashlib.blake2b(digest_size=12)
    for name, value in tensors.items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\0".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    for fact in facts:
        digest.update(f"{fact}\0".encode())
    return digest.hexdigest()
