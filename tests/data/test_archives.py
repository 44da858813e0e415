"""Tar shards in WebDataset's layout, honest, damaged and hostile."""

from __future__ import annotations

import io
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest

from attnshift.data.datasets import read_items
from attnshift.data.references import fetch
from attnshift.errors import LabelError
from data.sources import NAMES, complaints_of, items_of, one_line, picture, write_tar


def test_samples_of_a_shard(tmp_path: Path) -> None:
    shard = write_tar(
        tmp_path / "a.tar",
        {
            "README": b"of no sample", "./000.png": picture(0), "./000.cls": b"2\n", "./000.txt": b"a caption",
            "sub/001.json": b'{"label": 1, "class_name": "cup", "target": "donut"}', "sub/001.JPG": picture(1, "JPEG"),
            "sub/002.seg.png": b"no image of ours", "sub/002.webp": picture(2, "WEBP"), "sub/002.cls": b"0",
        },
    )  # fmt: skip
    items = items_of(shard, target=None, limit=1) + items_of(write_tar(tmp_path / "b.tar", {
        "x.json": b'{"label": 1, "class_name": "cup", "target": "donut"}', "x.JPG": picture(1, "JPEG"),
    }))  # fmt: skip
    assert [(item.file, item.label, item.class_name, item.target) for item in items] == [
        ("a.tar/./000.png", 2, "donut", None), ("b.tar/x.JPG", 1, "cup", 2),
    ]  # fmt: skip
    assert [fetch(item.image) for item in items] == [picture(0), picture(1, "JPEG")]
    assert len(items_of(shard, target="mug", limit=1)) == 1
    assert "unlike the images before" in complaints_of(shard)[0], "the first sample has no target"


