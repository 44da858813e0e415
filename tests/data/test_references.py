"""A reference is a line of text, and fetching it reads what is there and nothing else."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from attnshift.data import references
from attnshift.data.datasets import Item
from attnshift.data.references import Reference, fetch
from attnshift.errors import ImageError
from data.sources import one_line, write_parquet, write_tar

REFERENCES = [
    Reference("file", "/photos/a:b \U0001f600.png"),
    Reference("url", "https://example.org/a.png?x=1:2"),
    Reference("row", "/data/train:1.parquet", 12),
    Reference("member", "/data/a:b.tar", 512, 2048),
]


@pytest.mark.parametrize("reference", REFERENCES, ids=[each.kind for each in REFERENCES])
def test_a_reference_is_its_text(reference: Reference) -> None:
    assert Reference.parse(str(reference)) == reference
    assert pickle.loads(pickle.dumps(reference)) == reference


# Characters that are listed: for all of Unicode hypothesis makes a table first, which takes seconds.
LOCATIONS = some.text("aZ0:/\\.%?#= \n\0é\U0001f600")


@settings(max_examples=40)
@given(some.sampled_from(["file", "url", "row", "member"]), LOCATIONS, some.integers(0), some.integers(0))
def test_any_location_comes_back(kind: references.ReferenceKind, location: str, start: int, length: int) -> None:
    start = start if kind in ("row", "member") else 0
    reference = Reference(kind, location, start, length if kind == "member" else 0)
    assert Reference.parse(str(reference)) == reference


@pytest.mark.parametrize("text", ["", "a.png", "pipe:cat x", "row:x:/a.parquet", "member:1:/a.tar"])
def test_what_is_no_reference(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        Reference.parse(text)


@pytest.mark.parametrize("mask", [None, REFERENCES[0]])
@pytest.mark.parametrize("target", [None, 2])
def test_items_are_rows_of_plain_values(mask: Reference | None, target: int | None) -> None:
    item = Item("0123456789abcdef", "a.png", REFERENCES[3], 1, "mug", mask, target, "" if target is None else "donut")
    row = item.to_row()
    assert Item.from_row(row) == item
    assert Item.from_row({**row, "number": 7}) == item, "other columns do not matter"
    assert all(value is None or type(value) in (str, int) for value in row.values())


def test_each_kind_is_fetched(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"of a file")
    shard = write_tar(tmp_path / "a.tar", {"x.png": b"of a member", "y.png": b"another"})
    rows = write_parquet(tmp_path / "a.parquet", {"image": [b"zero", b"of a row"], "label": [0, 1]})
    fsspec.filesystem("memory").pipe("/fetched/a.png", b"of a URL")
    assert fetch(Reference("file", str(tmp_path / "a.png"))) == b"of a file"
    assert fetch(Reference("member", str(shard), 512, 11)) == b"of a member"
    assert fetch(Reference("row", str(rows), 1)) == b"of a row"
    assert fetch(Reference("url", "memory://fetched/a.png")) == b"of a URL"
    assert fetch(Reference("url", f"file://{tmp_path}/a.png")) == b"of a file"


def refusal(reference: Reference) -> str:
    with pytest.raises(ImageError) as caught:
        fetch(reference)
    message = one_line(caught.value)
    assert reference.location.removeprefix("file://") in message
    return message


def test_what_is_no_regular_file_is_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "fifo.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "link.png").symlink_to(tmp_path / "fifo.png")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")

    def opened(*_: object, **__: object) -> None:
        raise AssertionError("opened")

    monkeypatch.setattr(Path, "open", opened)
    for name in ("fifo.png", "folder.png", "link.png", "loop.png", "nowhere.png", "x" * 500, "a\0b"):
        for reference in (Reference("file", f"{tmp_path}/{name}"), Reference("member", f"{tmp_path}/{name}", 0, 4)):
            with pytest.raises(ImageError, match="no such"):
                fetch(reference)
    for device in ("/dev/zero", "/dev/null"):
        assert "not a regular one" in refusal(Reference("file", device))
        assert "not a regular one" in refusal(Reference("url", f"file://{device}"))


def test_more_bytes_than_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(references, "LARGEST_FILE", 10)
    fsspec.filesystem("memory").pipe("/limit.png", bytes(11))
    (tmp_path / "a.png").write_bytes(bytes(11))
    rows = write_parquet(tmp_path / "a.parquet", {"image": [bytes(11), bytes(10)], "label": [0, 1]})
    for reference in (
        Reference("file", str(tmp_path / "a.png")),
        Reference("url", "memory://limit.png"),
        Reference("row", str(rows), 0),
        Reference("member", str(tmp_path / "a.png"), 0, 11),
    ):
        assert "at most 10 bytes" in refusal(reference)
    assert len(fetch(Reference("row", str(rows), 1))) == 10


def test_a_large_file_is_not_read_to_its_end(tmp_path: Path) -> None:
    """A terabyte of nothing takes no disk, and must take no memory."""
    with (tmp_path / "a.png").open("wb") as file:
        file.truncate(2**40)
    assert "256 MiB" in refusal(Reference("file", str(tmp_path / "a.png")))


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("memory://nowhere/a.png", "FileNotFoundError"),
        ("nonsense://a/b.png", "ValueError"),
        ("http://[x/a.png", "http://[x/a.png: "),
        ("simplecache::file:///etc/passwd", "cannot be fetched"),
    ],
)
def test_urls_that_cannot_be_fetched(url: str, words: str) -> None:
    assert words in refusal(Reference("url", url))


def test_a_url_whose_package_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(scheme: str) -> None:
        raise ImportError("install s3fs")

    monkeypatch.setattr(fsspec, "filesystem", missing)
    assert "pip install 'attnshift[remote]'" in refusal(Reference("url", "s3://bucket/a.png"))


def test_a_shard_that_was_cut(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(bytes(700))
    assert "ends too early" in refusal(Reference("member", str(tmp_path / "a.tar"), 512, 300))
