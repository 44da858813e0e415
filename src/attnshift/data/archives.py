"""Images in tar files in WebDataset's layout: KEY.png with KEY.cls or KEY.json beside it.

Shards are read in place and never unpacked.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from attnshift.data.manifests import parse_object
from attnshift.data.references import Reference, check_name, shown
from attnshift.data.samples import Sample, Samples
from attnshift.errors import LabelError, UserError

__all__ = ["tar_samples"]

_IMAGES = ("png", "jpg", "jpeg", "webp")
_LONGEST = 2**20
"""Largest size of a label member, in bytes."""


def tar_samples(shards: Sequence[Path]) -> Samples:
    """Samples of ``shards``, in order.

    A sample is a run of members with the same name up to the first dot.
    """
    for shard in shards:
        try:
            with _opened(shard) as archive:
                sample = _TarSample(shard, "")
                for member in _members(archive):
                    try:
                        key, suffix = _split(shard, member)
                    except LabelError as error:
                        yield error
                        continue
                    if key != sample.key:
                        yield from sample.finish()
                        sample = _TarSample(shard, key)
                    if not member.isdir():
                        sample.add(archive, member, suffix)
                yield from sample.finish()
        except LabelError as error:
            yield error


@dataclass
class _TarSample:
    """Members of one key, collected in their order."""

    shard: Path
    key: str
    images: list[tuple[str, Reference]] = field(default_factory=list)
    label: str | None = None
    """Text of KEY.cls."""
    values: dict[str, object] | None = None
    """Content of KEY.json."""
    error: UserError | None = None

    def add(self, archive: tarfile.TarFile, member: tarfile.TarInfo, suffix: str) -> None:
        where = f"{self.shard} member {member.name}"
        try:
            _check_kind(member, where)
            if suffix in _IMAGES:
                location = str(self.shard.absolute())
                self.images.append((member.name, Reference("member", location, member.offset_data, member.size)))
            elif suffix in ("cls", "json"):
                self._add_values(where, suffix, _content(archive, member, where))
        except LabelError as error:
            self.error = self.error or error

    def _add_values(self, where: str, suffix: str, content: bytes) -> None:
        if (self.label if suffix == "cls" else self.values) is not None:
            raise LabelError(f"{where}: a second label beside {self.key}; keep one")
        try:
            if suffix == "cls":
                self.label = content.decode().strip()
            else:
                self.values = parse_object(content)
        except ValueError as error:
            reason = "not UTF-8 text" if isinstance(error, UnicodeDecodeError) else error
            raise LabelError(f"{where}: {reason}; correct it or remove the sample") from None

    def finish(self) -> Samples:
        """Yield the finished sample or its error, or nothing if it has no members."""
        where = f"{self.shard} sample {self.key}"
        labelled = self.label is not None or self.values is not None
        if self.error is not None:
            yield self.error
        elif len(self.images) > 1:
            yield LabelError(f"{where}: {len(self.images)} images; give each a key of its own")
        elif self.images and self.label is None and "label" not in (self.values or {}):
            yield LabelError(f"{where}: no label beside the image; add {self.key}.cls, or a .json with a label")
        elif self.images:
            yield self._sample(where)
        elif labelled:
            yield LabelError(f"{where}: no image beside the label; add one of {', '.join(_IMAGES)}")

    def _sample(self, where: str) -> Sample | LabelError:
        ((name, image),) = self.images
        file = f"{self.shard.name}/{name}"
        if self.values is None:
            return Sample(where, file, image, {"label": self.label})
        if self.label is None:
            return Sample(where, file, image, self.values, typed=True)
        # Where both are there, a name in one of them is checked against the number in the other.
        number = int(self.label) if self.label.isascii() and self.label.isdecimal() else None
        given = self.values.get("label", self.label if number is None else number)
        if number is not None and given != number:
            what = f"{self.key}.cls holds label {number} and {self.key}.json {shown(given)}"
            return LabelError(f"{where}: {what}; correct one, or remove it")
        stated = "" if number is not None else self.label
        return Sample(where, file, image, {**self.values, "label": given}, typed=True, stated=stated)


def _opened(shard: Path) -> tarfile.TarFile:
    try:
        return tarfile.open(shard, "r:")
    except (tarfile.TarError, OSError, ValueError) as error:
        raise LabelError(f"{shard}: not an uncompressed tar file ({error}); unpack it, or make it again") from None


def _members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Members in their order. The archive's own list of members is cleared, to save memory."""
    name = str(archive.name)
    size = Path(name).stat().st_size
    try:
        while member := archive.next():
            if member.size < 0 or (member.isreg() and member.offset_data + member.size > size):
                raise LabelError(f"{name}: the tar file ends inside of member {shown(member.name)}; copy it again")
            yield member
            archive.members.clear()  # pyright: ignore[reportAttributeAccessIssue]
        _check_end(archive, name)
    except (tarfile.TarError, OSError, ValueError, OverflowError) as error:
        raise LabelError(f"{name}: damaged after byte {archive.offset} ({error}); copy the shard again") from None


def _check_end(archive: tarfile.TarFile, name: str) -> None:
    """Raise ``LabelError`` if the archive ends too early.

    tarfile reports a damaged header, or a file cut between two members, as a regular end.
    """
    file = archive.fileobj
    if file is None:
        return
    file.seek(archive.offset)
    block = file.read(tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE or any(block):
        raise LabelError(f"{name}: damaged at byte {archive.offset}, or cut there; copy the shard again")


def _split(shard: Path, member: tarfile.TarInfo) -> tuple[str, str]:
    """Key and suffix of ``member``, both empty for a folder."""
    check_name(member.name, str(shard), "member")
    parts = re.split(r"[/\\]", member.name)
    if ".." in parts or member.name.startswith(("/", "\\")):
        raise LabelError(f"{shard}: member {shown(member.name)} lies outside the archive; make the shard again")
    if member.isdir():
        return "", ""
    key, _, suffix = parts[-1].partition(".")
    return "/".join((*parts[:-1], key)), suffix.lower()


def _check_kind(member: tarfile.TarInfo, where: str) -> None:
    if not member.isreg() or member.issparse():
        raise LabelError(f"{where}: a link, a device or a sparse file; store the file itself")


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo, where: str) -> bytes:
    if member.size > _LONGEST:
        raise LabelError(f"{where}: {member.size} bytes are too many for a label; remove it")
    file = archive.extractfile(member)
    return b"" if file is None else file.read()