@pytest.mark.parametrize("label", [b"", b"x", b"1.0", b"-1", b"3", b"\xff", b"0_1"])
def test_labels_that_are_none(tmp_path: Path, label: bytes) -> None:
    shard = write_tar(tmp_path / "a.tar", {"0.png": picture(0), "0.cls": label, "1.png": picture(1), "1.cls": b"1"})
    (complaint,) = complaints_of(shard)
    assert "label" in complaint or "not UTF-8" in complaint
    assert "a.tar sample 0" in complaint or "a.tar member 0.cls" in complaint


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"0.png": b"x"}, "sample 0: no label beside the image; add 0.cls"),
        ({"0.cls": b"1"}, "sample 0: no image beside the label; add one of png, jpg, jpeg, webp"),
        ({"0.cls": b"1", "0.heic": b"x"}, "no image beside the label"),
        ({"0.png": b"x", "0.jpg": b"x", "0.cls": b"1"}, "sample 0: 2 images"),
        ({"0.png": b"x", "0.json": b"{}"}, "no label beside the image"),
        ({"0.png": b"x", "0.json": b"[1]"}, "member 0.json: not a JSON object"),
        ({"0.png": b"x", "0.json": b'{"label": '}, "member 0.json: not valid JSON"),
        ({"0.png": b"x", "0.json": b'{"label": "1"}'}, "write it without quotes"),
        ({"0.png": b"x", "0.json": b'{"label": true}'}, "label True is not a whole number"),
        ({"0.png": b"x", "0.json": b'{"label": NaN}'}, "label nan is not a whole number"),
        ({"0.png": b"x", "0.json": b"\xff"}, "member 0.json: not UTF-8 text"),
        ({"0.png": b"x", "0.cls": b"1", "0.CLS": b"1"}, "a second label beside 0"),
        ({"0.png": b"x", "0.cls": b"1", "0.json": b'{"label": 2}'}, "0.cls holds label 1 and 0.json 2; correct one"),
        ({"0.png": b"x", "0.cls": b"1", "0.json": b'{"label": "mug"}'}, "0.cls holds label 1 and 0.json 'mug'"),
        ({"0.png": b"x", "0.cls": b"1" * 2**21}, "2097152 bytes are too many for a label"),
        ({"../0.png": b"x"}, "member '../0.png' lies outside the archive"),
        ({"a/../../0.png": b"x"}, "lies outside the archive"),
        ({"a\\..\\0.png": b"x"}, "lies outside the archive"),
        ({"/etc/0.png": b"x"}, "member '/etc/0.png' lies outside the archive"),
        ({"bell\x07.png": b"x"}, r"member 'bell\x07.png' holds control characters"),
        ({"new\nline.png": b"x"}, r"member 'new\nline.png' holds control characters"),
    ],
)
def test_samples_that_are_refused_among_good_ones(tmp_path: Path, members: dict[str, bytes], words: str) -> None:
    first, last = {"a.png": picture(0), "a.cls": b"0"}, {"z.png": picture(1), "z.cls": b"1"}
    shard = write_tar(tmp_path / "a.tar", {**first, **members, **last})
    (complaint,) = complaints_of(shard)
    assert words in complaint
    assert str(shard) in complaint
    assert len(items_of(shard, problems=lambda error: None)) == 2


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
@pytest.mark.parametrize("suffix", [".png", ".cls", ""])
def test_members_that_are_no_files(tmp_path: Path, kind: bytes, suffix: str) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, content in (("0.png", picture(0)), ("0.cls", b"1")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo(f"1{suffix}")
        link.type, link.linkname = kind, "/etc/passwd"
        archive.addfile(link)
    (complaint,) = complaints_of(tmp_path / "a.tar")
    assert f"member 1{suffix}: a link, a device or a sparse file" in complaint


def test_folders_of_an_archive_are_no_samples(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "0.png").write_bytes(picture(0))
    (tmp_path / "in" / "0.cls").write_text("1")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(tmp_path / "in", "in")
    assert [item.label for item in items_of(tmp_path / "a.tar")] == [1]


def shards(folder: Path, count: int) -> Path:
    for number in range(count):
        write_tar(folder / f"shard-{number:03d}.tar", {"0.png": picture(number), "0.cls": b"1"})
    return folder


def test_a_folder_of_shards_and_a_range_of_them(tmp_path: Path) -> None:
    shards(tmp_path, 12)
    names = [f"shard-{number:03d}.tar/0.png" for number in range(12)]
    assert [item.file for item in items_of(tmp_path)] == names
    assert [item.file for item in items_of(tmp_path / "shard-{008..011}.tar")] == names[8:]
    assert [item.file for item in items_of(str(tmp_path / "shard-{000..000}.tar"))] == names[:1]
    with pytest.raises(LabelError, match=r"shard-012\.tar: no such"):
        items_of(tmp_path / "shard-{010..012}.tar")


@pytest.mark.parametrize(
    ("suffix", "mode"), [("tar.gz", "w:gz"), ("tgz", "w:gz"), ("tar.bz2", "w:bz2"), ("tar", "w:gz")]
)
def test_compressed_archives_are_refused(tmp_path: Path, suffix: str, mode: str) -> None:
    path = tmp_path / f"a.{suffix}"
    with tarfile.open(path, mode) as archive:
        archive.addfile(tarfile.TarInfo("0.png"))
    for source in (path, tmp_path):
        with pytest.raises(LabelError, match=r"compressed archives cannot|not an uncompressed tar file") as caught:
            items_of(source)
        one_line(caught.value)


def cut_in_a_member(content: bytes) -> bytes:
    return content[: 512 + 20]


def cut_between_members(content: bytes) -> bytes:
    return content[:2048]


def cut_before_the_end(content: bytes) -> bytes:
    return content.rstrip(b"\0") + bytes(-len(content.rstrip(b"\0")) % 512)


def damage_a_header(content: bytes) -> bytes:
    return content[:1024] + bytes([content[1024] ^ 255]) + content[1025:]


@pytest.mark.parametrize("damage", [cut_in_a_member, cut_between_members, cut_before_the_end, damage_a_header])
def test_damage_is_never_taken_for_the_end(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    """The shard after it is read all the same where all problems are wanted."""
    shards(tmp_path, 2)
    broken = tmp_path / "shard-000.tar"
    broken.write_bytes(damage(broken.read_bytes()))
    with pytest.raises(LabelError, match=r"shard-000\.tar: .*copy"):
        items_of(tmp_path)
    found = [item.file for item in items_of(tmp_path, problems=lambda error: None)]
    assert found[-1:] == ["shard-001.tar/0.png"]


def test_memory_does_not_grow_with_the_number_of_members(tmp_path: Path) -> None:
    """tarfile would keep a kilobyte of each; a duplicate is known by a small number."""

    def peak(count: int) -> int:
        members = ((f"{number}.{suffix}", content) for number in range(count)
                   for suffix, content in (("png", b"%d" % number), ("cls", b"1")))  # fmt: skip
        shard = write_tar(tmp_path / "a.tar", members)
        tracemalloc.start()
        for item in read_items(shard, None, NAMES, 3):
            del item
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(10)
    assert peak(450) - peak(50) < 400 * 150


def test_damaged_archives_give_one_line_and_nothing_else(tmp_path: Path) -> None:
    """Flipped bytes, most of them in headers, and cuts at 300 seeded places."""
    members = [(f"{number}.{suffix}", content) for number in range(3)
               for suffix, content in (("png", picture(number)), ("cls", b"1"))]  # fmt: skip
    whole = write_tar(tmp_path / "a.tar", members).read_bytes()
    draw, seen = numpy.random.default_rng(2), set()
    for _ in range(300):
        content = bytearray(whole)
        for _ in range(draw.integers(1, 5)):
            header = 512 * draw.integers(len(whole) // 512)
            content[header + draw.integers(512)] = draw.integers(256)
        (tmp_path / "a.tar").write_bytes(content[: draw.integers(len(content)) if draw.random() < 0.3 else None])
        try:
            seen.update(each.split(": ", 1)[1][:12] for each in complaints_of(tmp_path / "a.tar"))
        except LabelError as error:
            seen.add(one_line(error)[-12:])
    assert len(seen) > 3
