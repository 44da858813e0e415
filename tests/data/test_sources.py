"""The kind of a source is recognised from its files. An ambiguous source is refused in one line."""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import fsspec
import pytest

from attnshift.errors import LabelError
from data.sources import complaints_of, items_of, one_line, picture, write_parquet, write_tar

if TYPE_CHECKING:
    from attnshift.data.references import Reference


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    """A folder with a subfolder for each of ten classes and more, to be filled."""
    root = tmp_path / "classes"
    root.mkdir()
    return root


def put(root: Path, *files: str) -> None:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(picture(zlib.crc32(file.encode())))


def labels_of(source: Path | str, **options: object) -> dict[str, tuple[int, str]]:
    return {item.file: (item.label, item.class_name) for item in items_of(source, **options)}


def refusal(source: Path | str, labels: Path | None = None, **options: object) -> str:
    with pytest.raises(LabelError) as caught:
        items_of(source, labels, **options)
    return one_line(caught.value)


def test_subfolders_that_are_numbers_are_labels(classes: Path) -> None:
    put(classes, "2/b.png", "0/a.JPG", "01/deep/er/c.png", "2/a.png", ".git/x.png", "2/.hidden.png", "2/Thumbs.db")
    found = labels_of(classes)
    assert found == {
        "0/a.JPG": (0, "ball"), "01/deep/er/c.png": (1, "mug"), "2/a.png": (2, "donut"), "2/b.png": (2, "donut"),
    }  # fmt: skip
    assert list(found) == sorted(found), "by label and then by name"


def test_subfolders_that_are_class_names_have_their_labels(classes: Path) -> None:
    put(classes, "donut/a.png", "ball/b.png")
    assert labels_of(classes) == {"ball/b.png": (0, "ball"), "donut/a.png": (2, "donut")}


def test_a_list_of_classes_says_the_order(classes: Path) -> None:
    put(classes, "n10/a.png", "n9/b.png", "10/c.png")
    (classes / "classes.txt").write_text("\ufeffn9\r\nn10\r\n10\r\n\r\n", encoding="utf-8")
    assert labels_of(classes) == {"n9/b.png": (0, "ball"), "n10/a.png": (1, "mug"), "10/c.png": (2, "donut")}


@pytest.mark.parametrize(
    ("listed", "words"),
    [
        ("n9\n", "no line for subfolder 'n10'"),
        ("n9\nn10\nn9\n", "line 3: 'n9' is listed before"),
        ("n9\n\nn10\n", "line 2: an empty line"),
        ("N9\nn10\n", "no line for subfolder 'n9'"),
    ],
)
def test_a_list_of_classes_that_does_not_fit(classes: Path, listed: str, words: str) -> None:
    put(classes, "n10/a.png", "n9/b.png")
    (classes / "classes.txt").write_text(listed)
    assert words in refusal(classes)


@pytest.mark.parametrize("names", [("1", "mug"), ("n1", "n10", "n2"), ("Bal", "mug"), ("-1", "0"), ("1.0",), ("²",)])
def test_the_order_of_names_is_never_taken_for_that_of_labels(classes: Path, names: tuple[str, ...]) -> None:
    put(classes, *(f"{name}/a.png" for name in names))
    assert "lexicographic order (1, 10, 2) is not label order" in refusal(classes)


def test_subfolders_whose_names_leave_a_choice(classes: Path) -> None:
    put(classes, "1/a.png", "01/b.png")
    assert "two subfolders have the same number" in refusal(classes)


def test_what_lies_among_classes_and_is_no_image(classes: Path) -> None:
    put(classes, "0/a.png", "0/notes.txt", "loose.png", "1/folder.png/x.png", "3/d.png")
    os.mkfifo(classes / "1" / "fifo.png")
    elsewhere = classes.parent / "elsewhere"
    put(elsewhere, "x.png")
    (classes / "1" / "way").symlink_to(elsewhere)
    (classes / "1" / "link.png").symlink_to(elsewhere / "x.png")
    complaints = complaints_of(classes)
    for words in (
        "notes.txt: not the name of an image",
        "image 'loose.png' lies in none of the subfolders",
        "folder.png is not a regular file",
        "fifo.png is not a regular file",
        "file '1/way' does not lie inside",
        "file '1/link.png' does not lie inside",
        "label 3 is out of range",
    ):
        assert sum(words in complaint for complaint in complaints) == 1, words
    assert len(complaints) == 7


def test_masks_and_targets_of_class_folders(classes: Path, tmp_path: Path) -> None:
    put(classes, "0/a.png", "1/b.png")
    put(tmp_path / "masks", "0/a.png")
    (complaint,) = complaints_of(classes, masks=tmp_path / "masks", target="donut")
    assert "masks/1/b.png does not exist" in complaint
    (item,) = items_of(classes, masks=tmp_path / "masks", target="donut", limit=1)
    assert (str(item.mask), item.target) == (f"file:{tmp_path}/masks/0/a.png", 2)


@pytest.mark.parametrize(
    ("name", "text"),
    [("metadata.csv", "file_name,label\nsub/a.png,1\n"), ("metadata.jsonl", '{"file_name": "sub/a.png", "label": 1}')],
)
def test_the_metadata_of_hugging_face(tmp_path: Path, name: str, text: str) -> None:
    put(tmp_path, "sub/a.png")
    (tmp_path / name).write_text(text)
    assert labels_of(tmp_path) == labels_of(tmp_path / name) == {"sub/a.png": (1, "mug")}


