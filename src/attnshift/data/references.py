"""References to the bytes of images, and fetching of those bytes."""

from __future__ import annotations

import stat
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

from attnshift.errors import ImageError, LabelError

__all__ = [
    "LARGEST_FILE",
    "Reference",
    "ReferenceKind",
    "check_name",
    "fetch",
    "is_folder",
    "is_regular",
    "is_there",
    "path_of",
    "scheme_of",
    "shown",
]

LARGEST_FILE = 256 * 2**20
"""Largest size of an encoded image, in bytes."""

ReferenceKind = Literal["file", "url", "row", "member"]


@dataclass(frozen=True)
class Reference:
    """Place of an image's bytes.

    ``kind`` says if it is a file, a URL, a row of a parquet file or a member of a tar file.
    ``location`` is the absolute path or the URL of the file. ``start`` is the number of the row,
    from 0, or the offset of the member's first byte. ``length`` is the member's size in bytes.

    >>> str(Reference("member", "/data/a.tar", 512, 2048))
    'member:512:2048:/data/a.tar'
    """

    kind: ReferenceKind
    location: str
    start: int = 0
    length: int = 0

    def __str__(self) -> str:
        numbers = {"row": (self.start,), "member": (self.start, self.length)}.get(self.kind, ())
        return ":".join((self.kind, *map(str, numbers), self.location))

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Reference from its text, as ``str`` writes it.

        Raises ``ValueError`` for any other text.
        """
        kind, _, rest = text.partition(":")
        match kind:
            case "file" | "url":
                return cls(kind, rest)
            case "row":
                start, location = rest.split(":", 1)
                return cls(kind, location, int(start))
            case "member":
                start, length, location = rest.split(":", 2)
                return cls(kind, location, int(start), int(length))
        raise ValueError(f"{shown(text)} is not a reference; it starts with file:, url:, row: or member:")

    @property
    def name(self) -> str:
        """Name for messages."""
        suffix = {"row": f" row {self.start}", "member": f" at byte {self.start}"}.get(self.kind, "")
        return self.location + suffix


def fetch(reference: Reference) -> bytes:
    """Encoded bytes of an image, at most ``LARGEST_FILE`` of them.

    Every error is an ``ImageError``. Of local files, only regular ones are opened: never a folder,
    a pipe or a device.
    """
    content = _READERS[reference.kind](reference) if reference.length <= LARGEST_FILE else None
    if content is None or len(content) > LARGEST_FILE:
        most = f"{LARGEST_FILE} bytes ({LARGEST_FILE // 2**20} MiB)"
        raise ImageError(f"{reference.name}: the file of an image may have at most {most}; save it smaller first")
    return content


def is_regular(path: Path) -> bool:
    """True if ``path`` can be opened without side effects: no folder, pipe or device."""
    return stat.S_ISREG(_mode(path))


def is_folder(path: Path) -> bool:
    return stat.S_ISDIR(_mode(path))


def is_there(path: Path) -> bool:
    return bool(_mode(path))


def scheme_of(text: str) -> str:
    """Scheme of a URL, in lower case; empty for a path.

    >>> scheme_of("S3://bucket/a.png"), scheme_of("photos/a.png")
    ('s3', '')
    """
    scheme, separator, _ = text.partition("://")
    return scheme.lower() if separator else ""


def path_of(url: str) -> Path:
    """Path of a ``file://`` URL."""
    _, slash, path = url.partition("://")[2].partition("/")
    return Path(unquote(slash + path))


def check_name(text: str, where: str, kind: str = "file") -> None:
    """Raise ``LabelError`` if a name holds control characters or cannot be stored as UTF-8."""
    if any(unicodedata.category(each) in ("Cc", "Cs", "Zl", "Zp") for each in text):
        raise LabelError(f"{where}: {kind} {shown(text)} holds control characters or is not UTF-8; rename it")


def shown(value: object) -> str:
    """``value`` quoted for a message: escaped, on one line, and cut if it is long."""
    text = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    return text if len(text) <= 120 else f"{text[:100]}… ({len(text)} characters)"


def _mode(path: Path) -> int:
    """File mode of ``path``, with links followed; 0 if there is no file or its name is illegal."""
    try:
        return path.stat().st_mode
    except (OSError, ValueError):
        return 0


def _read_file(reference: Reference) -> bytes:
    if not is_regular(Path(reference.location)):
        what = "no such file, or not a regular one; correct the file column or the folder"
        raise ImageError(f"{reference.name}: {what}")
    return _read_part(reference, LARGEST_FILE + 1)


def _read_member(reference: Reference) -> bytes:
    if not is_regular(Path(reference.location)):
        raise ImageError(f"{reference.name}: no such tar file; put the shard back where it was found")
    content = _read_part(reference, reference.length)
    if len(content) < reference.length:
        raise ImageError(f"{reference.name}: the tar file ends too early; copy the shard again")
    return content


def _read_part(reference: Reference, most: int) -> bytes:
    try:
        with Path(reference.location).open("rb") as file:
            file.seek(reference.start)
            return file.read(most)
    except OSError as error:
        raise ImageError(f"{reference.name}: cannot be read ({error.strerror}); check its permissions") from None


def _read_row(reference: Reference) -> bytes:
    from attnshift.data.parquet import read_row

    return read_row(Path(reference.location), reference.start)


def _read_url(reference: Reference) -> bytes:
    url, scheme = reference.location, scheme_of(reference.location)
    if scheme == "file":
        return _read_file(Reference("file", str(path_of(url))))
    import fsspec

    try:
        # fsspec.open would follow chains such as simplecache::https://..., so one file system is
        # asked directly.
        files = fsspec.filesystem(scheme)
        with files.open(url, "rb") as file:
            return file.read(LARGEST_FILE + 1)
    except ImportError as error:
        reason = f"{scheme}:// needs a package that is not installed ({_line(error)})"
        raise ImageError(f"{url}: {reason}; pip install 'attnshift[remote]'") from None
    except Exception as error:  # noqa: BLE001  each of fsspec's file systems has exceptions of its own
        raise ImageError(f"{url}: cannot be fetched ({_line(error)}); check the URL and your access to it") from None


def _line(error: BaseException) -> str:
    name = type(error).__name__
    return f"{name}: {' '.join(str(error).split())[:200]}" if str(error).strip() else name


_READERS: Mapping[ReferenceKind, Callable[[Reference], bytes]] = {
    "file": _read_file,
    "url": _read_url,
    "row": _read_row,
    "member": _read_member,
}
