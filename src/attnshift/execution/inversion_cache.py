"""Inversions kept by content: what went in names the file,
so that any run with the same inputs finds it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from attnshift.files import atomic_write, writing
from attnshift.fingerprint import fingerprint_of

__all__ = ["InversionCache"]


@dataclass(frozen=True)
class InversionCache:
    """Tensors by a hash of all inputs of their computation, in files below ``folder``.

    ``facts`` are what decides their bits beside these inputs: weights, device, threads, software. A
    file that a crash or a disk has damaged is made anew.
    """

    folder: Path
    facts: tuple[object, ...]

    def __call__(
        self, inputs: Mapping[str, Tensor], facts: Sequence[object], compute: Callable[[], dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        key = fingerprint_of(inputs, (*self.facts, *facts))
        path = self.folder / key[:2] / f"{key}.safetensors"
        device = next(iter(inputs.values())).device
        try:
            return dict(_unpacked(name, value) for name, value in load_file(path, str(device)).items())
        except (FileNotFoundError, SafetensorError):
            made = compute()
        with writing(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, save(dict(_packed(name, value) for name, value in made.items())))
        return made


def _packed(name: str, value: Tensor) -> tuple[str, Tensor]:
    """``value`` with its dimensions in the order
    in which memory holds them, which then ends its name.

    Convolutions round otherwise where the channels come last.
    """
    order = sorted(range(value.ndim), key=value.stride, reverse=True)
    return f"{name}@{''.join(map(str, order))}", value.detach().cpu().permute(order).contiguous()


def _unpacked(name: str, value: Tensor) -> tuple[str, Tensor]:
    name, _, order = name.rpartition("@")
    return name, value.permute([order.index(str(dimension)) for dimension in range(value.ndim)])