def test_a_manifest_alone_may_list_urls_and_files_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "a.png")
    fsspec.filesystem("memory").pipe("/listed/b.png", picture(5))
    monkeypatch.setattr("attnshift.data.folders._LISTED", ("memory",))
    (tmp_path / "photos.csv").write_text("file,label\na.png,0\nmemory://listed/b.png,1\n")
    first, second = items_of(tmp_path / "photos.csv")
    assert (str(first.image), str(second.image)) == (f"file:{tmp_path}/a.png", "url:memory://listed/b.png")


def test_a_prefix_of_urls(tmp_path: Path) -> None:
    fsspec.filesystem("memory").pipe({"/bucket/photos/a.png": picture(1), "/bucket/photos/sub/b c.png": picture(2)})
    labels = tmp_path / "labels.csv"
    labels.write_text("file,label\na.png,0\nsub/b c.png,1\n../x.png,1\n/x.png,1\na/../../x.png,1\n..\\x.png,1\n,1\n")
    for prefix in ("memory://bucket/photos", "memory://bucket/photos/"):
        items = items_of(prefix, labels, limit=2)
        assert [item.image.location for item in items] == [
            "memory://bucket/photos/a.png", "memory://bucket/photos/sub/b c.png",
        ]  # fmt: skip
        complaints = complaints_of(prefix, labels)
        assert len(complaints) == 5
        assert all("does not lie inside memory://bucket/photos" in each for each in complaints)


def test_names_below_an_http_url_are_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a name with ? or # would fetch another file."""
    labels = tmp_path / "labels.csv"
    labels.write_text("file,label\na?b#c d%2e.png,0\n")
    asked: list[Reference] = []
    monkeypatch.setattr("attnshift.data.datasets.fetch", lambda reference: asked.append(reference) or b"image")
    items_of("https://example.org/photos", labels)
    assert [str(each) for each in asked] == ["url:https://example.org/photos/a%3Fb%23c%20d%252e.png"]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("s3://bucket/photos", "give `labels`"),
        ("s3://bucket/train.tar", "download it first"),
        ("https://example.org/train.parquet", "download it first"),
        ("https://example.org/train.tar.gz", "download it first"),
        ("https://example.org/photos?token=1", "write whole URLs"),
        ("https://user:secret@example.org/photos", "holds a user or password"),
        ("ssh://host/photos", "cannot be fetched"),
        ("simplecache::s3://bucket/photos", "cannot be fetched"),
        ("pipe:cat a.tar", "a command is never run"),
        ("pipe:curl https://example.org/{000..009}.tar", "a command is never run"),
        ("nowhere", "no such folder of images"),
        ("x" * 500, "no such folder of images"),
        ("a\nb", r"'a\nb' holds control characters"),
        ("shard-{9..0}.tar", "one range with the lower number first"),
        ("shard-{0..1}-{0..1}.tar", "one range"),
        ("shard-{0..999999999}.tar", "one range"),
        ("shard-{" + "9" * 40 + "..0}.tar", "no such folder"),
    ],
)
def test_sources_that_are_refused(source: str, words: str) -> None:
    message = refusal(source)
    assert words in message
    assert "secret@" not in message


def test_a_file_url_is_a_path(tmp_path: Path) -> None:
    put(tmp_path, "in here/0/a.png")
    assert labels_of(f"file://{tmp_path}/in%20here") == {"0/a.png": (0, "ball")}
    assert "no such folder" in refusal("file:///dev/zero")


def test_two_kinds_at_once(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", {"image": [picture(0)], "label": [0]})
    assert len(items_of(tmp_path)) == 1
    write_tar(tmp_path / "a.tar", {"0.png": picture(1), "0.cls": b"1"})
    assert "has parquet files and tar files; give" in refusal(tmp_path)
    (tmp_path / "a.parquet").unlink()
    assert len(items_of(tmp_path)) == 1
    for name in ("metadata.csv", "metadata.jsonl"):
        (tmp_path / name).touch()
        assert f"has tar files and {name}; give" in refusal(tmp_path)
        (tmp_path / name).unlink()
    (tmp_path / "1").mkdir()
    assert "has tar files and subfolders; give" in refusal(tmp_path)
    (tmp_path / "a.tar").unlink()
    for name in ("metadata.csv", "metadata.jsonl"):
        (tmp_path / name).touch()
    assert "has metadata.csv and metadata.jsonl" in refusal(tmp_path)


def test_nothing_that_says_the_labels(tmp_path: Path) -> None:
    put(tmp_path, "a.png")
    assert "nothing there gives labels; give `labels`" in refusal(tmp_path)
    assert "not a source of images" in refusal(tmp_path / "a.png")
    (tmp_path / "0").mkdir()
    (tmp_path / "a.png").unlink()
    assert "no images are listed" in refusal(tmp_path)


def test_labels_for_what_has_labels(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("file,label\n")
    shard = write_tar(tmp_path / "a.tar", {"0.png": picture(1), "0.cls": b"1"})
    assert "it holds labels of its own; leave out `labels`" in refusal(shard, tmp_path / "labels.csv")


def test_masks_go_with_files_in_a_folder(tmp_path: Path) -> None:
    put(tmp_path, "masks/a.png")
    (tmp_path / "labels.csv").write_text("file,label\nhttps://example.org/a.png,1\n")
    shard = write_tar(tmp_path / "a.tar", {"0.png": picture(1), "0.cls": b"1"})
    rows = write_parquet(tmp_path / "a.parquet", {"image": [picture(0)], "label": [0]})
    for source, labels in ((shard, None), (rows, None), ("s3://bucket/photos", tmp_path / "labels.csv")):
        assert "masks need a folder of image files" in refusal(source, labels, masks=tmp_path / "masks")
    (complaint,) = complaints_of(tmp_path / "labels.csv", masks=tmp_path / "masks")
    assert "masks/https:/example.org/a.png does not exist" in complaint
