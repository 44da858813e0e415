"""Small sources of images of every kind, for the tests of the data layer."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy
import pyarrow
import pyarrow.parquet
from PIL import Image

from attnshift.data.datasets import Item, read_items

if TYPE_CHECKING:
    from attnshift.errors import UserError

NAMES = ("ball", "mug", "donut")


def picture(seed: int, kind: str = "PNG") -> bytes:
    """An image of 8 x 8 px that no other seed gives."""
    pixels = numpy.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=numpy.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def write_tar(path: Path, members: Mapping[str, bytes] | Iterable[tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in members.items() if isinstance(members, Mapping) else members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def write_parquet(path: Path, columns: Mapping[str, Any], **options: Any) -> Path:
    pyarrow.parquet.write_table(pyarrow.table(dict(columns)), path, **options)
    return path


def items_of(source: str | Path, labels: Path | None = None, **options: Any) -> list[Item]:
    return list(read_items(source, labels, NAMES, 3, **options))


def complaints_of(source: str | Path, labels: Path | None = None, **options: Any) -> list[str]:
    """Errors of reading to the end, in order. Each is one line without control characters."""
    found: list[UserError] = []
    list(read_items(source, labels, NAMES, 3, problems=found.append, **options))
    return [one_line(error) for error in found]


def one_line(error: UserError) -> str:
    message = str(error)
    assert len(message.splitlines()) == 1
    assert not any(ord(each) < 32 or 127 <= ord(each) < 160 for each in message)
    assert len(message) < 1000
    return message
