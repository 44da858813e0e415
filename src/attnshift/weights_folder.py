"""Folder in which the user keeps weights that metrics need. Free of torch."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from attnshift.errors import UserError

__all__ = ["WEIGHTS_FILES", "LpipsNetwork", "WeightsFile", "choose_folder", "folder_file", "weights_folder"]

LpipsNetwork = Literal["alex", "vgg", "squeeze"]


@dataclass(frozen=True)
class WeightsFile:
    """Weights of torchvision's ``model``, and the name ``file`` under which torchvision publishes
    them."""

    model: str
    file: str

    @property
    def names(self) -> tuple[str, str]:
        """Names that the file may have in a folder of the user's."""
        return f"{self.model}.safetensors", self.file


WEIGHTS_FILES: dict[LpipsNetwork, WeightsFile] = {
    "alex": WeightsFile("alexnet", "alexnet-owt-7be5be79.pth"),
    "vgg": WeightsFile("vgg16", "vgg16-397923af.pth"),
    "squeeze": WeightsFile("squeezenet1_1", "squeezenet1_1-b8a52dc0.pth"),
}
"""Weights of the networks that LPIPS compares features of."""

_VARIABLE = "ATTNSHIFT_WEIGHTS"


def weights_folder() -> Path | None:
    """Folder that the environment variable ``ATTNSHIFT_WEIGHTS`` names; None if it names none."""
    named = os.environ.get(_VARIABLE)
    return Path(named) if named else None


def folder_file(network: LpipsNetwork) -> Path | None:
    """File of the weights of ``network`` in the user's folder; None if there is none."""
    folder = weights_folder()
    if folder is None:
        return None
    return next((folder / name for name in WEIGHTS_FILES[network].names if (folder / name).is_file()), None)


def choose_folder(folder: Path) -> str:
    """Look for weights in ``folder`` from now on, in processes that this one starts as well.

    The result is a line that says which weights it holds. ``UserError`` is raised if there is no
    such folder.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder of weights")
    os.environ[_VARIABLE] = str(folder.absolute())
    found = [(file, folder_file(network)) for network, file in WEIGHTS_FILES.items()]
    held = [path.name for _, path in found if path]
    absent = [file.names[0] for file, path in found if not path]
    lines = [f"found {', '.join(held)}"] if held else []
    lines += [f"not found {', '.join(absent)}"] if absent else []
    return f"weights in {folder}: {'; '.join(lines)}"
