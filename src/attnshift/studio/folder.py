"""The folder of an attack: its input as files, the attacked image, and the command that makes it
again."""

from __future__ import annotations

import csv
import io
import shlex
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from attnshift.errors import UserError
from attnshift.files import atomic_write

__all__ = ["Arguments", "AttackFolder", "command"]

_IMAGE = "image.png"


@dataclass(frozen=True)
class Arguments:
    """Arguments of `attnshift attack` beside its files."""

    pipeline: str
    surrogates: tuple[str, ...]
    size: int | str
    threads: int
    device: str = "cpu"
    precision: str = "float32"
    accept_pipeline: bool = False


@dataclass(frozen=True)
class AttackFolder:
    """A folder with images/, labels.csv, perhaps masks/, recipe.toml, and later attack.png."""

    path: Path
    masked: bool = False

    @classmethod
    def make(
        cls, out: Path, image: bytes, label: int, class_name: str, mask: bytes | None = None, name: str = _IMAGE
    ) -> AttackFolder:
        """A new folder in ``out`` with a PNG of the square ``image`` under ``name``, its label, and
        its ``mask``; a ``UserError`` where it cannot be written."""
        try:
            out.mkdir(parents=True, exist_ok=True)
            folder = cls(Path(tempfile.mkdtemp(prefix="attack-", dir=out)), mask is not None)
            folder.images.mkdir()
            if mask is not None:
                folder.masks.mkdir()
        except OSError as error:
            raise UserError(f"`out` {out} cannot be written: {error.strerror}; choose another folder") from None
        table = io.StringIO()
        csv.writer(table).writerows([("file", "label", "class_name"), (name, label, class_name)])
        atomic_write(folder.labels, table.getvalue().encode())
        atomic_write(folder.images / name, image)
        if mask is not None:
            atomic_write(folder.masks / name, mask)
        return folder

    @property
    def images(self) -> Path:
        return self.path / "images"

    @property
    def masks(self) -> Path:
        return self.path / "masks"

    @property
    def labels(self) -> Path:
        return self.path / "labels.csv"

    @property
    def recipe(self) -> Path:
        return self.path / "recipe.toml"

    @property
    def attacked(self) -> Path:
        return self.path / "attack.png"

    @property
    def run(self) -> Path:
        """Run folder that the command writes."""
        return self.path / "run"

    def pack(self, arguments: Arguments) -> Path:
        """A ZIP file of all that the command needs, with the command in it as attack.sh."""
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
            parts = [self.labels, self.recipe, *self.images.iterdir(), *(self.masks.iterdir() if self.masked else ())]
            for part in sorted(parts):
                packed.write(part, f"attack/{part.relative_to(self.path)}")
            inside = AttackFolder(Path("attack"), self.masked)
            packed.writestr("attack.sh", command(inside, arguments) + "\n")
        target = self.path / "attack.zip"
        atomic_write(target, archive.getvalue())
        return target


def command(folder: AttackFolder, arguments: Arguments) -> str:
    """The command line that repeats the attack of ``folder``, to the byte, one option a line."""
    options = [
        ("labels", folder.labels),
        *([("masks", folder.masks)] if folder.masked else []),
        ("preset", folder.recipe),
        ("pipeline", arguments.pipeline),
        *(("surrogate", each) for each in arguments.surrogates),
        ("size", arguments.size),
        ("batch", 1),
        ("threads", arguments.threads),
        *([("device", arguments.device)] if arguments.device != "cpu" else []),
        *([("precision", arguments.precision)] if arguments.precision != "float32" else []),
        ("out", folder.run),
    ]
    lines = [f"--{name} {shlex.quote(str(value))}" for name, value in options]
    lines += ["--accept-pipeline"] if arguments.accept_pipeline else []
    return " \\\n    ".join([f"attnshift attack {shlex.quote(str(folder.images))}", *lines])
